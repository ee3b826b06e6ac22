"""Scores of many cases, their summary, and the two files that hold them."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from voxelseg.errors import ConfigError, DataError
from voxelseg.evaluate.case import ClassScore
from voxelseg.files import read_json, remove_file, write_json, write_text
from voxelseg.metrics import MAIN_COLUMNS, Column, column

CASES_FILE = "cases.csv"
SUMMARY_FILE = "summary.json"
PATIENT_COLUMN = "patient"
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
    """Scores of every class in every case, all by the same metrics."""

    scores: tuple[ClassScore, ...]
    tolerance_mm: float
    """Of the surface Dice; the first of several."""
    notes: tuple[str, ...] = ()
    """What the reader of the numbers should know, such as predictions that had no reference."""
    patients: Mapping[str, str] = field(default_factory=dict)
    """Case id -> its patient; without the cases of which nobody said whose they are."""

    def __post_init__(self) -> None:
        times = Counter((score.case, score.name) for score in self.scores)
        repeated = sorted({case for (case, _), count in times.items() if count > 1})
        if repeated:
            raise DataError(f"several scores of one class in {', '.join(repeated)}. Give every case an id of its own.")
        assert len({frozenset(score.metrics) for score in self.scores}) < 2, "cases scored by different metrics"

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What is known of every class in every case: metrics, those with a tolerance at one or several of them.

        An evaluation of an earlier version has fewer, one without any score none.
        """
        keys = self.scores[0].metrics if self.scores else ()
        return tuple(column(key, tolerance_mm=self.tolerance_mm) for key in keys)

    @property
    def main_columns(self) -> tuple[Column, ...]:
        """What tables show that have no room for all: Dice, surface Dice at the first tolerance, HD95."""
        return tuple(one for one in self.columns if one.key in MAIN_COLUMNS)

    def only(self, kept: Sequence[Column]) -> "Evaluation":
        """This evaluation without the columns that are not `kept`, all of which it must have."""
        keys = [one.key for one in kept]
        scores = (replace(score, metrics={key: score.metrics[key] for key in keys}) for score in self.scores)
        return replace(self, scores=tuple(scores))

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
            "mean": {one.key: self.mean(one.key) for one in self.columns},
            "classes": {name: self._class_summary(name) for name in self.classes},
            "num_cases": len(self.cases),
            "tolerance_mm": self.tolerance_mm,
            "empty": self._empty_counts(self.scores),
            "notes": list(self.notes),
            "definitions": definitions(self.columns),
        }

    def _class_summary(self, name: str) -> dict[str, Any]:
        scores = self._of_class[name]
        result: dict[str, Any] = {}
        for one in self.columns:
            found = self.spread(one.key, name)
            result[one.key] = found.mean
            for part in ("std", "median", "min", "max", "n", "undefined"):
                result[f"{one.key}_{part}"] = getattr(found, part)
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

        Patients, where some are known, are the last column: the others stay where tools expect them.
        `more` is added to the summary. Whenever this is interrupted, no summary lies beside scores of another time.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        keys = [one.key for one in self.columns]
        rows.writerow(["case", "class", *keys, *_VOLUMES, *([PATIENT_COLUMN] if self.patients else [])])
        for score in self.scores:
            numbers = [score.metrics[key] for key in keys] + [getattr(score, volume) for volume in _VOLUMES]
            whose = [self.patients.get(score.case, "")] if self.patients else []
            rows.writerow([score.case, score.name, *("" if math.isnan(x) else f"{x:.10g}" for x in numbers), *whose])
        cases, summary = Path(out) / CASES_FILE, Path(out) / SUMMARY_FILE
        remove_file(summary)
        write_text(cases, text.getvalue())
        write_json(summary, {**self.summary(), **(more or {})})
        return cases, summary


def common_columns(evaluations: Iterable[Evaluation]) -> tuple[Column, ...]:
    """Columns that all of the evaluations have, at the same tolerances, in the order of the first of them."""
    first, *others = (evaluation.columns for evaluation in evaluations)
    return tuple(one for one in first if all(one in other for other in others))


def definitions(columns: Iterable[Column]) -> dict[str, str]:
    """How the numbers of `columns` are to be read, in words, by key or name."""
    texts = {one.key: one.definition for one in columns}
    by_area = {"surface_by_area": "Triangles that marching cubes lays between foreground and background voxels."}
    return {
        **texts,
        "surface": "Foreground voxels with a face neighbour in the background; the image border counts as background.",
        **(by_area if any(key.startswith("area_") for key in texts) else {}),
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
            keys = [column(key, tolerance_mm=float(summary["tolerance_mm"])).key for key in summary["mean"]]
            rows = list(csv.DictReader(file, strict=True))
        scores = tuple(_score_of_row(row, keys) for row in rows)
        tolerance_mm, notes = float(summary["tolerance_mm"]), tuple(summary["notes"])
        found = Evaluation(scores, tolerance_mm, notes, _patients_of_rows(rows))
        summarized = {name: one["dice_n"] + one["dice_undefined"] for name, one in summary["classes"].items()}
        if Counter(score.name for score in scores) != summarized:
            raise ValueError("their numbers of scores differ")
        return found
    except DataError as error:
        raise DataError(f"{path}: {error} {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
    except UnicodeDecodeError as error:  # whose own text holds the whole file
        raise DataError(f"{path}: no UTF-8 ({error.reason} at byte {error.start}). {remedy}") from error
    except ConfigError as error:
        raise DataError(f"{folder / SUMMARY_FILE}: {error} {remedy}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{folder}: {CASES_FILE} and {SUMMARY_FILE} are damaged ({error!r}). {remedy}") from error


def _score_of_row(row: Mapping[str, str], keys: Sequence[str]) -> ClassScore:
    return ClassScore(
        case=row["case"],
        name=row["class"],
        metrics={key: float(row[key] or "nan") for key in keys},
        volume_reference_mm3=float(row["volume_reference_mm3"]),
        volume_prediction_mm3=float(row["volume_prediction_mm3"]),
    )


def _patients_of_rows(rows: Iterable[Mapping[str, str | None]]) -> dict[str, str]:
    """Case id -> patient; ValueError for a case of two."""
    found: dict[str, str] = {}
    for case, patient in ((row["case"] or "", row.get(PATIENT_COLUMN) or "") for row in rows):
        if found.setdefault(case, patient) != patient:
            raise ValueError(f"{case} is of the patients {found[case]!r} and {patient!r}")
    return {case: patient for case, patient in found.items() if patient}
