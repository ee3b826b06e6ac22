"""What other seeds might change, beside what other patients might."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from voxelseg.statistics.intervals import LEVEL, Interval
from voxelseg.statistics.signed_rank import DECIMALS

ENOUGH_SEEDS = 3
"""With fewer it can hardly be said how trainings differ: of two, the t-interval is 13 standard errors wide on either
side, or as good as none if they happen to agree."""


_ROUNDING = 10.0**-DECIMALS
"""What is left of equal numbers after rounding."""
_LEAST_P = 1e-30
"""Smaller p-values are not told apart."""


@dataclass(frozen=True)
class SeedT:
    """A difference of two ways to train as a t-test sees it that knows of seeds; NaN where there is none.

    Each part of its error counts with its own degrees of freedom: the reach of an interval is the root of the sum of
    the squares of those of the parts. Common degrees of freedom by Satterthwaite err where the few seeds happen to
    agree: with 3 and patients that make up a tenth of the variance, p falls below 0.001 up to 15 times too often.
    Source: Banerjee 1960, Sankhya 22(3-4).
    """

    difference: float
    parts: tuple[tuple[float, float], ...]
    """Variance, above 0, and degrees of freedom of each part of the error; none if nothing varies."""

    def interval(self, level: float = LEVEL) -> Interval:
        """That holds the difference in a share `level` of all comparisons; without width if nothing varies."""
        reach = self._reach(1 - level)
        return Interval(self.difference - reach, self.difference + reach)

    @property
    def p(self) -> float:
        """Two-sided, below 1 - level where the interval of that level excludes 0; 0 or 1 if nothing varies."""
        return self._two_sided(abs(self.difference))

    def equivalence_p(self, margin: float) -> float:
        """P-value of the difference lying outside [-margin, margin]: the larger of two one-sided t-tests.

        Below alpha where the interval of level 1 - 2 alpha lies inside; 0 or 1 if nothing varies.
        Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6).
        """
        inside = margin - abs(self.difference)
        beyond = self._two_sided(abs(inside)) / 2
        return 1 - beyond if inside <= 0 else beyond

    def _reach(self, p: float) -> float:
        return math.sqrt(sum(variance * float(stdtrit(degrees, p / 2)) ** 2 for variance, degrees in self.parts))

    def _two_sided(self, distance: float) -> float:
        """P-value whose interval reaches so far."""
        if math.isnan(distance):
            return math.nan
        if not self.parts or distance <= _ROUNDING:
            return float(distance <= _ROUNDING)
        if self._reach(_LEAST_P) <= distance:
            return _LEAST_P
        return math.exp(brentq(lambda log_p: self._reach(math.exp(log_p)) - distance, math.log(_LEAST_P), 0.0))


_UNKNOWN = SeedT(math.nan, ())


def two_level(
    difference: float, error: float, num_patients: int, ours: Sequence[float], theirs: Sequence[float]
) -> SeedT:
    """A difference of two contestants for other patients and other seeds alike.

    `error` is the difference's standard error over `num_patients` patients; `ours` and `theirs` are the means of each
    seed, whose variances add up with Welch's degrees of freedom. Unknown for fewer than three seeds on either side or
    two patients. Source: Welch 1947, Biometrika 34(1-2).
    """
    if min(len(ours), len(theirs)) < ENOUGH_SEEDS or num_patients < 2:
        return _UNKNOWN
    sides = [(float(np.var(one, ddof=1)) / len(one), len(one) - 1) for one in (ours, theirs)]
    total = sum(variance for variance, _ in sides)
    parts = [(error**2, float(num_patients - 1))]
    if total > _ROUNDING**2:
        parts.append((total, total**2 / sum(variance**2 / degrees for variance, degrees in sides)))
    return SeedT(difference, _varying(parts))


def of_seeds(differences: Sequence[float]) -> SeedT:
    """The mean of the differences of each seed, which stand for other seeds; unknown for fewer than three.

    For two ways whose trainings share what the seed decides, so that differences are of a seed.
    """
    num = len(differences)
    if num < ENOUGH_SEEDS:
        return _UNKNOWN
    return SeedT(float(np.mean(differences)), _varying([(float(np.var(differences, ddof=1)) / num, num - 1.0)]))


def _varying(parts: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple(one for one in parts if one[0] > _ROUNDING**2)
