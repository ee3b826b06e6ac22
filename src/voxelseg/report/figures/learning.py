"""Learning curves of several contestants, and of one whose connections move (E2ENet, Figs. 7 and 8)."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.compare.fusion import Topology
from voxelseg.data.wording import counted
from voxelseg.report.curves import CYCLE, LINE, MUTED, styled
from voxelseg.report.figures.look import SMALL, TEXT, WIDTH_IN, Look, axes_in, looks, name_legend

_MOST_LINES = 60
"""Updates that are marked: more lines would be a grey surface."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Places along the axis, such as minutes, and values."""


def describe_learning(curves: Mapping[str, Sequence[Curve]], *, label: str, along: str) -> str:
    """Where each contestant's curves end, in sentences."""
    told = []
    for name, of_name in curves.items():
        ends = [points[-1] for points in map(_finite, of_name) if points]
        texts = [f"{value:.3g} after {place:.3g} {along}" for place, value in ends]
        told.append(f"{name}: {', '.join(texts) or 'no values'}")
    return f"{label} over the training. {'; '.join(told) or 'No training has a curve'}."


def draw_learning(
    curves: Mapping[str, Sequence[Curve]], *, label: str, along: str, look: Mapping[str, Look] | None = None
) -> Figure:
    """The curves of each contestant, one for each seed or fold, over what `along` names, such as "minutes".

    Values that are not finite are left out.
    """
    looks_of = look or looks(curves)
    with styled():
        figure = Figure(figsize=(WIDTH_IN, 3.4))
        legend_in = name_legend(figure, {name: looks_of[name] for name in curves})
        axes = axes_in(figure, left=0.8, right=0.2, bottom=0.6, top=0.15 + legend_in)
        for name, of_name in curves.items():
            for curve in of_name:
                _draw_curve(axes, curve, looks_of[name])
        axes.set_xlabel(along, fontsize=TEXT)
        axes.set_ylabel(label, fontsize=TEXT)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    return figure


def _finite(curve: Curve) -> list[tuple[float, float]]:
    return [(place, value) for place, value in zip(*curve, strict=True) if math.isfinite(value)]


def _draw_curve(axes: Axes, curve: Curve, look: Look) -> None:
    """A line with a few markers, which tell it apart without colours."""
    points = _finite(curve)
    if points:
        every = max(len(points) // 8, 1)
        axes.plot(
            *zip(*points, strict=True),
            color=look.colour,
            linewidth=1.3,
            alpha=0.9,
            marker=look.marker,
            markersize=4.5,
            markevery=every,
        )


def describe_updates(topology: Sequence[Topology], *, label: str) -> str:
    """How often and how much the connections moved, in sentences."""
    updates = [one for one in topology if one["moved"]]
    if not updates:
        return f"{label} over the training steps. No connection moved."
    return (
        f"{label} over the training steps, and {counted(len(updates), 'update')} of the connections from step "
        f"{updates[0]['step']} to {updates[-1]['step']}, which moved {updates[0]['rate']:.1%} of them at first and "
        f"{updates[-1]['rate']:.1%} at last."
    )


def draw_updates(curves: Mapping[str, Curve], topology: Sequence[Topology], *, label: str) -> Figure:
    """Curves over the training steps with a line where connections moved, and below the share of them that did.

    At most 60 updates are marked, evenly spread.
    """
    updates = [one for one in topology if one["moved"]]
    marked = updates[:: max(-(-len(updates) // _MOST_LINES), 1)]
    look = looks(curves)
    with styled():
        figure = Figure(figsize=(WIDTH_IN, 3.9))
        legend_in = name_legend(figure, look)
        height = figure.get_figheight()
        upper = axes_in(figure, left=0.8, right=0.2, bottom=1.75, top=0.15 + legend_in)
        lower = axes_in(figure, left=0.8, right=0.2, bottom=0.6, top=height - 1.6)
        lower.sharex(upper)
        for axes in (upper, lower):
            for one in marked:
                axes.axvline(one["step"], color=LINE, linewidth=0.8, zorder=0)
        for name, curve in curves.items():
            _draw_curve(upper, curve, look[name])
        lower.plot(
            [one["step"] for one in updates],
            [one["rate"] for one in updates],
            ".-",
            color=CYCLE[2],
            markersize=5,
        )
        lower.set_ylim(bottom=0)
        lower.set_ylabel("share moved", fontsize=SMALL, color=MUTED)
        lower.set_xlabel("step (thin lines: connections move)", fontsize=TEXT)
        upper.set_ylabel(label, fontsize=TEXT)
        upper.tick_params(labelbottom=False)
        lower.yaxis.set_major_locator(MaxNLocator(nbins=3))
        lower.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure
