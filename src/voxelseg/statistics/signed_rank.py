"""Wilcoxon's signed-rank test of paired differences."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from voxelseg.statistics.resampling import Floats

Ranks = npt.NDArray[np.int64]
DECIMALS = 12
"""Differences are rounded to these before they are ranked: 0.3 - 0.2 and 0.2 - 0.1 differ in the 17th only."""
_EXACT = 50
"""Up to so many differences the distribution is counted out; with more the normal one is as good."""


@dataclass(frozen=True)
class SignedRank:
    """What the test found."""

    p: float
    """Two-sided; 1 if all differences are zero."""
    rank_biserial: float
    """Effect size in [-1, 1]: ranks of the positive differences minus those of the negative ones, of all ranks."""
    num_nonzero: int
    """Differences that were ranked."""


def signed_rank(differences: Floats) -> SignedRank:
    """Two-sided signed-rank test of whether `differences` (patients,) lie symmetrically around 0.

    Zeros are left out, as by Wilcoxon; equal absolute values share the mean of their ranks. With 50 differences or
    fewer the p-value is exact, ties included: every choice of signs is as likely as every other. With more it is
    that of the normal distribution, corrected for ties, not for continuity. The effect size is Kerby's matched-pairs
    rank-biserial correlation; 0 without differences.
    Sources: Wilcoxon 1945, Biometrics Bulletin 1(6); Kerby 2014, Comprehensive Psychology 3, 11.IT.3.1.
    """
    rounded = np.round(differences, DECIMALS)
    found = rounded[rounded != 0]
    if not found.size:
        return SignedRank(1.0, 0.0, 0)
    doubled = (2 * rankdata(np.abs(found))).astype(np.int64)  # whole numbers, as tied ranks may be halves
    positive, total = int(doubled[found > 0].sum()), int(doubled.sum())
    p = _exact_p(doubled, positive) if found.size <= _EXACT else _normal_p(doubled, positive)
    return SignedRank(p, (2 * positive - total) / total, found.size)


def _exact_p(doubled: Ranks, positive: int) -> float:
    """Twice the smaller tail of the sum of those ranks whose sign comes out positive in a throw of coins."""
    total = int(doubled.sum())
    shares = np.zeros(total + 1)  # of all choices of signs, by the sum of the positive ranks
    shares[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(shares)
        shifted[rank:] = shares[: total + 1 - rank]
        shares = (shares + shifted) / 2
    tail = min(shares[: positive + 1].sum(), shares[positive:].sum())
    return min(float(2 * tail), 1.0)


def _normal_p(doubled: Ranks, positive: int) -> float:
    """Of the sum of positive ranks, whose mean is half of all ranks and whose variance a quarter of their squares."""
    ranks = doubled / 2
    z = (positive / 2 - ranks.sum() / 2) / math.sqrt(float((ranks**2).sum()) / 4)
    return math.erfc(abs(z) / math.sqrt(2))
