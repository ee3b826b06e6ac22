"""Whether large structures are segmented better than small ones (E2ENet, Sec. 4.12, Figs. 14-16)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from voxelseg.evaluate.evaluation import Evaluation

_MOST_EXACT = 8
"""Values whose every order is tried for the p-value: 40,320 orders. Student's t is an approximation for more."""
_LEAST_TELLING = 5
"""With fewer values no order is rare enough for a two-sided p below 0.05: 2 of 4! = 24 orders give 0.083."""
SIGNIFICANCE = 0.05
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of two values of the same things."""

    rho: float
    """From -1 to 1; NaN if one of the two is the same everywhere, or for fewer than two things."""
    p: float
    """Two-sided, of no connection; NaN if `rho` is."""
    n: int
    """Things, such as classes, that have both values."""

    def in_words(self, things: str = "classes") -> str:
        """Such as "Spearman's ρ = 0.72 over 15 classes (p = 0.002)"; says if it cannot be told."""
        if math.isnan(self.rho):
            return f"no rank correlation can be computed over {self.n} {things}"
        found = f"Spearman's ρ = {self.rho:.2f} over {self.n} {things}"
        if self.n < _LEAST_TELLING:
            return f"{found}, too few to tell it from chance"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{found} ({p})" if self.p < SIGNIFICANCE else f"{found} ({p}: not told from chance)"


def class_volumes_ml(evaluation: Evaluation) -> dict[str, float]:
    """Class -> mean volume in ml of its reference in the cases that have it; NaN for a class that is in none."""
    found: dict[str, list[float]] = {name: [] for name in evaluation.classes}
    for score in evaluation.scores:
        if score.volume_reference_mm3 > 0:
            found[score.name].append(score.volume_reference_mm3 / 1000)
    return {name: fmean(volumes) if volumes else math.nan for name, volumes in found.items()}


def rank_correlation(ours: Mapping[str, float], theirs: Mapping[str, float]) -> RankCorrelation:
    """Spearman's rank correlation over the names that have a value, not NaN, on both sides; ties share their ranks.

    The p-value counts all orders for up to eight values, and comes from Student's t for more.
    """
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    count = len(pairs)
    if len({mine for mine, _ in pairs}) < 2 or len({other for _, other in pairs}) < 2:
        return RankCorrelation(math.nan, math.nan, count)
    ranks = rankdata(np.array(pairs), axis=0) - (count + 1) / 2  # (count, 2), mean 0
    first, second = ranks.T
    scale = math.sqrt(float(first @ first) * float(second @ second))
    rho = float(first @ second) / scale
    if count <= _MOST_EXACT:
        orders = np.array(list(permutations(second)))  # (count!, count)
        as_far = np.abs(orders @ first) / scale >= abs(rho) - _ROUNDING
        return RankCorrelation(rho, float(as_far.mean()), count)
    if abs(rho) > 1 - _ROUNDING:
        return RankCorrelation(rho, 0.0, count)
    statistic = abs(rho) * math.sqrt((count - 2) / (1 - rho * rho))
    return RankCorrelation(rho, float(2 * student.sf(statistic, count - 2)), count)
