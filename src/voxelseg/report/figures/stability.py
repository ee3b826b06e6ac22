"""How often each contestant has each rank when the cases are drawn again."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from voxelseg.data.wording import listed
from voxelseg.report.curves import INK, MUTED, styled
from voxelseg.report.figures.look import (
    SMALL,
    TEXT,
    WIDTH_IN,
    axes_in,
    note_below,
    note_in,
    short,
    unknown_note,
    widest_in,
)

_CELL = 0.3
"""Inches that a rank is high, and at least wide."""
_WIDEST_CELL = 0.9
_TITLE = "rank, in percent of the resampled sets of cases"
_DARK = 0.55
"""A share from which the text is white."""


def describe_stability(shares: Mapping[str, Sequence[float]]) -> str:
    """Who is how often first, in sentences."""
    firsts = {name: one[0] for name, one in shares.items() if len(one) and not math.isnan(one[0])}
    if not firsts:
        return "The ranks' stability is not known."
    order = sorted(firsts, key=lambda name: -firsts[name])
    told = listed([f"{name} in {firsts[name]:.0%}" for name in order])
    return f"Share of the resampled sets of cases in which each contestant is first: {told}."


def draw_stability(shares: Mapping[str, Sequence[float]]) -> Figure:
    """A row for each contestant, a column for each rank: percent of the resampled sets of cases, dark where many.

    `shares` are from 0 to 1, first rank first; contestants whose shares are NaN are named below.
    """
    known = {name: one for name, one in shares.items() if len(one) and not any(map(math.isnan, one))}
    names, columns = short(known), max((len(one) for one in known.values()), default=1)
    with styled():
        left = 0.2 + widest_in(Figure(), names.values())
        cell = min(max((WIDTH_IN - left - 0.15) / columns, _CELL), _WIDEST_CELL)
        rows = max(len(known), 1)
        note = unknown_note([name for name in shares if name not in known], "ranks")
        foot = 0.1 + note_in(note)
        figure = Figure(figsize=(max(left + cell * columns + 0.15, WIDTH_IN), 0.55 + _CELL * rows + foot))
        axes = axes_in(figure, left=left, right=figure.get_figwidth() - left - cell * columns, bottom=foot, top=0.55)
        table = [list(one) for one in known.values()] or [[0.0]]
        axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, one in enumerate(known.values()):
            for column, share in enumerate(one):
                colour = "white" if share > _DARK else INK if share >= 0.005 else MUTED
                axes.text(column, row, _percent(share), fontsize=SMALL, color=colour, ha="center", va="center")
        axes.set_xticks(range(columns), [str(rank + 1) for rank in range(columns)], fontsize=TEXT)
        axes.set_yticks(range(len(known)), list(names.values()), fontsize=TEXT, color=INK)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        figure.text(0.06 / figure.get_figwidth(), 1 - 0.06 / figure.get_figheight(), _TITLE, fontsize=TEXT, va="top")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        note_below(figure, note)
    return figure


def _percent(share: float) -> str:
    """Whole percents; "<1" for what happened, but rarely."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"
