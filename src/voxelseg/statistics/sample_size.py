"""How many patients a paired comparison takes, by the normal approximation."""

import math

from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

POWER = 0.8


def patients_to_find(difference: float, std: float, *, alpha: float, power: float = POWER) -> float:
    """Patients with whom a two-sided paired test finds a mean `difference` with probability `power`; not rounded.

    `std` is the standard deviation of the differences, `alpha` the level of the test. Infinite for no difference.
    Source: Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, Sec. 3.1.1.
    """
    if not difference:
        return math.inf
    return float(((ndtri(1 - alpha / 2) + ndtri(power)) * std / difference) ** 2)


def patients_for_equivalence(
    margin: float, std: float, *, alpha: float, difference: float = 0.0, power: float = POWER
) -> float:
    """Patients with whom two one-sided tests find the mean within `margin` if it is `difference`; not rounded.

    Infinite for a difference of the margin or more.
    Source: Chow, Shao and Wang 2008, Sample Size Calculations in Clinical Research, Sec. 3.1.3.
    """
    if abs(difference) >= margin:
        return math.inf
    if not std:
        return 0.0
    least = float(ndtri(1 - alpha))

    def lacking(root: float) -> float:
        """Power that is missing with root ** 2 patients."""
        above, below = ((margin - side * difference) * root / std - least for side in (1, -1))
        return power - float(ndtr(above) + ndtr(below) - 1)

    enough = (
        (least + float(ndtri((1 + power) / 2))) * std / (margin - abs(difference))
    )  # as if both sides were the near one
    return float(brentq(lacking, 0.0, enough * (1 + 1e-9))) ** 2


def fewest_for_signed_rank(alpha: float) -> int:
    """Fewest patients with whom a signed-rank test can fall below `alpha`: all better has p = 2 / 2^n."""
    return math.floor(1 - math.log2(alpha)) + 1
