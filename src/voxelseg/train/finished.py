"""What a finished training of a fold left."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation, read_evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.evaluate.held_out import VALIDATION_FOLDER
from voxelseg.files import read_json
from voxelseg.predict.folder import RECORD_FILE
from voxelseg.train.loop.log import LOG_FILE, read_log


@dataclass(frozen=True, kw_only=True)
class FinishedFold:
    """Scores, length and log."""

    scores: Evaluation
    """Of the held-out cases."""
    steps: int
    training_s: float
    seconds_per_case: float | None
    """Mean over the predictions of the held-out cases; None where it was not noted."""
    log: Sequence[dict[str, Any]]
    """Events, as they were logged."""


def read_finished_fold(folder: Path, held_out: Collection[str]) -> FinishedFold | None:
    """What RUN/fold_K holds; None if it is not finished, or damaged: the same command then makes it again.

    `held_out` are the ids of the cases that it must have scored.
    """
    validation = folder / VALIDATION_FOLDER
    if not (validation / SUMMARY_FILE).is_file():
        return None
    try:
        scores = read_evaluation(validation)
    except DataError:
        return None
    log = read_log(folder / LOG_FILE)
    epochs = [event for event in log if event["event"] == "epoch"]
    if set(scores.cases) != set(held_out) or not epochs:
        return None
    last = epochs[-1]
    return FinishedFold(
        scores=scores,
        steps=int(last["step"]),
        training_s=float(last["elapsed_s"]),
        seconds_per_case=_seconds_per_case(validation),
        log=log,
    )


def _seconds_per_case(predictions: Path) -> float | None:
    with suppress(DataError, AttributeError):  # not there or damaged: the label maps are no worse for it
        taken = read_json(predictions / RECORD_FILE).get("seconds", {})
        return fmean(taken.values()) if taken else None
    return None
