"""What other seeds might change, beside what other patients might."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from voxelseg.statistics.intervals import LEVEL, NO_INTERVAL, Interval
from voxelseg.statistics.signed_rank import DECIMALS

ENOUGH_SEEDS = 3
"""With fewer it can hardly be said how trainings differ: of two, the t-interval is 13 standard errors wide on either
side, or as good as none if they happen to agree."""


def two_level_interval(
    difference: float,
    error: float,
    num_patients: int,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    level: float = LEVEL,
) -> Interval:
    """Interval of a difference of two contestants for other patients and other seeds alike.

    `error` is the difference's standard error over `num_patients` patients; `ours` and `theirs` are the means of each
    seed. Variances of patients and seeds add up, and t has Welch and Satterthwaite's degrees of freedom. None for
    fewer than three seeds on either side or two patients.
    Source: Satterthwaite 1946, Biometrics Bulletin 2(6).
    """
    if min(len(ours), len(theirs)) < ENOUGH_SEEDS or num_patients < 2:
        return NO_INTERVAL
    parts = [
        (error**2, num_patients - 1),
        *((float(np.var(one, ddof=1)) / len(one), len(one) - 1) for one in (ours, theirs)),
    ]
    variance = sum(part for part, _ in parts)
    if not variance > 10.0 ** (-2 * DECIMALS):  # what is left of equal numbers after rounding
        return Interval(difference, difference)
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    reach = math.sqrt(variance) * float(stdtrit(degrees, (1 + level) / 2))
    return Interval(difference - reach, difference + reach)
