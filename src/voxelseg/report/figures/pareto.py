"""Score against one cost, with the Pareto front: who is worth choosing at what price."""

import math
from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from voxelseg.compare.pareto import Front, pareto_front
from voxelseg.data.wording import listed
from voxelseg.report.curves import INK, LINE, MUTED, styled
from voxelseg.report.figures.labels import Point, place_labels
from voxelseg.report.figures.look import (
    STEPS,
    TEXT,
    WIDTH_IN,
    Estimate,
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

_HEIGHT = 4.0
_SPREAD = 8.0
"""A largest cost that is so many times the least is drawn on a logarithmic axis."""

Costs = Mapping[str, float | None]
"""Contestant -> cost; None or NaN where it is not known."""


def describe_pareto(
    scores: Mapping[str, Estimate],
    costs: Costs,
    *,
    label: str,
    cost_label: str,
    unit: str = "",
    higher_is_better: bool = True,
) -> str:
    """Who is on the front, in sentences."""
    front = _front(scores, costs, higher_is_better=higher_is_better)
    if not front.members:
        return f"Nobody has both {label} and {cost_label}."
    told = [f"{name} ({number(scores[name].mean, digits_of(unit))} at {amount(costs[name])})" for name in front.members]
    better = "better" if higher_is_better else "lower"
    text = (
        f"{label} against {cost_label}. On the Pareto front, nobody being {better} at no higher cost: {listed(told)}."
    )
    if front.dominated:
        text += f" Others: {listed(list(front.dominated))}."
    return f"{text} Not known: {listed(front.unknown)}." if front.unknown else text


def draw_pareto(
    scores: Mapping[str, Estimate],
    costs: Costs,
    *,
    label: str,
    cost_label: str,
    unit: str = "",
    higher_is_better: bool = True,
    look: Mapping[str, Look] | None = None,
) -> Figure:
    """Contestants as points with their intervals; a stepped line joins the front, whose markers are filled.

    Contestants without a score or a cost are named below. A cost that spans much is on a logarithmic axis.
    """
    front, looks_of = _front(scores, costs, higher_is_better=higher_is_better), look or looks(scores)
    known = {name: float(costs[name] or 0) for name in scores if name in front.members or name in front.dominated}
    names = short(known)
    with styled():
        note = unknown_note(front.unknown, "score or cost")
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT))
        axes = axes_in(figure, left=0.8, right=0.2, bottom=0.6 + note_in(note), top=0.2)
        shown = [end for name in known for end in (scores[name].mean, scores[name].low, scores[name].high)]
        axes.set_ylim(*padded(shown, 0.12))
        cost_axis(axes, known.values())
        steps = _draw_front(axes, [(known[name], scores[name].mean) for name in front.members], is_up=higher_is_better)
        for name, cost in known.items():
            _draw_point(axes, cost, scores[name], looks_of[name], is_member=name in front.members)
        points = [
            Point(known[name], scores[name].mean, names[name], colour=INK if name in front.members else MUTED)
            for name in known
        ]
        bars = [
            [(known[name], scores[name].low), (known[name], scores[name].high)]
            for name in known
            if scores[name].has_interval
        ]
        place_labels(axes, points, lines=[steps, *bars])
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
        axes.set_ylabel(f"{label} ({unit})" if unit else label, fontsize=TEXT)
        axes.set_xlabel(cost_label, fontsize=TEXT)
        note_below(figure, note)
    return figure


def cost_axis(axes: Axes, costs: Iterable[float]) -> None:
    """Limits and marks of the horizontal axis for costs that are all positive."""
    values = list(costs)
    if not values or max(values) < _SPREAD * min(values):
        low, high = padded(values, 0.15)
        axes.set_xlim(max(low, 0), high)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=STEPS))
    else:
        axes.set_xscale("log")
        room = (max(values) / min(values)) ** 0.12
        axes.set_xlim(min(values) / room, max(values) * room)
        wide = max(values) / min(values) > 300
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def _front(scores: Mapping[str, Estimate], costs: Costs, *, higher_is_better: bool) -> Front:
    means = {name: one.mean for name, one in scores.items()}
    return pareto_front(means, [costs], higher_is_better=higher_is_better)


def amount(value: float | None) -> str:
    """A cost with three digits that say something, such as 0.0123, 12.3 and 1 230."""
    if value is None or not math.isfinite(value):
        return "–"
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


def _draw_front(axes: Axes, members: list[tuple[float, float]], *, is_up: bool) -> list[tuple[float, float]]:
    """What is reached at each cost: a step up, or down for lengths, where the next member comes. Its corners."""
    reached, corners = axes.get_ylim()[0 if is_up else 1], []
    for cost, score in members:
        corners += [(cost, reached), (cost, score)]
        reached = score
    if members:
        corners.append((axes.get_xlim()[1], reached))
        axes.plot(*zip(*corners, strict=True), color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    return corners


def _draw_point(axes: Axes, cost: float, one: Estimate, look: Look, *, is_member: bool) -> None:
    if one.has_interval:
        axes.plot([cost] * 2, [one.low, one.high], color=look.colour if is_member else LINE, linewidth=1.2, zorder=1.2)
    axes.plot(
        [cost],
        [one.mean],
        marker=look.marker,
        color=look.colour,
        markerfacecolor=look.colour if is_member else "white",
        markersize=8,
        zorder=3,
    )
