"""Score against multiply-accumulates, parameters as the area of a bubble (E2ENet, Fig. 2)."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.curves import INK, MUTED, styled
from voxelseg.report.figures.labels import Point, place_labels
from voxelseg.report.figures.look import (
    SMALL,
    STEPS,
    TEXT,
    WIDTH_IN,
    Look,
    axes_in,
    digits_of,
    looks,
    note_below,
    note_in,
    number,
    padded,
    short,
    unknown_note,
)
from voxelseg.report.figures.pareto import Costs, amount, cost_axis

_HEIGHT = 4.2
_LARGEST, _SMALLEST = 17.0, 2.0
"""Radii of bubbles in points: of the most parameters, and the least that can be seen."""


def describe_bubbles(
    scores: Mapping[str, float], macs_g: Costs, parameters_m: Costs, *, label: str, unit: str = ""
) -> str:
    """What the figure shows, in sentences."""
    told = [
        f"{name} {number(scores[name], digits_of(unit))} with {amount(parameters_m[name])} million parameters and "
        f"{amount(macs_g[name])} billion multiply-accumulates"
        for name in _known(scores, macs_g, parameters_m)
    ]
    return f"{label} against costs. {'; '.join(told) or 'Nobody has a score and known costs'}."


def draw_bubbles(
    scores: Mapping[str, float],
    macs_g: Costs,
    parameters_m: Costs,
    *,
    label: str,
    unit: str = "",
    look: Mapping[str, Look] | None = None,
) -> Figure:
    """Contestants as bubbles over the multiply-accumulates in billions; their area is the parameters in millions.

    A contestant of which one of the three is not known is named below.
    """
    known, looks_of = _known(scores, macs_g, parameters_m), look or looks(scores)
    names = short(known)
    sizes = {name: float(parameters_m[name] or 0) for name in known}
    radii = {name: _radius(size, max(sizes.values())) for name, size in sizes.items()}
    with styled():
        note = unknown_note([name for name in scores if name not in known], "score or costs")
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT))
        axes = axes_in(figure, left=0.8, right=0.25, bottom=0.6 + note_in(note), top=0.62)
        costs = {name: float(macs_g[name] or 0) for name in known}
        cost_axis(axes, costs.values())
        axes.set_ylim(*padded((scores[name] for name in known), 0.22))
        for name in sorted(known, key=lambda name: -sizes[name]):  # the small ones in front
            _draw_bubble(axes, (costs[name], scores[name]), radii[name], looks_of[name].colour)
        points = [Point(costs[name], scores[name], names[name], radius=radii[name]) for name in known]
        place_labels(axes, points)
        _draw_key(axes, sizes)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
        axes.set_ylabel(f"{label} ({unit})" if unit else label, fontsize=TEXT)
        axes.set_xlabel("multiply-accumulates of one patch (billions)", fontsize=TEXT)
        note_below(figure, note)
    return figure


def _draw_bubble(axes: Axes, place: tuple[float, float], radius: float, colour: str) -> None:
    """A pale disc with a rim, so that what lies behind it is seen."""
    x, y = [place[0]], [place[1]]
    axes.plot(x, y, "o", color=colour, markersize=2 * radius, alpha=0.35, markeredgewidth=0)
    axes.plot(x, y, "o", color=colour, markersize=2 * radius, markerfacecolor="none", markeredgewidth=1.2)


def _known(scores: Mapping[str, float], *costs: Costs) -> list[str]:
    def is_number(value: float | None) -> bool:
        return value is not None and math.isfinite(value)

    return [name for name in scores if all(is_number(kind.get(name)) for kind in (scores, *costs))]


def _radius(size: float, largest: float) -> float:
    return max(_LARGEST * math.sqrt(size / largest), _SMALLEST)


def _draw_key(axes: Axes, sizes: Mapping[str, float]) -> None:
    """Above the axes: what the areas mean, by bubbles of the largest, a quarter and a sixteenth of it."""
    if not sizes:
        return
    largest = float(f"{max(sizes.values()):.1g}")
    height = axes.get_window_extent().height / axes.figure.figure.dpi
    place, middle = 0.0, 1 + 0.31 / height
    axes.text(
        place, middle, "parameters (millions):", transform=axes.transAxes, fontsize=SMALL, color=MUTED, va="center"
    )
    for number_of, size in enumerate((largest / 16, largest / 4, largest)):
        place = 0.38 + 0.19 * number_of
        radius = _radius(size, max(sizes.values()))
        axes.plot(
            [place],
            [middle],
            "o",
            markersize=2 * radius,
            color=MUTED,
            markerfacecolor="none",
            clip_on=False,
            transform=axes.transAxes,
        )
        axes.annotate(
            amount(size),
            (place, middle),
            xytext=(radius + 3, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=SMALL,
            color=INK,
            va="center",
            annotation_clip=False,
        )
