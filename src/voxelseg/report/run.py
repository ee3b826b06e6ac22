"""What a run folder holds, read as far as the run has come."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from voxelseg.errors import DataError
from voxelseg.evaluate import ClassScore, Evaluation, read_evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.files import read_json

RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
VALIDATION_FOLDER = "validation"
PAIRS_FILE = "pairs.json"
SECTIONS = ("dataset", "config", "plan", "fingerprint")
"""Keys of run.json that hold objects."""
_REMEDY = "Give the folder that `voxelseg train --out` wrote."
_SCORES_REMEDY = "Run the same `voxelseg train` command again: it scores the held-out cases anew."


@dataclass(frozen=True)
class CaseFiles:
    """Where the scan, the reference and the prediction of a held-out case lie."""

    images: tuple[Path, ...]
    label: Path
    prediction: Path


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

    @cached_property
    def held_out(self) -> Mapping[str, HeldOut]:
        """Name in `evaluation` -> what it stands for: the case's id, with the fold where several folds held it out."""
        times = Counter(case for fold in self.folds for case in fold.cases)
        return {
            case if times[case] == 1 else f"{case} (fold {fold.name})": HeldOut(case, fold)
            for fold in self.folds
            for case in fold.cases
        }

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Scores of the held-out cases of all folds together; None if no fold was validated.

        A case that several folds held out counts once for each: each predicted it with a network of its own.
        """
        found = [fold.evaluation for fold in self.folds if fold.evaluation is not None]
        if not found:
            return None
        notes = dict.fromkeys(note for one in found for note in one.notes)
        repeated = {one.case for name, one in self.held_out.items() if name != one.case}
        if repeated:
            words = "1 case was" if len(repeated) == 1 else f"{len(repeated)} cases were"
            notes[f"{words} held out in several folds, and each such prediction counts as a case."] = None
        scores = (replace(score, case=name) for name, one in self.held_out.items() for score in one.scores)
        return Evaluation(tuple(scores), found[0].tolerance_mm, tuple(notes))


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
    folds = sorted((path for path in folder.glob("fold_*") if path.is_dir()), key=_fold_order)
    return Run(folder, info, tuple(_read_fold(path) for path in folds))


def _fold_order(path: Path) -> tuple[int, str]:
    name = path.name.removeprefix("fold_")
    return (int(name) if name.isdigit() else 10**9, name)


def _read_fold(folder: Path) -> Fold:
    validation = folder / VALIDATION_FOLDER
    scored = (validation / SUMMARY_FILE).is_file()
    return Fold(
        name=folder.name.removeprefix("fold_"),
        epochs=_read_epochs(folder / LOG_FILE),
        evaluation=read_evaluation(validation, remedy=_SCORES_REMEDY) if scored else None,
        files=_read_pairs(validation / PAIRS_FILE),
    )


def _read_epochs(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The epochs of a log, none if there is no log.

    A line that was cut off when training was killed is left out; of an epoch that was trained again after a restart
    the last line counts.
    """
    epochs: dict[int, Mapping[str, Any]] = {}
    if not path.is_file():
        return ()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "epoch" and isinstance(entry.get("epoch"), int):
            epochs[entry["epoch"]] = entry
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def _read_pairs(path: Path) -> Mapping[str, CaseFiles]:
    if not path.is_file():
        return {}
    try:
        return {
            entry["case"]: CaseFiles(
                images=tuple(_located(Path(image), path.parent) for image in entry["images"]),
                label=_located(Path(entry["label"]), path.parent),
                prediction=_prediction(Path(entry["prediction"]), path.parent),
            )
            for entry in read_json(path)
        }
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a list of objects with case, images, label and prediction ({error!r}). "
            "Remove the file to get the report without pictures, or run the validation again."
        ) from error


def _located(path: Path, folder: Path) -> Path:
    """`path` seen from `folder`, or else from here."""
    return path if path.exists() and not (folder / path).exists() else folder / path


def _prediction(path: Path, folder: Path) -> Path:
    """The same; after the run was moved, the file of that name in `folder`."""
    located = _located(path, folder)
    return located if located.exists() else folder / path.name
