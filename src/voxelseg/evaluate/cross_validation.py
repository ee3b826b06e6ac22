"""What a cross-validation found: the scores of all held-out cases together, before and after a postprocessing.

DIR/cases.csv, summary.json      as evaluation files are; the summary also has each fold, their spread, and intervals
DIR/postprocessing.json          which postprocessing was chosen, and what each part of it does to the mean Dice
DIR/postprocessed/               cases.csv and summary.json with that postprocessing; absent if nothing is removed
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.components import Candidate
from voxelseg.evaluate.evaluation import CASES_FILE, SUMMARY_FILE, Evaluation, read_evaluation
from voxelseg.evaluate.intervals import MetricIntervals
from voxelseg.files import read_json, remove_file, sha256_of_file, sha256_of_json, write_json
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.statistics.intervals import LEVEL, Interval
from voxelseg.statistics.resampling import RESAMPLES

POSTPROCESSING_FILE = "postprocessing.json"
POSTPROCESSED_FOLDER = "postprocessed"
MEANING = (
    f"{100 * LEVEL:g} % bootstrap interval over patients ({RESAMPLES:,} draws): what other patients might "
    "change, not what another training might."
)
OPTIMISM = (
    "The postprocessing was chosen on the cases that these scores are of, so they are a little better than those of "
    "new cases will be."
)
_REMEDY = "Run the same `voxelseg train` command again: it pools the folds anew."


@dataclass(frozen=True)
class FoldScores:
    """One fold in short."""

    cases: int
    mean: Mapping[str, float]
    """Metric -> mean over the classes of the mean over the cases."""


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Scores of all held-out cases, each predicted by the network of the fold that held it out."""

    inputs: Mapping[str, str]
    """Fold -> SHA-256 of the scores that it went in with."""
    folds: Mapping[str, FoldScores]
    patients: int
    pooled: Evaluation
    intervals: Mapping[str, MetricIntervals]
    """Of the pooled means, by metric."""
    postprocessing: Postprocessing | None
    """The one that was chosen; None: none was looked for."""
    candidates: tuple[Candidate, ...]
    """What was looked at."""
    postprocessed: Evaluation | None
    """With the chosen postprocessing; None if that removes nothing."""
    postprocessed_intervals: Mapping[str, MetricIntervals]

    def fold_std(self, metric: str) -> float:
        """Sample standard deviation of the folds' means; NaN for fewer than two."""
        means = [fold.mean[metric] for fold in self.folds.values() if not math.isnan(fold.mean[metric])]
        return stdev(means) if len(means) > 1 else math.nan

    def write(self, out: Path) -> None:
        """Write all files into folder `out`, and remove those of an earlier cross-validation that this one has not.

        Until the last one is written, `read_cross_validation` finds none there.
        """
        remove_file(out / POSTPROCESSING_FILE)
        self.pooled.write(
            out,
            more={
                "inputs": dict(self.inputs),
                "folds": {name: {"cases": one.cases, "mean": dict(one.mean)} for name, one in self.folds.items()},
                "fold_std": {one.key: self.fold_std(one.key) for one in self.pooled.columns},
                **self._intervals(self.intervals),
            },
        )
        if self.postprocessed is None:
            shutil.rmtree(out / POSTPROCESSED_FOLDER, ignore_errors=True)
        else:
            self.postprocessed.write(
                out / POSTPROCESSED_FOLDER,
                more={"inputs": dict(self.inputs), **self._intervals(self.postprocessed_intervals)},
            )
        chosen = None if self.postprocessing is None else self.postprocessing.to_dict()
        write_json(
            out / POSTPROCESSING_FILE,
            {
                "inputs": dict(self.inputs),
                "chosen": chosen,
                "candidates": [one.to_dict() for one in self.candidates],
                "note": OPTIMISM if self.postprocessing else "",
            },
        )

    def _intervals(self, intervals: Mapping[str, MetricIntervals]) -> dict[str, Any]:
        def ends(interval: Interval) -> list[float]:
            return [interval.low, interval.high]

        return {
            "patients": self.patients,
            "intervals": {
                "meaning": MEANING,
                "mean": {metric: ends(of.mean) for metric, of in intervals.items()},
                "classes": {
                    name: {metric: ends(of.classes[name]) for metric, of in intervals.items()}
                    for name in self.pooled.classes
                },
            },
        }


def read_cross_validation(folder: Path, labels: LabelScheme) -> CrossValidation | None:
    """The cross-validation that was written into `folder`; None if none was, DataError if its files are damaged."""
    if not (folder / POSTPROCESSING_FILE).is_file():
        return None
    record = read_json(folder / POSTPROCESSING_FILE, remedy=_REMEDY)
    summary = read_json(folder / SUMMARY_FILE, remedy=_REMEDY)
    after = folder / POSTPROCESSED_FOLDER
    try:
        chosen = None if record["chosen"] is None else Postprocessing.from_dict(record["chosen"], labels)
        if record["inputs"] != summary["inputs"]:
            raise ValueError("they are of different scores")
        return CrossValidation(
            inputs=summary["inputs"],
            folds={
                name: FoldScores(int(one["cases"]), _numbers(one["mean"])) for name, one in summary["folds"].items()
            },
            patients=int(summary["patients"]),
            pooled=read_evaluation(folder, remedy=_REMEDY),
            intervals=_read_intervals(summary),
            postprocessing=chosen,
            candidates=tuple(_read_candidate(one) for one in record["candidates"]),
            postprocessed=read_evaluation(after, remedy=_REMEDY) if chosen else None,
            postprocessed_intervals=_read_intervals(read_json(after / SUMMARY_FILE)) if chosen else {},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        names = f"{SUMMARY_FILE} and {POSTPROCESSING_FILE}"
        raise DataError(f"{folder}: {names} are damaged ({error!r}). {_REMEDY}") from error


def scores_state(folder: Path) -> str:
    """State of the scores in `folder`, the validation of a fold: tells whether a cross-validation is of these.

    Their summary counts, too: another tolerance may leave every score as it was.
    """
    return sha256_of_json([sha256_of_file(folder / name) for name in (CASES_FILE, SUMMARY_FILE)])


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _read_candidate(value: Mapping[str, Any]) -> Candidate:
    return Candidate(**{**value, **_numbers({key: value[key] for key in ("before", "after")})})


def _read_intervals(summary: Mapping[str, Any]) -> dict[str, MetricIntervals]:
    def interval(ends: list[float | None]) -> Interval:
        low, high = (math.nan if end is None else float(end) for end in ends)
        return Interval(low, high)

    found = summary["intervals"]
    return {
        metric: MetricIntervals(
            interval(ends), {name: interval(of_class[metric]) for name, of_class in found["classes"].items()}
        )
        for metric, ends in found["mean"].items()
    }
