"""Sparse connections: which kernels are active, and where the features that they fuse come from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from voxelseg.data.wording import counted
from voxelseg.report.curves import CYCLE, INK, MUTED, STYLE, to_svg
from voxelseg.report.facts import Facts
from voxelseg.report.run import Fold

Topology = Mapping[str, Any]
"""One logged line: the active kernels at a moment of the training."""

DIRECTIONS = {"up": (CYCLE[0], "-"), "forward": (CYCLE[1], "--"), "down": (CYCLE[4], ":")}
"""Colour and line of each direction; the colours are those of E2ENet's Fig. 3. Lines differ, too, for any eye."""
_PALENESS = 0.45
"""How much of a colour is left in the bars of the beginning."""
_PIXELS_PER_INCH = 102
"""On the page: what makes the widest drawing, of fifteen nodes, as wide as the text."""
_MOST_POINTS = 60
"""Of a curve: more cannot be told apart in a drawing of this size."""


@dataclass(frozen=True)
class SparseFold:
    """The sparse layers of one fold."""

    name: str
    facts: Facts
    drawings: tuple[tuple[str, Markup, int], ...]
    """Titles, drawings and widths (pixels) of the fusion nodes; none if the network has no such nodes."""
    titles: tuple[str, ...]
    """Of the columns of `rows`."""
    rows: tuple[tuple[str, ...], ...]
    """A fusion node, or a layer where there are none: active kernels, then the active share of each direction."""


def sparse_folds(folds: Sequence[Fold]) -> list[SparseFold]:
    """What the logs say of sparse layers, for each fold that has any."""
    return [_sparse_fold(fold) for fold in folds if fold.topology]


def _sparse_fold(fold: Fold) -> SparseFold:
    first, last = fold.topology[0], fold.topology[-1]
    titles, rows = _node_table(first, last) if last["nodes"] else _layer_table(last)
    return SparseFold(
        name=fold.name,
        facts=_facts(fold.topology),
        drawings=tuple(_drawings(fold)) if last["nodes"] else (),
        titles=titles,
        rows=rows,
    )


def _facts(history: Sequence[Topology]) -> Facts:
    last, updates = history[-1], [one for one in history if one["moved"]]
    active, kernels = (sum(counts[place] for counts in last["layers"].values()) for place in (0, 1))
    layers = counted(len(last["layers"]), "layer")
    facts = [("Active kernels", f"{counted(active, 'kernel')} of {kernels:,} in {layers}".replace(",", "\u202f"))]
    facts.append(("Sparsity", _percent(1 - active / kernels)))
    if not updates:
        return [*facts, ("Updates", "none: the active kernels are those of the beginning")]
    moved = sum(one["moved"] for one in updates)
    began, ended = updates[0]["step"], updates[-1]["step"]
    steps = f"from step {began} to {ended}" if len(updates) > 1 else f"in step {began}"
    facts.append(("Updates", f"{len(updates)}, {steps}"))
    facts.append(
        ("Moved kernels", f"{counted(moved, 'kernel')}: each active one {moved / active:.2g} times on average")
    )
    rates = " to ".join(_percent(one["rate"]) for one in (updates[0], updates[-1]))
    return [*facts, ("Share moved in an update", rates)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _node_table(first: Topology, last: Topology) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for name, sources in last["nodes"].items():
        active = sum(counts[0] for counts in sources.values())
        cells = [_change(first["nodes"][name].get(way), sources.get(way)) for way in DIRECTIONS]
        rows.append((name, counted(active, "kernel").split(" ")[0], *cells))
    return ("Node", "Active kernels", *(f"Active share {way}" for way in DIRECTIONS)), tuple(rows)


def _change(before: Sequence[int] | None, after: Sequence[int] | None) -> str:
    """Active share of the kernels at the beginning and at the end; a dash where a node has no such source."""
    if not before or not after:
        return "–"
    return " → ".join(_percent(active / kernels) for active, kernels in (before, after))


def _layer_table(last: Topology) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = [
        (name, str(active), str(kernels), _percent(active / kernels))
        for name, (active, kernels) in last["layers"].items()
    ]
    return ("Layer", "Active kernels", "Kernels", "Active share"), tuple(rows)


def proportions(sources: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Share of the active kernels of a node whose input comes from each direction (E2ENet, Sec. 4.11)."""
    total = sum(active for active, _ in sources.values())
    return {way: active / total if total else 0.0 for way, (active, _) in sources.items()}


def _drawings(fold: Fold) -> list[tuple[str, Markup, int]]:
    pictures = (
        ("Connections before and after training", draw_ends(fold.topology)),
        ("Connections during training", draw_course(fold.topology)),
    )
    return [
        (
            title,
            to_svg(figure, prefix=f"sparse-{fold.name}-{number}", title=title),
            round(_PIXELS_PER_INCH * figure.get_figwidth()),
        )
        for number, (title, figure) in enumerate(pictures)
    ]


def draw_ends(history: Sequence[Topology]) -> Figure:
    """For each node a bar for the beginning and one for the end: where the inputs of its active kernels come from."""
    first, last = history[0]["nodes"], history[-1]["nodes"]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.4, 1.2 + 0.6 * len(last)), 2.9), layout="constrained")
        axes = figure.add_subplot()
        for nodes, side, is_end in ((first, -0.19, False), (last, 0.19, True)):
            _draw_bars(axes, list(nodes.values()), side=side, is_end=is_end)
        axes.set_xticks(range(len(last)), list(last))
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of active kernels")
        figure.legend(loc="outside upper right", ncols=len(DIRECTIONS), fontsize=10)
    return figure


def _draw_bars(axes: Axes, nodes: Sequence[Mapping[str, Sequence[int]]], *, side: float, is_end: bool) -> None:
    """A bar for each node, `side` beside its place; those of the beginning are pale."""
    places = [place + side for place in range(len(nodes))]
    bottoms = [0.0] * len(nodes)
    for way, (colour, _) in DIRECTIONS.items():
        heights = [proportions(sources).get(way, 0.0) for sources in nodes]
        shade = to_rgb(colour) if is_end else tuple(1 - _PALENESS * (1 - part) for part in to_rgb(colour))
        axes.bar(places, heights, 0.34, bottoms, color=shade, edgecolor="white", label=way if is_end else None)
        bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]


def draw_course(history: Sequence[Topology]) -> Figure:
    """A small drawing for each node, stages from left to right and levels from top to bottom, over the steps."""
    places = {name: _place(name) for name in history[-1]["nodes"]}
    columns = max(stage for stage, _ in places.values())
    levels = 1 + max(level for _, level in places.values())
    points = _thinned(history)
    steps = [one["step"] for one in points]
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.4, 1.0 + 1.7 * columns), 0.7 + 1.35 * levels), layout="constrained")
        grid = figure.subplots(levels, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for name, (stage, level) in places.items():
            axes = grid[level, stage - 1]
            axes.set_visible(True)
            _draw_node(axes, name, steps, [proportions(one["nodes"][name]) for one in points])
            last_of_column = level == max(below for column, below in places.values() if column == stage)
            axes.tick_params(labelbottom=last_of_column)
        figure.supxlabel("step", fontsize=11, color=MUTED)
        figure.supylabel("share of active kernels", fontsize=11, color=MUTED)
        handles, names = grid[min(1, levels - 1), 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(DIRECTIONS), fontsize=10)
    return figure


def _draw_node(axes: Axes, name: str, steps: Sequence[int], shares: Sequence[Mapping[str, float]]) -> None:
    for way, (colour, line) in DIRECTIONS.items():
        if way in shares[-1]:
            axes.plot(steps, [share[way] for share in shares], color=colour, linestyle=line, label=way)
    axes.set_title(name, fontsize=10, color=INK, pad=3)
    axes.set_ylim(0, 1)
    axes.set_xticks([steps[0], steps[-1]])
    axes.set_yticks([0, 0.5, 1])


def _place(name: str) -> tuple[int, int]:
    """Stage and level of a node called "x[stage,level]"."""
    stage, level = re.findall(r"\d+", name)
    return int(stage), int(level)


def _thinned(history: Sequence[Topology]) -> list[Topology]:
    """At most so many points as can be told apart, the first and the last among them."""
    if len(history) <= _MOST_POINTS:
        return list(history)
    stride = (len(history) - 1) / (_MOST_POINTS - 1)
    return [history[round(number * stride)] for number in range(_MOST_POINTS)]
