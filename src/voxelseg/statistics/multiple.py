"""P-values of several tests that are read together, and of two that must both find something."""

import math
from collections.abc import Sequence


def larger_p(p: float, other: float) -> float:
    """P-value of both of two tests finding something: the larger one.

    NaN, for a test that there is not, does not count; NaN if neither is there.
    Source: Berger 1982, Technometrics 24(4), intersection-union tests.
    """
    if math.isnan(p) or math.isnan(other):
        return other if math.isnan(p) else p
    return max(p, other)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted by Holm's method: that one is below a level holds for all together.

    The k-th smallest of n is multiplied by n - k + 1 (k from 1), and none becomes smaller than the one before it or
    larger than 1. NaN, for a test that there is not, stays and does not count.
    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min((len(tested) - rank) * p, 1.0))
        adjusted[place] = largest
    return adjusted
