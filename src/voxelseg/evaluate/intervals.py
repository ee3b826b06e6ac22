"""How far an evaluation's means might lie elsewhere with other patients: bootstrap confidence intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxelseg.evaluate.evaluation import Evaluation
from voxelseg.metrics import Column
from voxelseg.statistics.intervals import NO_INTERVAL, Interval, bootstrap_interval, deviations, error_of_parts
from voxelseg.statistics.resampling import RESAMPLES, Draws, Floats


@dataclass(frozen=True)
class MetricIntervals:
    """Of one metric."""

    mean: Interval
    """Of the mean over the classes of the mean over the cases."""
    classes: Mapping[str, Interval]
    """Of each class's mean over the cases."""


def bootstrap_intervals(
    evaluation: Evaluation, groups: Mapping[str, str], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, MetricIntervals]:
    """95 % intervals of the means of each metric, from `resamples` draws of as many groups with replacement.

    `groups` has the group, mostly the patient, of each case: cases of one patient are alike, so they are drawn
    together. Undefined values are left out of each draw's means as they are of the means. There is none for fewer than
    two groups with a value. It says what other patients might change, not what another training might.
    """
    names = sorted({groups[case] for case in evaluation.cases})
    draws = Draws(len(names), seed=seed, resamples=resamples)
    found = {}
    for column in evaluation.columns:
        sums, counts = _totals(evaluation, column.key, groups, names)
        drawn, parts = draws.means(sums, counts), deviations(sums, counts)
        means = {name: evaluation.spread(column.key, name).mean for name in evaluation.classes}
        of_classes = {
            name: _interval(drawn[:, place], means[name], parts[:, place], counts[:, place] > 0, column)
            for place, name in enumerate(evaluation.classes)
        }
        overall = _interval(
            _mean_of_defined(drawn),
            evaluation.mean(column.key),
            _mean_of_defined(parts),
            counts.sum(axis=1) > 0,
            column,
        )
        found[column.key] = MetricIntervals(overall, of_classes)
    return found


def _interval(
    drawn: Floats, mean: float, parts: Floats, taking_part: npt.NDArray[np.bool_], column: Column
) -> Interval:
    """Of a mean that each group moves by its part; groups without any value take no part."""
    num = int(np.count_nonzero(taking_part))
    if num < 2:
        return NO_INTERVAL
    found = bootstrap_interval(drawn, mean=mean, error=error_of_parts(parts[taking_part]), num_groups=num)
    return found.within(column.best, column.worst)


def _totals(
    evaluation: Evaluation, metric: str, groups: Mapping[str, str], names: Sequence[str]
) -> tuple[Floats, Floats]:
    """(groups, classes): sum of the defined values of each group's cases, and their number."""
    columns = [evaluation.values(metric, name) for name in evaluation.classes]
    values = np.array([[column[case] for column in columns] for case in evaluation.cases], dtype=np.float64)
    place = {name: position for position, name in enumerate(names)}
    rows = [place[groups[case]] for case in evaluation.cases]
    defined = ~np.isnan(values)
    sums, counts = np.zeros((2, len(names), len(columns)))
    np.add.at(sums, rows, np.where(defined, values, 0.0))
    np.add.at(counts, rows, defined)
    return sums, counts


def _mean_of_defined(means: Floats) -> Floats:
    """Mean of each row, NaN left out; NaN where nothing is left."""
    defined = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(defined, means, 0.0).sum(axis=1) / defined.sum(axis=1)
    return found
