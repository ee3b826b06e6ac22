"""How far means over cases might lie elsewhere with other patients: bootstrap confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from voxelseg.evaluate.evaluation import Evaluation
from voxelseg.metrics import METRICS

LEVEL = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Confidence interval; NaN on both sides where there is none."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


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
    together. An interval spans the draws' 2.5th to 97.5th percentile; undefined values are left out of each draw's
    means as they are of the means. There is none for fewer than two groups or a class without any value. It says what
    other patients might change, not what another training might.
    """
    names = sorted({groups[case] for case in evaluation.cases})
    totals = {metric: _totals(evaluation, metric, groups, names) for metric in METRICS}
    drawn: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    generator = np.random.default_rng(seed)
    for first in range(0, resamples, _AT_ONCE):  # all draws at once would be large for thousands of patients
        size = min(_AT_ONCE, resamples - first)
        taken = generator.multinomial(len(names), [1 / len(names)] * len(names), size=size).astype(np.float64)
        for metric, (sums, counts) in totals.items():
            with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: a draw without any value
                drawn[metric].append((taken @ sums) / (taken @ counts))
    found = {}
    for metric, parts in drawn.items():
        means = np.concatenate(parts)
        per_class = {name: _interval(means[:, index], len(names)) for index, name in enumerate(evaluation.classes)}
        found[metric] = MetricIntervals(_interval(_mean_of_defined(means), len(names)), per_class)
    return found


def mean_interval(
    values: Mapping[str, float], groups: Mapping[str, str] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """95 % interval of the mean of one value per case, from `resamples` draws of as many groups with replacement.

    `groups` has the group, mostly the patient, of each case; without it each case is drawn for itself. Cases with NaN
    are left out. There is no interval for fewer than two groups.
    """
    defined = {case: value for case, value in sorted(values.items()) if not math.isnan(value)}
    sums, counts = group_sums(defined, groups)
    drawn, generator = [], np.random.default_rng(seed)
    for first in range(0, resamples, _AT_ONCE):
        taken = generator.integers(max(len(sums), 1), size=(min(_AT_ONCE, resamples - first), len(sums)))
        with np.errstate(invalid="ignore"):  # 0 / 0: no group at all
            drawn.append(sums[taken].sum(axis=1) / counts[taken].sum(axis=1))
    return _interval(np.concatenate(drawn), len(sums))


def t_interval(values: Sequence[float]) -> Interval:
    """95 % interval of the mean of a few normally distributed values, by Student's t; none for fewer than two."""
    if len(values) < 2:
        return Interval(math.nan, math.nan)
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = error * float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    return Interval(mean - reach, mean + reach)


def group_sums(values: Mapping[str, float], groups: Mapping[str, str] | None = None) -> tuple[Floats, Floats]:
    """(groups,) each: the sum of the values of a group's cases, and their number; each case is a group without any."""
    cases_of: dict[str, list[float]] = {}
    for case, value in values.items():
        cases_of.setdefault(case if groups is None else groups[case], []).append(value)
    return np.array([sum(one) for one in cases_of.values()]), np.array([float(len(one)) for one in cases_of.values()])


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


def _interval(means: Floats, num_groups: int) -> Interval:
    defined = means[~np.isnan(means)]
    if num_groups < 2 or not defined.size:
        return Interval(math.nan, math.nan)
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    return Interval(low, high)
