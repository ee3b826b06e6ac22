"""What a benchmark trains: every contestant on every fold with every seed, all else alike.

OUT/benchmark.json                  what all trainings share and why, and the contestants
OUT/inputs.json                     what the data set held: its files with their checksums
OUT/splits.json                     the folds
OUT/work/                           plan and preprocessed cases, once for all
OUT/cells/NAME/fold_F_seed_S/       a run of its own, as `voxelseg train` makes it
OUT/pretraining/NAME/fold_F/        the pre-training that the trainings of a contestant start from, if it has one
OUT/nnunet/                         nnU-Net's own data, if it takes part
OUT/logs/                           what each training printed
OUT/costs.json                      what each network costs, measured once
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.length import Length
from voxelseg.errors import ConfigError
from voxelseg.files import locked, read_json, write_json
from voxelseg.plan.plan import Plan
from voxelseg.train.finished import FinishedFold, read_finished_fold

BENCHMARK_FILE = "benchmark.json"
SPLITS_FILE = "splits.json"
NNUNET_FOLDER = "nnunet"


@dataclass(frozen=True)
class Cell:
    """One of the trainings of a benchmark."""

    entrant: Entrant
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """Such as "uxnet, fold 0, seed 1"."""
        return f"{self.entrant.name}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Design:
    """All that is decided before the first training."""

    folder: Path
    data: Path
    dataset: str
    """Its name."""
    entrants: Sequence[Entrant]
    folds: Sequence[int]
    seeds: Sequence[int]
    held_out: Mapping[int, Mapping[str, str]]
    """Fold -> held-out case -> its patient."""
    trained_on: Mapping[int, Sequence[str]]
    """Fold -> the cases that its trainings learn from."""
    length: Length
    settings: Sequence[str]
    """Of all contestants, as `--set` takes them."""
    pace: Mapping[str, Any]
    """What decides how far trainings come in equal time: device, jobs, threads; empty for a number of steps."""
    plan: Plan
    """The same for all trainings."""
    reasons: Mapping[str, Any] = field(default_factory=dict)
    """Why the plan is as it is, for the record."""

    @property
    def work(self) -> Path:
        """OUT/work."""
        return self.folder / "work"

    @property
    def splits(self) -> Path:
        """OUT/splits.json."""
        return self.folder / SPLITS_FILE

    @property
    def cells(self) -> list[Cell]:
        """Seed by seed and fold by fold, so that a benchmark that is stopped early has whole ones."""
        return [Cell(entrant, fold, seed) for seed in self.seeds for fold in self.folds for entrant in self.entrants]

    def cell_folder(self, cell: Cell) -> Path:
        """OUT/cells/NAME/fold_F_seed_S."""
        return self.folder / "cells" / cell.entrant.name / f"fold_{cell.fold}_seed_{cell.seed}"

    def pretraining_folder(self, entrant: Entrant, fold: int) -> Path:
        """OUT/pretraining/NAME/fold_F."""
        return self.folder / "pretraining" / entrant.name / f"fold_{fold}"

    def settings_of(self, entrant: Entrant) -> list[str]:
        """All that `voxelseg train --set` is given for a contestant, but for the plan, which lies in the work folder.

        Its own settings come last, where they count.
        """
        given = [*self.settings, *entrant.settings]
        kept = [one for one in given if not one.strip().startswith("plan.")]
        return [*self.length.settings(given), *kept]

    def outcome(self, cell: Cell) -> FinishedFold | None:
        """Of a finished training; None for another."""
        return read_finished_fold(self.cell_folder(cell) / f"fold_{cell.fold}", self.held_out[cell.fold])

    def record(self, more: Mapping[str, Any]) -> None:
        """Note what all trainings in the folder, which must be locked, share, and `more` that may differ between calls.

        Contestants, folds and seeds may be added later. ConfigError if trainings with other settings are there, or a
        contestant of the same name with other ones of its own, or trainings of which nothing is noted.
        """
        shared: dict[str, Any] = {
            "data": str(self.data.absolute()),
            "length": self.length.to_dict(),
            "settings": list(self.settings),
            **self.pace,
            "plan": self.plan.model_dump(mode="json", exclude={"notes"}, exclude_none=True),
        }
        own = {one.name: one.to_dict() for one in self.entrants}
        held_out = {str(fold): sorted(cases) for fold, cases in self.held_out.items()}
        trained_on = {str(fold): sorted(cases) for fold, cases in self.trained_on.items()}
        path = self.folder / BENCHMARK_FILE
        known = read_json(path, remedy="Choose another --out.") if path.is_file() else {}
        if not known and (self.folder / "cells").exists():
            raise ConfigError(
                f"{self.folder}: has trainings in 'cells', but no {BENCHMARK_FILE} that says how they were made. "
                "Choose another --out."
            )
        differing = [name for name, value in shared.items() if known and known.get(name) != value]
        differing += _other("contestant {}", known.get("contestants", {}), own)
        differing += _other("held-out cases of fold {}", known.get("held_out", {}), held_out)
        differing += _other("training cases of fold {}", known.get("trained_on", {}), trained_on)
        if differing:
            raise ConfigError(
                f"{self.folder}: holds trainings with other settings ({', '.join(differing)}; {path} has them). "
                "Give the options that they were begun with, or choose another --out, or another name for a "
                "contestant with other settings: NAME=MODEL."
            )
        merged = {
            "contestants": {**known.get("contestants", {}), **own},
            "held_out": {**known.get("held_out", {}), **held_out},
            "trained_on": {**known.get("trained_on", {}), **trained_on},
            "reasons": {**self.reasons, **known.get("reasons", {})},
        }
        write_json(path, {**more, "dataset": self.dataset, **shared, **merged})


def wait_for_others(design: Design) -> None:
    """Until no other process trains or pre-trains here, as one may for a moment whose benchmark was killed.

    It saves its state meanwhile; a job that began now would be refused its folder.
    """
    learning = [one for one in design.entrants if one.pretrain is not None]
    folders = [design.pretraining_folder(entrant, fold) for entrant in learning for fold in design.folds]
    for folder in [*folders, *(design.cell_folder(cell) / f"fold_{cell.fold}" for cell in design.cells)]:
        if folder.is_dir():
            with locked(folder, wait=True):
                pass


def _other(words: str, known: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterable[str]:
    """Names that stand for something else already."""
    return [words.format(name) for name, value in ours.items() if known.get(name, value) != value]
