"""Pareto front: contestants that nobody beats in the score without costing more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxelseg.errors import ConfigError


@dataclass(frozen=True)
class Front:
    """Which contestants are worth choosing, by their scores and costs alone: noise is not looked at."""

    members: tuple[str, ...]
    """Nobody is at least as good in everything and better in something; cheapest first, by the first cost."""
    dominated: Mapping[str, tuple[str, ...]]
    """The others, with those that are at least as good as them in everything and better in something."""
    unknown: tuple[str, ...]
    """Not placed, since the score or a cost is not known."""


def pareto_front(
    scores: Mapping[str, float], costs: Sequence[Mapping[str, float | None]], *, higher_is_better: bool = True
) -> Front:
    """The contestants of `scores` divided into the front and those that others dominate.

    Each of `costs` is one kind, by contestant, and less is better. What is absent, None or NaN is unknown. Contestants
    with equal numbers dominate each other in nothing. Raises ConfigError without any kind of cost.
    """
    if not costs:
        raise ConfigError("a Pareto front needs at least one kind of cost, such as the latency.")
    sign = -1.0 if higher_is_better else 1.0
    points = {name: (*(_number(kind.get(name)) for kind in costs), sign * score) for name, score in scores.items()}
    known = {name: point for name, point in points.items() if not any(map(math.isnan, point))}
    above = {name: tuple(other for other in known if _dominates(known[other], known[name])) for name in known}
    return Front(
        members=tuple(sorted((name for name in known if not above[name]), key=lambda name: known[name])),
        dominated={name: others for name, others in above.items() if others},
        unknown=tuple(name for name in points if name not in known),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _dominates(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether nothing of ours is larger, and something smaller."""
    return ours != theirs and all(mine <= other for mine, other in zip(ours, theirs, strict=True))
