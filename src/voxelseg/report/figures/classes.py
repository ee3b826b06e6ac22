"""Spread of a score over the cases: for each class a row of quartiles for each contestant."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.curves import INK, LINE, MUTED, styled
from voxelseg.report.figures.look import (
    TEXT,
    WIDTH_IN,
    Look,
    axes_in,
    digits_of,
    looks,
    name_legend,
    number,
    padded,
    short,
    widest_in,
)

_ROW, _GAP = 0.17, 0.16
"""Inches of a contestant's row, and between two classes."""
_PERCENTILES = (5, 25, 50, 75, 95)

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""Contestant -> class -> one value for each case; NaN where it is undefined."""


def describe_classes(values: Values, *, label: str, unit: str = "") -> str:
    """Medians of each class, in sentences."""
    told = []
    for name in _classes(values):
        medians = {who: _percentiles(of_class.get(name, ())) for who, of_class in values.items()}
        texts = [f"{who} {number(found[2], digits_of(unit))}" for who, found in medians.items()]
        told.append(f"{name}: {', '.join(texts)}")
    return f"Median {label}{f' in {unit}' if unit else ''} over the cases. {'; '.join(told) or 'There is no class'}."


def draw_classes(values: Values, *, label: str, unit: str = "", look: Mapping[str, Look] | None = None) -> Figure:
    """For each class a row for each contestant: median, quartiles (thick), 5th to 95th percentile (thin).

    Undefined values are left out; behind a class stands how many cases have a value, a range where that differs.
    """
    classes, looks_of = _classes(values), look or looks(values)
    names = short(classes, 22)
    with styled():
        titles = [f"{names[name]}\nn = {_count(values, name)}" for name in classes]
        left = 0.2 + widest_in(Figure(), titles)
        block = max(_ROW * len(values), 0.34) + _GAP  # a class's two lines of text must fit
        figure = Figure(figsize=(WIDTH_IN, 0.1 + block * max(len(classes), 1) + 0.6))
        legend_in = name_legend(figure, {name: looks_of[name] for name in values})
        axes = axes_in(figure, left=left, right=0.15, bottom=0.6, top=0.1 + legend_in)
        axes.set_ylim(block * max(len(classes), 1), 0)  # inches from the top
        axes.set_xlim(*_ends(values, unit))
        for place, name in enumerate(classes):
            middle = block * (place + 0.5)
            for row, (who, of_class) in enumerate(values.items()):
                _draw_row(axes, middle + _ROW * (row - (len(values) - 1) / 2), of_class.get(name, ()), looks_of[who])
            if place:
                axes.axhline(block * place, color=LINE, linewidth=0.8)
        axes.set_yticks([block * (place + 0.5) for place in range(len(classes))], titles, fontsize=TEXT, color=INK)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel(f"{label} ({unit})" if unit else label, fontsize=TEXT)
    return figure


def _classes(values: Values) -> list[str]:
    return list(dict.fromkeys(name for of_class in values.values() for name in of_class))


def _defined(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _percentiles(values: Sequence[float]) -> list[float]:
    """NaN without any value."""
    defined = _defined(values)
    return np.percentile(defined, _PERCENTILES).tolist() if defined else [math.nan] * len(_PERCENTILES)


def _count(values: Values, name: str) -> str:
    counts = {len(_defined(of_class.get(name, ()))) for of_class in values.values()}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _ends(values: Values, unit: str) -> tuple[float, float]:
    """Of the axis: around what is drawn, and no further than ratios go."""
    drawn = [end for of_class in values.values() for one in of_class.values() for end in _percentiles(one)]
    low, high = padded(drawn)
    return (low, high) if unit else (max(low, -0.02), min(high, 1.02))


def _draw_row(axes: Axes, place: float, values: Sequence[float], look: Look) -> None:
    least, first, median, third, most = _percentiles(values)
    if math.isnan(median):
        side = axes.get_yaxis_transform()  # a share of the width, and rows
        axes.text(0.01, place, "no value", fontsize=8, color=MUTED, va="center", transform=side)
        return
    axes.plot([least, most], [place] * 2, color=look.colour, linewidth=1.0)
    axes.plot([first, third], [place] * 2, color=look.colour, linewidth=4.0, alpha=0.35, solid_capstyle="butt")
    axes.plot([median], [place], marker=look.marker, color=look.colour, markersize=5.5)
