"""What a run folder holds, read as far as the run has come."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate import ClassScore, Evaluation, read_evaluation
from voxelseg.evaluate.cross_validation import CrossValidation, read_cross_validation, scores_state
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.evaluate.held_out import PAIRS_FILE, VALIDATION_FOLDER, CaseFiles, fold_folders, fold_name, read_pairs
from voxelseg.evaluate.pooling import pool
from voxelseg.files import read_json, read_json_lines

RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
SPLITS_FILE = "splits.json"
CROSS_VALIDATION_FOLDER = "cross_validation"
TRANSFER_FILE = "transfer.json"
TOPOLOGY_KEYS = {"step", "moved", "rate", "layers", "nodes"}
"""What a logged state of sparse layers must have to be drawn."""
SECTIONS = ("dataset", "config", "plan", "fingerprint")
"""Keys of run.json that hold objects."""
_REMEDY = "Give the folder that `voxelseg train --out` wrote."
_SCORES_REMEDY = "Run the same `voxelseg train` command again: it scores the held-out cases anew."


@dataclass(frozen=True)
class Fold:
    """One trained fold."""

    name: str
    """Such as "0" or "all"."""
    epochs: tuple[Mapping[str, Any], ...]
    """Last logged line of each epoch, in order."""
    evaluation: Evaluation | None
    """Scores of the held-out cases; None before the validation at the end of training."""
    files: Mapping[str, CaseFiles]
    """Case id -> its files."""
    topology: tuple[Mapping[str, Any], ...] = ()
    """Logged states of sparse layers, in order."""
    transfer: Mapping[str, Any] | None = None
    """What became of the weights that the training started from; None: it started from fresh ones."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Ids of the held-out cases that are scored."""
        return self.evaluation.cases if self.evaluation else ()

    @property
    def elapsed_s(self) -> float:
        """Time spent training, in seconds; NaN if no epoch was finished."""
        return number(self.epochs[-1].get("elapsed_s")) if self.epochs else math.nan

    @property
    def steps(self) -> int:
        """Optimizer steps up to the last logged epoch."""
        return max((int(epoch["step"]) for epoch in self.epochs if isinstance(epoch.get("step"), int)), default=0)

    @property
    def later_stages(self) -> dict[int, str]:
        """First epoch and name of each stage of the training but the first, as after kernels have grown."""
        stages = [(int(epoch["epoch"]), epoch.get("stage")) for epoch in self.epochs]
        return {epoch: str(name) for (_, before), (epoch, name) in pairwise(stages) if name != before}

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the best running validation; None if there was none."""
        return max((int(epoch["epoch"]) for epoch in self.epochs if epoch.get("best") is True), default=None)

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Epochs that have a finite value under `key`, and the values."""
        points = [(int(epoch["epoch"]), number(epoch.get(key))) for epoch in self.epochs]
        kept = [(epoch, value) for epoch, value in points if math.isfinite(value)]
        return [epoch for epoch, _ in kept], [value for _, value in kept]

    def class_curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs with a running Dice of class `name`, and its values."""
        scored = [(int(epoch["epoch"]), epoch.get("validation_dice")) for epoch in self.epochs]
        points = [(epoch, number(dice.get(name))) for epoch, dice in scored if isinstance(dice, dict)]
        kept = [(epoch, value) for epoch, value in points if math.isfinite(value)]
        return [epoch for epoch, _ in kept], [value for _, value in kept]


@dataclass(frozen=True)
class HeldOut:
    """A case that a fold held out, predicted and scored."""

    case: str
    fold: Fold

    @property
    def scores(self) -> tuple[ClassScore, ...]:
        """Of every class."""
        evaluation = self.fold.evaluation
        return tuple(score for score in evaluation.scores if score.case == self.case) if evaluation else ()


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    info: Mapping[str, Any]
    """Content of run.json."""
    folds: tuple[Fold, ...]
    """Those that were begun."""
    num_folds: int = 0
    """Of the data set."""
    cross_validation: CrossValidation | None = None
    """All folds pooled; None if they were not, or not since they were scored anew."""

    @cached_property
    def _pooled(self) -> tuple[Evaluation | None, Mapping[str, HeldOut]]:
        validated = {fold.name: fold for fold in self.folds if fold.evaluation is not None}
        if not validated:
            return None, {}
        evaluation, origin = pool({name: fold.evaluation for name, fold in validated.items() if fold.evaluation})
        return evaluation, {name: HeldOut(case, validated[fold]) for name, (case, fold) in origin.items()}

    @property
    def held_out(self) -> Mapping[str, HeldOut]:
        """Name in `evaluation` -> what it stands for: the case's id, with the fold where several folds held it out."""
        return self._pooled[1]

    @property
    def evaluation(self) -> Evaluation | None:
        """Scores of the held-out cases of all folds together; None if no fold was validated."""
        return self.cross_validation.pooled if self.cross_validation is not None else self._pooled[0]


def number(value: Any) -> float:
    """A logged value as a float, NaN if it is not a number."""
    return float(value) if isinstance(value, int | float) else math.nan


def read_run(folder: Path) -> Run:
    """What is in a run folder; folds without scores or log are allowed, DataError if run.json is missing or damaged."""
    folder = Path(folder)
    info = read_json(folder / RUN_FILE, remedy=_REMEDY)
    if not isinstance(info, dict):
        raise DataError(f"{folder / RUN_FILE}: expected an object, found {type(info).__name__}. {_REMEDY}")
    wrong = [key for key in SECTIONS if not isinstance(info.get(key) or {}, dict)]
    if wrong:
        raise DataError(f"{folder / RUN_FILE}: expected an object under {', '.join(wrong)}. {_REMEDY}")
    folds = tuple(_read_fold(path) for path in fold_folders(folder))
    splits = folder / SPLITS_FILE
    return Run(
        folder,
        info,
        folds,
        num_folds=len(read_json(splits, remedy=_REMEDY)) if splits.is_file() else len(folds),
        cross_validation=_read_cross_validation(folder, info, folds),
    )


def _read_cross_validation(folder: Path, info: Mapping[str, Any], folds: Sequence[Fold]) -> CrossValidation | None:
    """The cross-validation of just these folds with just these scores."""
    found = None
    with suppress(KeyError):  # a record that does not describe the labels
        labels = LabelScheme.from_dict((info.get("dataset") or {})["labels"])
        found = read_cross_validation(folder / CROSS_VALIDATION_FOLDER, labels)
    scored = [fold.name for fold in folds if fold.evaluation is not None]
    states = {name: scores_state(folder / f"fold_{name}" / VALIDATION_FOLDER) for name in scored}
    return found if found is not None and found.inputs == states else None


def _read_fold(folder: Path) -> Fold:
    validation = folder / VALIDATION_FOLDER
    log = read_json_lines(folder / LOG_FILE)
    scored = (validation / SUMMARY_FILE).is_file()
    return Fold(
        name=fold_name(folder),
        epochs=last_epochs(log),
        evaluation=read_evaluation(validation, remedy=_SCORES_REMEDY) if scored else None,
        files=read_pairs(validation / PAIRS_FILE),
        topology=topology_states(log),
        transfer=read_json(folder / TRANSFER_FILE) if (folder / TRANSFER_FILE).is_file() else None,
    )


def last_epochs(log: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The epochs in order; of one that was trained again after a restart the last line counts."""
    epochs = {one["epoch"]: one for one in log if one.get("event") == "epoch" and isinstance(one.get("epoch"), int)}
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def topology_states(log: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The states of sparse layers in order, each once; in one step a state after the move that led to it."""
    lines = [one for one in log if one.get("event") == "topology" and one.keys() >= TOPOLOGY_KEYS]
    states = {(one["step"], one["moved"] == 0): one for one in lines}
    return tuple(states[place] for place in sorted(states))
