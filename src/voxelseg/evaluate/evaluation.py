"""Scores of many cases, their summary, and the two files that hold them."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from voxelseg.errors import DataError
from voxelseg.evaluate.case import ClassScore
from voxelseg.files import read_json, remove_file, write_json, write_text
from voxelseg.metrics import METRICS

CASES_FILE = "cases.csv"
SUMMARY_FILE = "summary.json"
_VOLUMES = ("volume_reference_mm3", "volume_prediction_mm3")


@dataclass(frozen=True)
class Spread:
    """One metric over cases, the undefined ones (both masks empty) left out; NaN where nothing is left."""

    mean: float
    std: float
    """Sample standard deviation (n - 1); NaN for a single case."""
    median: float
    min: float
    max: float
    n: int
    """Cases with a value."""
    undefined: int
    """Cases without: both masks are empty."""


def spread(values: Iterable[float]) -> Spread:
    """Spread of `values`, NaN left out but counted."""
    values = list(values)
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return Spread(math.nan, math.nan, math.nan, math.nan, math.nan, 0, len(values))
    return Spread(
        mean=fmean(defined),
        std=stdev(defined) if len(defined) > 1 else math.nan,
        median=median(defined),
        min=min(defined),
        max=max(defined),
        n=len(defined),
        undefined=len(values) - len(defined),
    )


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of `values`, NaN left out; NaN where nothing is left."""
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan


@dataclass(frozen=True)
class Evaluation:
    """Scores of every class in every case."""

    scores: tuple[ClassScore, ...]
    tolerance_mm: float
    """Of the surface Dice."""
    notes: tuple[str, ...] = ()
    """What the reader of the numbers should know, such as predictions that had no reference."""

    def __post_init__(self) -> None:
        times = Counter((score.case, score.name) for score in self.scores)
        repeated = sorted({case for (case, _), count in times.items() if count > 1})
        if repeated:
            raise DataError(f"several scores of one class in {', '.join(repeated)}. Give every case an id of its own.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in their order."""
        return tuple(self._of_class)

    @cached_property
    def _of_class(self) -> Mapping[str, Sequence[ClassScore]]:
        """Scores by class: there may be a hundred classes, and to look through all scores for each takes long."""
        found: dict[str, list[ClassScore]] = {}
        for score in self.scores:
            found.setdefault(score.name, []).append(score)
        return found

    @property
    def cases(self) -> tuple[str, ...]:
        """Ids of the cases in their order."""
        return tuple(dict.fromkeys(score.case for score in self.scores))

    def values(self, metric: str, name: str) -> dict[str, float]:
        """Case id -> value of `metric` for class `name`, NaN where it is undefined."""
        return {score.case: score.metrics[metric] for score in self._of_class.get(name, ())}

    def spread(self, metric: str, name: str) -> Spread:
        """Spread of `metric` over the cases for class `name`."""
        return spread(self.values(metric, name).values())

    def mean(self, metric: str) -> float:
        """Mean over the classes of the mean over the cases; undefined values are left out at both levels."""
        return mean_of_defined(self.spread(metric, name).mean for name in self.classes)

    def case_means(self, metric: str) -> dict[str, float]:
        """Case id -> mean of `metric` over the classes that are defined in it; NaN if none is."""
        values: dict[str, list[float]] = {case: [] for case in self.cases}
        for score in self.scores:
            values[score.case].append(score.metrics[metric])
        return {case: mean_of_defined(each) for case, each in values.items()}

    def summary(self) -> dict[str, Any]:
        """Content of summary.json; undefined numbers are NaN here and null in the file."""
        return {
            "mean": {metric: self.mean(metric) for metric in METRICS},
            "classes": {name: self._class_summary(name) for name in self.classes},
            "num_cases": len(self.cases),
            "tolerance_mm": self.tolerance_mm,
            "empty": self._empty_counts(self.scores),
            "notes": list(self.notes),
            "definitions": definitions(self.tolerance_mm),
        }

    def _class_summary(self, name: str) -> dict[str, Any]:
        scores = self._of_class[name]
        result: dict[str, Any] = {}
        for metric in METRICS:
            found = self.spread(metric, name)
            result[metric] = found.mean
            for part in ("std", "median", "min", "max", "n", "undefined"):
                result[f"{metric}_{part}"] = getattr(found, part)
        for volume in _VOLUMES:
            result[volume] = fmean(getattr(score, volume) for score in scores)
        return {**result, "empty": self._empty_counts(scores)}

    @staticmethod
    def _empty_counts(scores: Sequence[ClassScore]) -> dict[str, int]:
        return {
            "both": sum(score.empty_reference and score.empty_prediction for score in scores),
            "reference_only": sum(score.empty_reference and not score.empty_prediction for score in scores),
            "prediction_only": sum(score.empty_prediction and not score.empty_reference for score in scores),
        }

    def write(self, out: Path, *, more: Mapping[str, Any] | None = None) -> tuple[Path, Path]:
        """Write cases.csv and summary.json into folder `out`; returns their paths. Undefined values are empty cells.

        `more` is added to the summary. Whenever this is interrupted, no summary lies beside scores of another time.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["case", "class", *METRICS, *_VOLUMES])
        for score in self.scores:
            numbers = [score.metrics[metric] for metric in METRICS] + [getattr(score, volume) for volume in _VOLUMES]
            rows.writerow([score.case, score.name, *("" if math.isnan(x) else f"{x:.10g}" for x in numbers)])
        cases, summary = Path(out) / CASES_FILE, Path(out) / SUMMARY_FILE
        remove_file(summary)
        write_text(cases, text.getvalue())
        write_json(summary, {**self.summary(), **(more or {})})
        return cases, summary


def definitions(tolerance_mm: float) -> dict[str, str]:
    """How the numbers are to be read, in words, by name."""
    return {
        **{name: metric.definition for name, metric in METRICS.items()},
        "tolerance": f"Surface Dice accepts a distance of {tolerance_mm:g} mm.",
        "surface": "Foreground voxels with a face neighbour in the background; the image border counts as background.",
        "undefined": "Both masks empty: no value, left out of means and counted.",
        "mean": "Mean over the classes of the mean over the cases.",
        "std": "Sample standard deviation over the cases (n - 1).",
        "empty": "Counts of masks of one class in one case: both empty, only the reference, only the prediction.",
        "volumes": "Means over all cases, in mm³.",
    }


def read_evaluation(folder: Path, *, remedy: str = "Run `voxelseg evaluate` again.") -> Evaluation:
    """Evaluation from the cases.csv and summary.json in `folder`.

    DataError if they are missing or damaged; `remedy` is how they are made again.
    """
    path = Path(folder) / CASES_FILE
    summary = read_json(Path(folder) / SUMMARY_FILE, remedy=remedy)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            scores = tuple(_score_of_row(row) for row in csv.DictReader(file, strict=True))
        found = Evaluation(scores, float(summary["tolerance_mm"]), tuple(summary["notes"]))
        summarized = {name: one["dice_n"] + one["dice_undefined"] for name, one in summary["classes"].items()}
        if Counter(score.name for score in scores) != summarized:
            raise ValueError("their numbers of scores differ")
        return found
    except DataError as error:
        raise DataError(f"{path}: {error} {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{folder}: {CASES_FILE} and {SUMMARY_FILE} are damaged ({error!r}). {remedy}") from error


def _score_of_row(row: dict[str, str]) -> ClassScore:
    return ClassScore(
        case=row["case"],
        name=row["class"],
        metrics={metric: float(row[metric] or "nan") for metric in METRICS},
        volume_reference_mm3=float(row["volume_reference_mm3"]),
        volume_prediction_mm3=float(row["volume_prediction_mm3"]),
    )
