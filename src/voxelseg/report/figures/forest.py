"""Forest plot: differences between pairs of contestants with intervals, and the margin of no meaningful difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.curves import CYCLE, INK, LINE, MUTED, styled
from voxelseg.report.figures.look import (
    DASH,
    LONGEST,
    SMALL,
    TEXT,
    WIDTH_IN,
    Estimate,
    axes_in,
    digits_of,
    short,
    widest_in,
)

_ROW = 0.46
"""Inches of a pair: a line of text above its interval."""
_LENGTHS = (LONGEST, 22, 19, 16, 13)
"""Characters of a name that are tried until a line is short enough."""
_VERDICTS = {
    "better": (CYCLE[0], "o", CYCLE[0]),
    "worse": (CYCLE[1], "s", CYCLE[1]),
    "equivalent": (CYCLE[2], "D", CYCLE[2]),
    "undecided": (MUTED, "o", "white"),
}
"""Colour, marker and filling; another verdict looks undecided."""


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs."""

    ours: str
    theirs: str
    estimate: Estimate
    verdict: str
    """Such as "better", "worse", "equivalent" or "undecided"; of ours."""


def describe_forest(differences: Sequence[Difference], *, label: str, unit: str = "", margin: float = 0.0) -> str:
    """What the plot shows, in sentences."""
    told = [f"{one.ours} minus {one.theirs} {_numbers(one.estimate, unit)}, {one.verdict}" for one in differences]
    start = (
        f"Differences in {label}{f' in {unit}' if unit else ''}, with intervals: " if told else "No pair is compared"
    )
    end = f" Differences within ±{margin:g} do not matter." if margin > 0 else ""
    return f"{start}{'; '.join(told)}.{end}"


def draw_forest(
    differences: Sequence[Difference],
    *,
    label: str,
    unit: str = "",
    margin: float = 0.0,
    higher_is_better: bool = True,
) -> Figure:
    """A row for each pair: mean difference, its interval and the numbers; the band is the margin around 0.

    `label` names the score. Filled markers: better or worse; filled diamonds: equivalent; hollow: undecided.
    """
    rows = len(differences)
    with styled():
        height = 0.35 + _ROW * max(rows, 1) + 0.6
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = axes_in(figure, left=0.15, right=0.15, bottom=0.6, top=0.35)
        axes.set_ylim(max(rows, 1) - 0.5, -0.5)
        axes.set_xlim(*_reach(differences, margin))
        if margin > 0:
            axes.axvspan(-margin, margin, color=LINE, alpha=0.6, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
        for row, (one, pair) in enumerate(zip(differences, _pairs(differences, unit), strict=True)):
            _draw_row(axes, row, one, pair, unit)
        _finish(axes, label, unit, margin, higher_is_better=higher_is_better)
    return figure


def _pairs(differences: Sequence[Difference], unit: str) -> list[str]:
    """Names of the pairs, as short as needed to leave room for the numbers in the same line."""
    names = [name for one in differences for name in (one.ours, one.theirs)]
    room = WIDTH_IN - 0.45 - widest_in(Figure(), [_told(one, unit) for one in differences], SMALL)
    for longest in _LENGTHS:
        texts = short(names, longest)
        pairs = [f"{texts[one.ours]} − {texts[one.theirs]}" for one in differences]
        if widest_in(Figure(), pairs, SMALL) <= room:
            break
    return pairs


def _told(one: Difference, unit: str) -> str:
    return f"{_numbers(one.estimate, unit)} {one.verdict}"


def _reach(differences: Sequence[Difference], margin: float) -> tuple[float, float]:
    """The same to both sides of 0, so that it is in the middle."""
    ends = [abs(value) for one in differences for value in (one.estimate.mean, one.estimate.low, one.estimate.high)]
    most = 1.12 * max((end for end in (*ends, 1.5 * margin) if math.isfinite(end)), default=0.0)
    return (-most, most) if most > 0 else (-0.01, 0.01)


def _draw_row(axes: Axes, row: int, one: Difference, pair: str, unit: str) -> None:
    colour, marker, filling = _VERDICTS.get(one.verdict, _VERDICTS["undecided"])
    side = axes.get_yaxis_transform()  # a share of the width, and rows
    axes.text(0, row - 0.22, pair, transform=side, fontsize=SMALL, color=INK, ha="left", va="center")
    axes.text(1, row - 0.22, _told(one, unit), transform=side, fontsize=SMALL, color=MUTED, ha="right", va="center")
    place = row + 0.18
    if one.estimate.has_interval:
        axes.plot([one.estimate.low, one.estimate.high], [place] * 2, color=colour, linewidth=1.8, marker="|")
    axes.plot([one.estimate.mean], [place], marker=marker, color=colour, markerfacecolor=filling, markersize=7)
    for part in one.estimate.parts:
        axes.plot([part], [place], marker=".", color=INK, markersize=3)


def _numbers(one: Estimate, unit: str) -> str:
    digits = digits_of(unit)
    mean, low, high = (
        DASH if math.isnan(x) else f"{round(x, digits) + 0.0:+.{digits}f}" for x in (one.mean, one.low, one.high)
    )
    return f"{mean} [{low}, {high}]".replace("-", "−")


def _finish(axes: Axes, label: str, unit: str, margin: float, *, higher_is_better: bool) -> None:
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, symmetric=True))
    band = f"; grey: within ±{margin:g}, which does not matter" if margin > 0 else ""
    axes.set_xlabel(f"difference in {label}{f' ({unit})' if unit else ''}{band}", fontsize=TEXT)
    for place, side, text in ((0.0, "left", "← second is better"), (1.0, "right", "first is better →")):
        shown = text if higher_is_better else _mirrored(text)
        axes.text(place, 1.01, shown, transform=axes.transAxes, fontsize=SMALL, color=MUTED, ha=side, va="bottom")


def _mirrored(text: str) -> str:
    """The same words for a score of which less is better."""
    return {"← second is better": "← first is better", "first is better →": "second is better →"}[text]
