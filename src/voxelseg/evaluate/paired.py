"""Two ways to train, compared on the same held-out cases: differences case by case, their intervals and tests.

Scores are one number per case, such as its mean Dice over the classes. With several seeds a case counts with its mean
over them: an interval then says what other patients might change, and the seeds, shown one by one, what another
training might.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import wilcoxon

from voxelseg.errors import DataError
from voxelseg.evaluate.intervals import Interval, group_sums, mean_interval

Scores = Mapping[str, float]
"""Case -> value; NaN where it is undefined."""
ALL_SEEDS = "all seeds"
SIGNIFICANCE = 0.05
"""Of a p-value that was adjusted for the number of comparisons."""


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Difference of two ways' scores over the cases in which both have one."""

    mean: float
    low: float
    """2.5th percentile of the mean over bootstrap resamples of the cases, or of groups of them."""
    high: float
    """97.5th percentile."""
    wilcoxon_p: float
    """Two-sided Wilcoxon signed-rank test; 1 if no case differs."""
    num_better: int
    num_worse: int
    num_cases: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return Interval(self.low, self.high).excludes_zero


def paired_difference(
    ours: Scores, theirs: Scores, *, groups: Mapping[str, str] | None = None, seed: int = 0
) -> PairedDifference:
    """Difference ours minus theirs of two scores per case, with a 95 % percentile bootstrap interval of its mean.

    `groups` has the group, mostly the patient, of each case: groups are drawn, and the test takes a group's mean. Cases
    with a NaN on either side are left out. Raises DataError if the cases differ or none is left.
    """
    if ours.keys() != theirs.keys():
        raise DataError(f"scores of different cases: {sorted(ours.keys() ^ theirs.keys())}. Score the same fold.")
    found = {case: ours[case] - theirs[case] for case in sorted(ours)}
    found = {case: difference for case, difference in found.items() if not math.isnan(difference)}
    if not found:
        raise DataError("no case has a score on both sides: there is nothing to compare.")
    interval = mean_interval(found, groups, seed=seed)
    sums, counts = group_sums(found, groups)
    differences = sums / counts
    return PairedDifference(
        mean=float(np.mean(list(found.values()))),
        low=interval.low,
        high=interval.high,
        wilcoxon_p=float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
        num_better=sum(difference > 0 for difference in found.values()),
        num_worse=sum(difference < 0 for difference in found.values()),
        num_cases=len(found),
    )


def over_seeds(by_seed: Sequence[Scores]) -> dict[str, float]:
    """Mean of each case over the seeds, in which the cases are the same."""
    return {case: fmean(one[case] for one in by_seed) for case in by_seed[0]}


def paired_over_seeds(
    ours: Mapping[int, Scores], theirs: Mapping[int, Scores], *, groups: Mapping[str, str] | None = None
) -> dict[str, PairedDifference]:
    """Difference ours minus theirs over all seeds together, then of each seed alone, by "all seeds" and "seed 0".

    Seeds that one side lacks are left out; nothing is found if none is left.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return {}
    both = [over_seeds([side[seed] for seed in seeds]) for side in (ours, theirs)]
    return {
        ALL_SEEDS: paired_difference(*both, groups=groups),
        **{f"seed {seed}": paired_difference(ours[seed], theirs[seed], groups=groups) for seed in seeds},
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted by Holm's method: that one is below a level holds for all together.

    The k-th smallest of n is multiplied by n - k + 1 (k from 1), and none becomes smaller than the one before it or
    larger than 1. Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = largest
    return adjusted


def difference_in_words(one: PairedDifference, *, digits: int = 4) -> str:
    """Such as "+0.0120 [+0.0040, +0.0200]"; dashes where there is no interval."""
    low, high = (f"{end:+.{digits}f}" if not math.isnan(end) else "–" for end in (one.low, one.high))
    return f"{one.mean:+.{digits}f} [{low}, {high}]"
