"""Score of each contestant: mean with interval, and a dot for each seed."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.curves import INK, MUTED, styled
from voxelseg.report.figures.look import (
    DASH,
    SMALL,
    TEXT,
    WIDTH_IN,
    Estimate,
    Look,
    axes_in,
    digits_of,
    looks,
    number,
    padded,
    short,
    side_by_side,
    widest_in,
)

_ROW = 0.36
"""Inches of a contestant."""
_NUMBERS = 0.65
"""Inches on the right for the means."""


def describe_scores(
    scores: Mapping[str, Estimate], *, label: str, unit: str = "", faults: Mapping[str, str] | None = None
) -> str:
    """What the plot shows, in sentences."""
    digits, told = digits_of(unit), []
    for name, one in scores.items():
        between = f" ({number(one.low, digits)} to {number(one.high, digits)})" if one.has_interval else ""
        told.append(f"{name} {number(one.mean, digits)}{between}")
    told += [f"{name} without a score: {reason}" for name, reason in (faults or {}).items()]
    return f"{label}{f' in {unit}' if unit else ''} with intervals: {'; '.join(told) or 'nobody has a score'}."


def draw_scores(
    scores: Mapping[str, Estimate],
    *,
    label: str,
    unit: str = "",
    parts: str = "seeds",
    faults: Mapping[str, str] | None = None,
    look: Mapping[str, Look] | None = None,
) -> Figure:
    """A row for each contestant in the order given: mean and interval, small dots for its parts, which `parts` names.

    `faults` has the reasons of those that failed; they get a row, too.
    """
    looks_of = look or looks((*scores, *(faults or {})))
    names = short((*scores, *(faults or {})))
    with styled():
        left = 0.2 + widest_in(Figure(), names.values())
        figure = Figure(figsize=(WIDTH_IN, 0.15 + _ROW * max(len(names), 1) + 0.6))
        axes = axes_in(figure, left=left, right=_NUMBERS, bottom=0.6, top=0.15)
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.set_xlim(*padded(end for one in scores.values() for end in (one.mean, one.low, one.high, *one.parts)))
        for row, (name, one) in enumerate(scores.items()):
            _draw_row(axes, row, one, looks_of[name], digits_of(unit))
        for row, reason in enumerate((faults or {}).values(), start=len(scores)):
            text = short([reason or DASH], 34)[reason or DASH]
            axes.text(0.02, row, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, color=MUTED, va="center")
        axes.set_yticks(range(len(names)), list(names.values()), fontsize=TEXT, color=INK)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        dots = f"; dots: {parts}" if any(one.parts for one in scores.values()) else ""
        axes.set_xlabel(f"{f'{label} ({unit})' if unit else label}{dots}", fontsize=TEXT)
    return figure


def _draw_row(axes: Axes, row: int, one: Estimate, look: Look, digits: int) -> None:
    if one.has_interval:
        axes.plot([one.low, one.high], [row] * 2, color=look.colour, linewidth=2.2, marker="|", markersize=8)
    if not math.isnan(one.mean):
        axes.plot([one.mean], [row], marker=look.marker, color=look.colour, markersize=7.5)
    below = [row + 0.3 + place for place in side_by_side(len(one.parts), 0.04)]
    axes.plot(one.parts, below, ".", color=INK, markersize=4, alpha=0.7)
    place = axes.get_yaxis_transform()  # a share of the width, and rows
    axes.text(1.03, row, number(one.mean, digits), transform=place, fontsize=TEXT, color=INK, ha="left", va="center")
