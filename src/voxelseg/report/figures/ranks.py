"""Critical-difference diagram: average ranks, and who is not told apart (Demsar 2006, JMLR 7, Fig. 1)."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxelseg.data.wording import listed
from voxelseg.report.curves import INK, MUTED, styled
from voxelseg.report.figures.look import (
    TEXT,
    WIDTH_IN,
    axes_in,
    note_below,
    note_in,
    short,
    unknown_note,
    widest_in,
    wrapped,
)
from voxelseg.statistics.ranks import groups

_ROW, _BAR_ROW, _GAP = 0.25, 0.12, 0.14
"""Inches between two names, between two bars, and between the axis and the first bar."""
_NAME = 22
"""Characters of a name: two stand in one line with the axis between them."""
_LEAST_AXIS = 2.2
_TOP = 0.72


def joined(ranks: Mapping[str, float], critical_difference: float) -> list[tuple[str, ...]]:
    """Groups whose ranks lie closer together than the critical difference: they are not told apart.

    Best first; only groups of two or more that are not part of another. None without a critical difference (NaN).
    """
    names = [name for name, rank in ranks.items() if not math.isnan(rank)]
    found = groups([ranks[name] for name in names], critical_difference)
    return [tuple(names[place] for place in group) for group in found]


def describe_ranks(ranks: Mapping[str, float], critical_difference: float) -> str:
    """What the diagram shows, in sentences."""
    order = sorted((name for name, rank in ranks.items() if not math.isnan(rank)), key=lambda name: ranks[name])
    if not order:
        return "No contestant has a rank."
    told = f"Average ranks, 1 is best: {', '.join(f'{name} {ranks[name]:.2f}' for name in order)}."
    if math.isnan(critical_difference):
        return f"{told} There is no critical difference to hold them against."
    told_as_one = [listed(group) for group in joined(ranks, critical_difference)]
    alike = f"Not told apart: {'; '.join(told_as_one)}." if told_as_one else "All are told apart."
    return f"{told} Critical difference {critical_difference:.2f}. {alike}"


def draw_ranks(ranks: Mapping[str, float], critical_difference: float, *, note: str = "") -> Figure:
    """Critical-difference diagram of average ranks, the best on the right; thick bars join who is not told apart.

    Contestants whose rank is NaN are named below. Without a critical difference (NaN) nothing is joined, so say why in
    `note`.
    """
    known = {name: rank for name, rank in ranks.items() if not math.isnan(rank)}
    order = sorted(known, key=lambda name: known[name])
    half = (len(order) + 1) // 2
    sides = (order[half:][::-1], order[:half])  # the worst at the top on the left, the best on the right
    bars = _bars(joined(known, critical_difference), known)
    unknown = unknown_note([name for name in ranks if name not in known], "a rank")
    note = "\n".join(text for text in (unknown, wrapped(note)) if text)
    with styled():
        texts = {name: f"{text}  {known[name]:.2f}" for name, text in short(known, _NAME).items()}
        left, right = (0.2 + widest_in(Figure(), [texts[name] for name in side]) for side in sides)
        first_row = _GAP + _BAR_ROW * (1 + max((level for _, _, level in bars), default=-1))
        depth = first_row + _ROW * max(half, 1)
        foot = 0.08 + note_in(note)
        figure = Figure(figsize=(max(WIDTH_IN, left + right + _LEAST_AXIS), _TOP + depth + foot))
        axes = axes_in(figure, left=left, right=right, bottom=foot, top=_TOP)
        last = max(len(order), 2)
        axes.set_xlim(last, 1)
        axes.set_ylim(-depth, 0)  # inches below the axis
        _draw_axis(axes, last)
        if not math.isnan(critical_difference):
            _draw_critical_difference(axes, critical_difference, last)
        for names, end in zip(sides, (last, 1), strict=True):
            for row, name in enumerate(names):
                _draw_name(axes, known[name], texts[name], -first_row - _ROW * (row + 0.5), end=end)
        for best, worst, level in bars:
            depth_of_bar = -_GAP - _BAR_ROW * level
            axes.plot([best, worst], [depth_of_bar] * 2, color=INK, linewidth=4, solid_capstyle="butt", zorder=3)
        note_below(figure, note)
    return figure


def _bars(groups: Sequence[Sequence[str]], ranks: Mapping[str, float]) -> list[tuple[float, float, int]]:
    """Best rank, worst rank and level of each group's bar, with a little of the axis on both sides.

    Bars that would touch lie on different levels.
    """
    over = 0.02 * max(len(ranks), 2)
    bars: list[tuple[float, float, int]] = []
    for group in groups:
        best, worst = ranks[group[0]] - over, ranks[group[-1]] + over
        taken = {level for _, other, level in bars if other > best - over}
        bars.append((best, worst, min(set(range(len(groups))) - taken)))
    return bars


def _draw_axis(axes: Axes, last: int) -> None:
    """The ranks along the top, with half ranks as short marks."""
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, last + 1), [str(rank) for rank in range(1, last + 1)], fontsize=TEXT)
    axes.set_xticks([rank + 0.5 for rank in range(1, last)], minor=True)
    axes.set_yticks([])


def _draw_name(axes: Axes, rank: float, text: str, place: float, *, end: float) -> None:
    """A line from the rank on the axis down and out to the name."""
    axes.plot([rank, rank, end], [0, place, place], color=MUTED, linewidth=0.9, clip_on=False)
    axes.annotate(
        text,
        (end, place),
        xytext=(5 if end == 1 else -5, 0),
        textcoords="offset points",
        ha="left" if end == 1 else "right",
        va="center",
        fontsize=TEXT,
        annotation_clip=False,
    )


def _draw_critical_difference(axes: Axes, width: float, last: int) -> None:
    """Its length above the left end of the axis; cut off, and said so, where the axis is shorter."""
    place, shown = 0.42, min(width, last - 1)
    ends = "|" if width <= last - 1 else ""
    axes.plot([last, last - shown], [place] * 2, color=INK, linewidth=1.4, marker=ends, markersize=8, clip_on=False)
    longer = "" if width <= last - 1 else ", more than the axis is long"
    axes.annotate(
        f"critical difference {width:.2f}{longer}",
        (last, place),
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=TEXT,
        annotation_clip=False,
    )
