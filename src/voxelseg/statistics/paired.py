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

from voxelseg.errors import DataError
from voxelseg.statistics.intervals import Interval, group_sums, mean_interval
from voxelseg.statistics.signed_rank import signed_rank

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
    """Lower end of the 95 % bootstrap interval of the mean, cases or groups of them drawn."""
    high: float
    """Upper end."""
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
    """Difference ours minus theirs of two scores per case, with a 95 % bootstrap interval of its mean.

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
    return PairedDifference(
        mean=float(np.mean(list(found.values()))),
        low=interval.low,
        high=interval.high,
        wilcoxon_p=signed_rank(sums / counts).p,
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


def difference_in_words(one: PairedDifference, *, digits: int = 4) -> str:
    """Such as "+0.0120 [+0.0040, +0.0200]"; dashes where there is no interval."""
    low, high = (f"{end:+.{digits}f}" if not math.isnan(end) else "–" for end in (one.low, one.high))
    return f"{one.mean:+.{digits}f} [{low}, {high}]"
