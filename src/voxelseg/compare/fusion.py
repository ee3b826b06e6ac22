"""Where fused features come from: shares of the active kernels by direction (E2ENet, Sec. 4.11, Figs. 12 and 13).

A training logs, for each fusion node such as "x[2,1]" (stage 2, level 1), the active kernels and all kernels of each
direction: "up" from the coarser level, "forward" from the same, "down" from the finer one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WAYS = ("up", "forward", "down")
Sources = Mapping[str, Sequence[int]]
"""Direction -> active kernels, and all that there are."""
Nodes = Mapping[str, Sources]
"""Fusion node -> its sources."""
Topology = Mapping[str, Any]
"""One logged line: the active kernels at a moment of the training, `nodes` among them."""

_GROUPS: Mapping[str, Callable[[tuple[int, int]], str]] = {
    "stage": lambda place: f"stage {place[0]}",
    "level": lambda place: f"level {place[1]}",
    "network": lambda place: "network",
}


def place_of(node: str) -> tuple[int, int]:
    """Stage and level of a node called "x[stage,level]"."""
    stage, level = re.findall(r"\d+", node)
    return int(stage), int(level)


def proportions(sources: Sources) -> dict[str, float]:
    """Share of the active kernels whose input comes from each direction; 0 where none is active."""
    total = sum(active for active, _ in sources.values())
    return {way: active / total if total else 0.0 for way, (active, _) in sources.items()}


def gathered(nodes: Nodes, by: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Kernels of all nodes of a stage, of a level, or of the network: `by` is "stage", "level" or "network".

    Groups are in the order of their numbers, named such as "level 0", the finest; a direction that none of its nodes
    has is absent.
    """
    group_of = _GROUPS[by]
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for node in sorted(nodes, key=lambda node: place_of(node)[::-1] if by == "level" else place_of(node)):
        group = found.setdefault(group_of(place_of(node)), {})
        for way, (active, kernels) in nodes[node].items():
            before = group.get(way, (0, 0))
            group[way] = (before[0] + active, before[1] + kernels)
    return found


def gains(first: Nodes, last: Nodes) -> dict[str, float]:
    """Direction -> its share of all active kernels at the end minus that at the beginning.

    At the beginning active kernels are drawn blindly, so a direction's share is that of its channels; what the training
    prefers is in the change, not in the share itself.
    """
    before, after = (proportions(gathered(nodes, "network").get("network", {})) for nodes in (first, last))
    return {way: after[way] - before.get(way, 0.0) for way in WAYS if way in after}
