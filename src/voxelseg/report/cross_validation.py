"""What the report says about a cross-validation."""

from collections.abc import Mapping
from dataclasses import dataclass

from voxelseg.data.wording import counted
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.cross_validation import MEANING, CrossValidation
from voxelseg.evaluate.intervals import MetricIntervals
from voxelseg.evaluate.table import fold_spread, format_interval, format_score, postprocessing_in_words

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ScoreTable:
    """Mean and interval of the main metrics by class, before or after the postprocessing."""

    title: str
    titles: tuple[str, ...]
    rows: Rows
    """The last one is that of all classes."""


@dataclass(frozen=True)
class CrossValidationPart:
    """Sentences and tables."""

    sentences: tuple[str, ...]
    scores: tuple[ScoreTable, ...]
    candidates: Rows
    """What the choice of the postprocessing looked at: name, whether kept, Dice before and after, cases with a higher
    and with a lower Dice."""


def cross_validation_part(found: CrossValidation) -> CrossValidationPart:
    """What the section on it says."""
    spreads = "; ".join(f"{column.heading} {fold_spread(found, column)}" for column in found.pooled.main_columns)
    cases, patients = counted(len(found.pooled.cases), "held-out case"), counted(found.patients, "patient")
    sentences = (
        f"{cases} of {patients}, each predicted by the network of the fold that held its patient out.",
        f"Intervals: {MEANING}",
        f"Means of the {len(found.folds)} folds: {spreads}.",
        postprocessing_in_words(found),
    )
    tables = [_score_table("Predictions as they are", found.pooled, found.intervals)]
    if found.postprocessed is not None:
        tables.append(_score_table("After the postprocessing", found.postprocessed, found.postprocessed_intervals))
    candidates = tuple(
        (
            one.keep_largest_of,
            "yes" if one.chosen else "no",
            format_score(one.before, ""),
            format_score(one.after, ""),
            str(one.improved),
            str(one.worsened),
        )
        for one in found.candidates
    )
    return CrossValidationPart(tuple(one for one in sentences if one), tuple(tables), candidates)


def _score_table(title: str, scores: Evaluation, intervals: Mapping[str, MetricIntervals]) -> ScoreTable:
    titles = [part for column in scores.main_columns for part in (column.heading, "95 % interval")]
    rows = [(name, *_cells(scores, intervals, name)) for name in scores.classes]
    return ScoreTable(title, ("Class", *titles), (*rows, ("All classes", *_cells(scores, intervals, None))))


def _cells(scores: Evaluation, intervals: Mapping[str, MetricIntervals], name: str | None) -> list[str]:
    """Mean and interval of the main metrics for a class, or for all of them."""
    cells = []
    for column in scores.main_columns:
        of_metric = intervals[column.key]
        mean = scores.mean(column.key) if name is None else scores.spread(column.key, name).mean
        interval = of_metric.mean if name is None else of_metric.classes[name]
        cells += [format_score(mean, column.unit), format_interval(interval, column.unit)]
    return cells
