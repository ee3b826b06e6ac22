"""Paired t-tests: of a difference, and of there being none worth speaking of."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from voxelseg.statistics.resampling import Floats
from voxelseg.statistics.signed_rank import DECIMALS


@dataclass(frozen=True)
class PairedT:
    """Differences of patients as the t-test sees them; NaN where there are too few, or they do not vary."""

    num: int
    mean: float
    std: float
    """Sample standard deviation (n - 1)."""
    p: float
    """Two-sided."""

    @property
    def cohens_dz(self) -> float:
        """Effect size: mean in standard deviations of the differences. Source: Cohen 1988, Sec. 2.3.5."""
        return self.mean / self.std if self.std > 0 else math.nan

    def equivalence_p(self, margin: float) -> float:
        """P-value of the mean lying outside [-margin, margin]: the larger of two one-sided t-tests.

        Differences that are all the same lie inside (0) or outside (1); NaN for fewer than two.
        Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6).
        """
        if self.std == 0:
            return float(abs(self.mean) >= margin)
        if math.isnan(self.std):
            return math.nan
        error = self.std / math.sqrt(self.num)
        return float(stdtr(self.num - 1, (abs(self.mean) - margin) / error))


def paired_t(differences: Floats) -> PairedT:
    """Paired t-test of `differences` (patients,), none of them NaN."""
    num = len(differences)
    if not num:
        return PairedT(0, math.nan, math.nan, math.nan)
    mean = float(np.mean(differences))
    std = float(np.std(differences, ddof=1)) if num > 1 else math.nan
    if not std > 10.0**-DECIMALS:  # what is left of equal numbers after rounding
        return PairedT(num, mean, 0.0 if num > 1 else math.nan, math.nan)
    return PairedT(num, mean, std, float(2 * stdtr(num - 1, -abs(mean) * math.sqrt(num) / std)))
