"""Confidence intervals of means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from voxelseg.statistics.resampling import RESAMPLES, Draws, Floats

LEVEL = 0.95
FEW = 8
"""Groups with fewer than which draws say too little: of three, one draw in nine has the same one three times."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval; NaN on both sides where there is none."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0

    def within(self, best: float, worst: float) -> "Interval":
        """The part between the best and the worst value that there can be: Student's t knows of neither."""
        if math.isnan(self.low):
            return self
        low, high = sorted((best, worst))
        return Interval(max(self.low, low), min(self.high, high))


NO_INTERVAL = Interval(math.nan, math.nan)


def mean_interval(
    values: Mapping[str, float], groups: Mapping[str, str] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """95 % interval of the mean of one value per case, from `resamples` draws of as many groups with replacement.

    `groups` has the group, mostly the patient, of each case; without it each case is drawn for itself. Cases with NaN
    are left out. There is no interval for fewer than two groups.
    """
    defined = {case: value for case, value in sorted(values.items()) if not math.isnan(value)}
    sums, counts = group_sums(defined, groups)
    if not len(sums):
        return NO_INTERVAL
    drawn = Draws(len(sums), seed=seed, resamples=resamples).means(sums[:, None], counts[:, None])[:, 0]
    mean = float(sums.sum() / counts.sum())
    return bootstrap_interval(drawn, mean=mean, error=clustered_error(sums, counts), num_groups=len(sums))


def percentile_interval(means: Floats, num_groups: int, *, level: float = LEVEL) -> Interval:
    """Interval between the percentiles of drawn means that hold `level` of them; NaN among them are left out.

    There is none for fewer than two groups.
    """
    defined = means[~np.isnan(means)]
    if num_groups < 2 or not defined.size:
        return NO_INTERVAL
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)]).tolist()
    return Interval(low, high)


def bootstrap_interval(means: Floats, *, mean: float, error: float, num_groups: int, level: float = LEVEL) -> Interval:
    """Interval of a `mean`, of `means` drawn over groups; it holds its level for few groups, too.

    Percentiles of the draws are too narrow for few groups: of normal values 95 % intervals hold the mean in 84 % of
    samples of 5 groups, in 88 % of 8, in 91 % of 12 and 93 % of 20; bias-corrected and accelerated ones are no better,
    and studentised ones up to six times as wide. So the percentiles are those further out to which Student's t, and the
    smaller variance of draws, correspond; with fewer than 8 groups it is Student's t interval of the standard `error`
    instead. There is none for fewer than two groups.
    Source: Hesterberg 2015, The American Statistician 69(4), expanded percentile interval.
    """
    if num_groups < 2:
        return NO_INTERVAL
    quantile = float(stdtrit(num_groups - 1, (1 + level) / 2))
    if num_groups < FEW:
        return Interval(mean - quantile * error, mean + quantile * error)
    tail = float(ndtr(-quantile * math.sqrt(num_groups / (num_groups - 1))))
    return percentile_interval(means, num_groups, level=1 - 2 * tail)


def clustered_error(sums: Floats, counts: Floats) -> float:
    """Standard error of a mean over cases that come in groups (groups,), mostly patients; NaN for fewer than two.

    `sums` are of the values of a group's cases, `counts` their numbers. The mean is a ratio of two sums over groups, of
    which this is the usual linear approximation. Source: Cochran 1977, Sampling Techniques, Sec. 2.11.
    """
    return error_of_parts(deviations(sums[:, None], counts[:, None])[:, 0])


def deviations(sums: Floats, counts: Floats) -> Floats:
    """(groups, columns): what each group moves the mean of a column by, linearly; NaN in a column without any case."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        means = sums.sum(axis=0) / counts.sum(axis=0)
        parts: Floats = (sums - means * counts) / counts.sum(axis=0)
    return parts


def error_of_parts(parts: Floats) -> float:
    """Standard error of a mean that each of the groups (groups,) moves by its part; NaN for fewer than two groups."""
    num = len(parts)
    return math.sqrt(num / (num - 1) * float((parts**2).sum())) if num > 1 else math.nan


def t_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Interval of the mean of a few normally distributed values, by Student's t; none for fewer than two."""
    if len(values) < 2:
        return NO_INTERVAL
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = error * float(stdtrit(len(values) - 1, (1 + level) / 2))
    return Interval(mean - reach, mean + reach)


def group_sums(values: Mapping[str, float], groups: Mapping[str, str] | None = None) -> tuple[Floats, Floats]:
    """(groups,) each: the sum of the values of a group's cases, and their number; each case is a group without any."""
    cases_of: dict[str, list[float]] = {}
    for case, value in values.items():
        cases_of.setdefault(case if groups is None else groups[case], []).append(value)
    return np.array([sum(one) for one in cases_of.values()]), np.array([float(len(one)) for one in cases_of.values()])
