"""Performance trade-off score: accuracy and costs in one number, and what its weights decide.

Source: E2ENet (Wu et al., arXiv:2312.04727), Sec. 4.3.4, eq. 7, and Sec. 4.6 for the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from voxelseg.errors import ConfigError, DataError

SCORE_WEIGHT, COST_WEIGHT = 1.0, 0.5
"""The paper's alpha_1 and alpha_2: with two costs, accuracy counts as much as both together."""
MOST = 2.0
"""The best possible score with these weights: best accuracy and least costs."""
_ALIKE = 1e-9


@dataclass(frozen=True)
class Relative:
    """A contestant measured against the best of each kind: numbers of which 1 is the best, NaN where unknown."""

    score: float
    """Its score as a share of the best one."""
    costs: tuple[float, ...]
    """The least cost as a share of its own, for each kind of cost."""

    @property
    def is_known(self) -> bool:
        """Whether nothing is missing."""
        return not any(math.isnan(value) for value in (self.score, *self.costs))

    def trade_off(self, *, score_weight: float = SCORE_WEIGHT, cost_weight: float = COST_WEIGHT) -> float:
        """Performance trade-off score (eq. 7); the costs' shares are summed, as in the paper. NaN if one is missing."""
        return score_weight * self.score + cost_weight * sum(self.costs)

    def at(self, cost_share: float) -> float:
        """The same with `cost_share`, from 0 to 1, of all weight on the costs, and with `MOST` as the best possible.

        With two costs, a share of 0.5 gives the paper's weights. The value is a straight line in the share.
        """
        weight = MOST * cost_share / len(self.costs)
        return self.trade_off(score_weight=MOST * (1 - cost_share), cost_weight=weight)


@dataclass(frozen=True)
class Lead:
    """Who has the highest trade-off score while the share of the weight that lies on the costs is in a range."""

    low: float
    high: float
    names: tuple[str, ...]
    """Several only if their scores and costs are alike."""


def relative(
    scores: Mapping[str, float], costs: Sequence[Mapping[str, float | None]], *, what: str = "a trade-off score"
) -> dict[str, Relative]:
    """Each contestant of `scores` against the best score and the least costs of all of them.

    Scores are the better the higher, such as Dice; each of `costs` is one kind, by contestant. What is absent, None or
    NaN is unknown, and its contestant still counts for the rest. So the numbers compare these contestants only: another
    one can change all. Raises ConfigError without any kind of cost, DataError for a cost that is not positive or a
    score below 0.
    """
    if not costs:
        raise ConfigError(f"{what} needs at least one kind of cost, such as parameters.")
    known = [{name: _number(kind.get(name)) for name in scores} for kind in costs]
    wrong = [name for name, value in scores.items() if value < 0]
    wrong += [name for kind in known for name, value in kind.items() if value <= 0]
    if wrong:
        raise DataError(f"{what} needs scores from 0 and costs above 0; see {', '.join(dict.fromkeys(wrong))}.")
    best = max((value for value in scores.values() if not math.isnan(value)), default=math.nan)
    least = [min((value for value in kind.values() if not math.isnan(value)), default=math.nan) for kind in known]
    return {
        name: Relative(
            score=score / best if best > 0 else math.nan,  # all scores 0: none is better
            costs=tuple(low / kind[name] for low, kind in zip(least, known, strict=True)),
        )
        for name, score in scores.items()
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def performance_trade_off(
    scores: Mapping[str, float],
    costs: Sequence[Mapping[str, float | None]],
    *,
    score_weight: float = SCORE_WEIGHT,
    cost_weight: float = COST_WEIGHT,
) -> dict[str, float]:
    """Performance trade-off score of each contestant (eq. 7): the higher, the more accuracy for the cost.

    In the paper `costs` are the parameters and the FLOPs. NaN for a contestant of which a number is unknown. See
    `relative` for what is compared and which errors are raised; ConfigError also for weights below 0 or both 0.
    """
    weights = (score_weight, cost_weight)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ConfigError(
            f"score_weight and cost_weight must be 0 or more and not both 0, got {score_weight:g} and {cost_weight:g}."
        )
    found = relative(scores, costs)
    return {name: one.trade_off(score_weight=score_weight, cost_weight=cost_weight) for name, one in found.items()}


def cost_share(score_weight: float, cost_weight: float, num_costs: int = 2) -> float:
    """Share of all weight that lies on the costs: 0.5 for the paper's weights, 1 / 11 for alpha_1 = 20 alpha_2."""
    return num_costs * cost_weight / (score_weight + num_costs * cost_weight)


def leads(found: Mapping[str, Relative]) -> list[Lead]:
    """Who leads from no weight on the costs (0) to no weight on the score (1), in exact ranges of that share.

    Contestants with an unknown number cannot lead; the list is empty if all have one.
    """
    known = {name: one for name, one in found.items() if one.is_known}
    ends = {name: (one.at(0), one.at(1)) for name, one in known.items()}
    places = sorted({0.0, 1.0, *(place for pair in combinations(ends.values(), 2) for place in _crossing(*pair))})
    ranges: list[Lead] = []
    for low, high in pairwise(places) if known else ():
        values = {name: one.at((low + high) / 2) for name, one in known.items()}
        names = tuple(name for name, value in values.items() if value > max(values.values()) - _ALIKE)
        if ranges and ranges[-1].names == names:
            low = ranges.pop().low
        ranges.append(Lead(low, high, names))
    return ranges


def _crossing(ours: tuple[float, float], theirs: tuple[float, float]) -> list[float]:
    """Where two straight lines over [0, 1], given by their ends, cross inside it; none if they do not."""
    left, right = ours[0] - theirs[0], ours[1] - theirs[1]
    return [left / (left - right)] if left * right < 0 else []
