"""Performance trade-off score while the weight moves from accuracy to costs (E2ENet, Fig. 9)."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from voxelseg.compare.trade_off import MOST, Relative, cost_share, leads
from voxelseg.data.wording import listed
from voxelseg.report.curves import INK, MUTED, styled
from voxelseg.report.figures.labels import apart
from voxelseg.report.figures.look import (
    POINTS,
    SMALL,
    TEXT,
    WIDTH_IN,
    Look,
    axes_in,
    looks,
    note_below,
    note_in,
    short,
    unknown_note,
    widest_in,
)

_HEIGHT, _FOOT, _TOP = 3.9, 0.95, 0.15
"""Inches: of the figure without notes, below the axes, above them."""
_NAME = 20
"""Characters of a name: the lines need the width."""
_RATIOS = (20.0, 5.0, 2.0, 1.0)
"""alpha_1 : alpha_2 that are marked; the paper's is 2."""
_PAPER = 2.0


def describe_trade_off(found: Mapping[str, Relative], *, label: str) -> str:
    """Who leads with which weights, in sentences."""
    ranges = leads(found)
    if not ranges:
        return "Nobody has a score and all costs, so there is no trade-off score."
    told = [f"{listed(one.names)} from {100 * one.low:.3g} % to {100 * one.high:.3g} %" for one in ranges]
    scores = [f"{name} {one.trade_off():.2f}" for name, one in found.items() if one.is_known]
    return (
        f"Highest trade-off score by the share of the weight on costs, the rest being on {label}: {'; '.join(told)}. "
        f"With the published weights: {', '.join(scores)}."
    )


def draw_trade_off(found: Mapping[str, Relative], *, label: str, look: Mapping[str, Look] | None = None) -> Figure:
    """A line for each contestant, from all weight on the score (left) to all on the costs (right).

    Whatever the weights, 2 is the best that there can be, as with the published ones. Contestants of which a number is
    not known are named below.
    """
    known, looks_of = {name: one for name, one in found.items() if one.is_known}, look or looks(found)
    names = short(known, _NAME)
    num_costs = max((len(one.costs) for one in known.values()), default=2)
    with styled():
        right = 0.35 + widest_in(Figure(), names.values(), SMALL)
        note = unknown_note([name for name in found if name not in known], "score or costs")
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT + note_in(note)))
        axes = axes_in(figure, left=0.6, right=right, bottom=_FOOT + note_in(note), top=_TOP)
        low = min((end for one in known.values() for end in (one.at(0), one.at(1))), default=0.0)
        axes.set_ylim(max(0.0, low - 0.05 * MOST), 1.03 * MOST)
        axes.set_xlim(0, 1)
        axes.axvline(cost_share(_PAPER, 1, num_costs), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for name, one in known.items():
            style = looks_of[name]
            places = (0.0, 0.25, 0.5, 0.75, 1.0)
            axes.plot(
                places,
                [one.at(place) for place in places],
                color=style.colour,
                marker=style.marker,
                markersize=5,
                clip_on=False,
            )
        bottom, top = axes.get_ylim()
        step = (top - bottom) * (SMALL + 3) / POINTS / (_HEIGHT - _FOOT - _TOP)
        for name, place in apart({name: one.at(1) for name, one in known.items()}, step, bottom, top).items():
            axes.annotate(
                names[name],
                (1, known[name].at(1)),
                xytext=(1.05, place),
                textcoords=axes.get_yaxis_transform(),
                fontsize=SMALL,
                color=INK,
                va="center",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": MUTED,
                    "linewidth": 0.6,
                    "shrinkA": 0,
                    "shrinkB": 4,
                    "relpos": (0, 0.5),
                },
            )
        marks = {0.0: f"\nonly {label}", 1.0: "\nonly costs"}
        marks |= {cost_share(ratio, 1, num_costs): f"{ratio:g}:1" for ratio in _RATIOS}
        axes.set_xticks(list(marks), list(marks.values()), fontsize=SMALL)
        axes.set_xlabel("α₁:α₂, weight of the score to that of each cost\n(dashed: the published 2:1)", fontsize=SMALL)
        axes.set_ylabel("trade-off score (2 is best)", fontsize=TEXT)
        note_below(figure, note)
    return figure
