"""What a study trains: every start with every share of the labels and every seed, all else alike.

DIR/settings.json                    what must be the same for all trainings that are in the folder
DIR/work/                            plan and preprocessed cases, once for all
DIR/subsets/SHARE_seed_S.json        the fold of a share and a seed: its labelled cases, and the held-out ones
DIR/runs/START/SHARE_seed_S/         a run of its own, as `voxelseg train` makes it
DIR/logs/                            what each training printed
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.data.splits import Split, write_splits
from voxelseg.errors import ConfigError
from voxelseg.files import locked, read_json, write_json
from voxelseg.side_by_side.jobs import Job
from voxelseg.study.starts import Start
from voxelseg.study.subsets import Subset
from voxelseg.train.finished import FinishedFold, read_finished_fold

SETTINGS_FILE = "settings.json"
OF_INIT = ("transfer.channels", "transfer.grow_kernels", "transfer.least_share")
"""Settings that say how weights are taken: fresh ones are not."""


@dataclass(frozen=True)
class Training:
    """One of the trainings of a study."""

    start: Start
    share: float
    """Labelled patients, in percent."""
    seed: int

    @property
    def name(self) -> str:
        """Such as "scratch, 5 %, seed 0"."""
        return f"{self.start.name}, {self.share:g} %, seed {self.seed}"

    @property
    def subset_name(self) -> str:
        """What the file of its cases, and its folder, are called."""
        return f"{self.share:g}_seed_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Design:
    """All that is decided before the first training."""

    folder: Path
    data: Path
    model: str
    fold: int
    starts: Sequence[Start]
    shares: Sequence[float]
    seeds: Sequence[int]
    subsets: Mapping[tuple[float, int], Subset]
    """By share and seed."""
    num_training_cases: int
    """Of the fold, that is with all labels."""
    held_out: Mapping[str, str]
    """Held-out case to its patient."""
    length: Mapping[str, Any]
    """`epochs` or `budget` of each training, as they were given."""
    pace: Mapping[str, Any]
    """What decides how far trainings come in equal time: device, jobs, threads; empty for a number of epochs."""
    settings: Sequence[str]
    """As `--set` takes them."""
    device: str
    files: Mapping[str, Path]
    """File with the weights of each start that has any."""
    checksums: Mapping[str, str]
    """Of these weights."""

    @property
    def work(self) -> Path:
        """DIR/work."""
        return self.folder / "work"

    @property
    def trainings(self) -> list[Training]:
        """Seed by seed, so that a study that is stopped early has whole seeds; small shares come first."""
        return [Training(start, share, seed) for seed in self.seeds for share in self.shares for start in self.starts]

    def run_folder(self, training: Training) -> Path:
        """DIR/runs/START/SHARE_seed_S."""
        return self.folder / "runs" / training.start.name / training.subset_name

    def job(self, training: Training, *, threads: int, workers: int) -> Job:
        """The `voxelseg train` of a training; writes the file with its cases."""
        subset = self.subsets[training.share, training.seed]
        splits = self.folder / "subsets" / f"{training.subset_name}.json"
        write_splits(splits, [Split(subset.cases, tuple(sorted(self.held_out)))])
        file = self.files.get(training.start.name)
        settings = [one for one in self.settings if file is not None or not _is_of_init(one)]
        return Job(
            name=training.name,
            command=(
                *("voxelseg", "train", str(self.data)),
                *("--out", str(self.run_folder(training)), "--work", str(self.work)),
                *("--splits", str(splits), "--fold", "0", "--model", self.model, "--seed", str(training.seed)),
                *("--device", self.device, "--workers", str(workers)),
                *(word for name, value in self.length.items() for word in (f"--{name}", str(value))),
                *(() if file is None else ("--init", str(file))),
                *(word for one in (*settings, f"train.threads={threads}") for word in ("--set", one)),
            ),
            log=self.folder / "logs" / f"{training.start.name}_{training.subset_name}.log",
        )

    def outcome(self, training: Training) -> FinishedFold | None:
        """Of a finished training; None for another."""
        return read_finished_fold(self.run_folder(training) / "fold_0", self.held_out)

    def record(self) -> None:
        """Note what all trainings in the folder have in common.

        Starts, shares and seeds may be added later. ConfigError if trainings with other settings are there, a start of
        the same name had other weights, or a share and seed other cases, as after a change of the data.
        """
        shared: dict[str, Any] = {
            "data": str(self.data.absolute()),
            "model": self.model,
            "fold": self.fold,
            "held_out": dict(self.held_out),
            "num_training_cases": self.num_training_cases,
            "length": dict(self.length),
            "settings": list(self.settings),
            **self.pace,
        }
        cases = {f"{share:g}_seed_{seed}": list(one.cases) for (share, seed), one in self.subsets.items()}
        path = self.folder / SETTINGS_FILE
        with locked(self.folder, wait=True):
            known = read_json(path, remedy="Choose another --out.") if path.is_file() else shared
            differing = [name for name, value in shared.items() if known.get(name) != value]
            weights, subsets = known.get("starts", {}), known.get("subsets", {})
            differing += [f"cases of {name}" for name, one in cases.items() if subsets.get(name, one) != one]
            differing += [f"start {name}" for name, one in self.checksums.items() if weights.get(name, one) != one]
            if differing:
                raise ConfigError(
                    f"{self.folder}: holds trainings with other settings ({', '.join(differing)}; {path} has them). "
                    "Give the options that they were begun with, or choose another --out, or another name for a start "
                    "with other weights."
                )
            merged = {"starts": {**weights, **self.checksums}, "subsets": {**subsets, **cases}}
            write_json(path, {**shared, **merged})


def _is_of_init(setting: str) -> bool:
    return setting.partition("=")[0].strip() in OF_INIT
