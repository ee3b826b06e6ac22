"""Ranks of many contestants over patients: Friedman's test, Nemenyi's, the critical difference, and their stability."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import chdtrc, fdtrc
from scipy.stats import rankdata, studentized_range

from voxelseg.statistics.resampling import Floats
from voxelseg.statistics.signed_rank import DECIMALS

_ROUNDING = 1e-9
"""A difference that is the critical one tells apart even if its last digits differ."""


def ranks(scores: Floats, *, higher_is_better: bool) -> Floats:
    """(patients, contestants): place of each contestant with each patient, 1 the best; equal scores share the mean."""
    best_first = np.round(-scores if higher_is_better else scores, DECIMALS)
    found: Floats = rankdata(best_first, axis=1)
    return found


@dataclass(frozen=True)
class Friedman:
    """Whether the contestants' ranks differ at all; NaN where that cannot be tested."""

    chi2: float
    p: float
    """By the chi-squared distribution."""
    f: float
    """Iman and Davenport's F; infinite if all patients rank alike."""
    f_p: float
    """By the F distribution; it errs less with few patients."""


def friedman(places: Floats) -> Friedman:
    """Friedman's test of ranks (patients, contestants), corrected for ties.

    Equal scores throughout have p-values of 1. NaN for fewer than two patients or three contestants.
    Sources: Friedman 1937, JASA 32(200); Iman and Davenport 1980, Communications in Statistics A9(6).
    """
    num, many = places.shape
    if num < 2 or many < 3:
        return Friedman(math.nan, math.nan, math.nan, math.nan)
    # The variance of a patient's ranks, which ties make smaller: (k^2 - 1) / 12 without any.
    spread = float(places.var(axis=1).mean()) * 12 / (many**2 - 1)
    if not spread:
        return Friedman(0.0, 1.0, 0.0, 1.0)
    return friedman_of_means(places.mean(axis=0).tolist(), num, spread=spread)


def friedman_of_means(mean_ranks: Sequence[float], num_patients: int, *, spread: float = 1.0) -> Friedman:
    """Friedman's test of published mean ranks; `spread` is the share of the ranks' variance that ties left.

    Source: Demšar 2006, Journal of Machine Learning Research 7:1-30, Sec. 3.2.2.
    """
    many, num = len(mean_ranks), num_patients
    squares = math.fsum((rank - (many + 1) / 2) ** 2 for rank in mean_ranks)
    statistic = 12 * num / (many * (many + 1)) * squares / spread
    left = num * (many - 1) - statistic
    ratio = (num - 1) * statistic / left if left > 1e-9 * num else math.inf
    degrees = many - 1
    return Friedman(
        statistic,
        float(chdtrc(degrees, statistic)),
        ratio,
        float(fdtrc(degrees, degrees * (num - 1), ratio)),
    )


def critical_difference(num_contestants: int, num_patients: int, *, alpha: float) -> float:
    """Difference of mean ranks that two of the contestants must have to differ at `alpha`, all pairs together.

    Source: Nemenyi 1963, as in Demšar 2006, Journal of Machine Learning Research 7:1-30, Sec. 3.2.2.
    """
    return _quantile(num_contestants, alpha) * _error(num_contestants, num_patients)


@lru_cache
def _quantile(num_contestants: int, alpha: float) -> float:
    """Of the largest difference of as many normal values, in standard errors of a difference; it takes long to find."""
    return float(studentized_range.isf(alpha, num_contestants, math.inf)) / math.sqrt(2)


def nemenyi(mean_ranks: Sequence[float], num_patients: int) -> Floats:
    """(contestants, contestants): p-value of each pair's mean ranks, all pairs together; 1 on the diagonal."""
    means = np.asarray(mean_ranks, dtype=np.float64)
    ours, theirs = np.triu_indices(len(means), 1)
    distance = np.abs(means[ours] - means[theirs]) / _error(len(means), num_patients) * math.sqrt(2)
    found = np.ones((len(means), len(means)))
    found[ours, theirs] = found[theirs, ours] = np.minimum(studentized_range.sf(distance, len(means), math.inf), 1.0)
    return found


def _error(num_contestants: int, num_patients: int) -> float:
    return math.sqrt(num_contestants * (num_contestants + 1) / (6 * num_patients))


def groups(mean_ranks: Sequence[float], difference: float) -> tuple[tuple[int, ...], ...]:
    """Places, best rank first, of contestants that lie closer together than the critical `difference`.

    Only groups of two or more that are not part of a larger one, from the best on: the bars of the diagram in Demšar
    2006, Fig. 1. None for a difference of NaN.
    """
    order = sorted(range(len(mean_ranks)), key=lambda place: mean_ranks[place])
    found: list[tuple[int, ...]] = []
    reached = 0
    for first in range(len(order)):
        end = first + 1
        while end < len(order) and mean_ranks[order[end]] - mean_ranks[order[first]] < difference - _ROUNDING:
            end += 1
        if end > max(reached, first + 1):
            found.append(tuple(order[first:end]))
            reached = end
    return tuple(found)


def rank_shares(drawn_means: Floats, *, higher_is_better: bool) -> Floats:
    """(contestants, contestants): share of the draws in which contestant i has the j-th best mean, equal ones sharing.

    `drawn_means` (draws, contestants) has a mean in every draw. Each row and each column sums to 1.
    """
    values = np.round(-drawn_means if higher_is_better else drawn_means, DECIMALS)
    many = values.shape[1]
    found = np.zeros((many, many))
    for one in range(many):
        ahead = (values < values[:, [one]]).sum(axis=1)
        alike = (values == values[:, [one]]).sum(axis=1)
        for place in range(many):
            held = (ahead <= place) & (place < ahead + alike)
            found[one, place] = (held / alike).mean()
    return found
