"""Volume of each class against its score, and against the difference of two contestants (E2ENet, Figs. 14-16)."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.compare.organ_volume import rank_correlation
from voxelseg.report.curves import CYCLE, INK, MUTED, styled
from voxelseg.report.figures.labels import Point, place_labels
from voxelseg.report.figures.look import (
    SMALL,
    STEPS,
    TEXT,
    WIDTH_IN,
    Estimate,
    Look,
    axes_in,
    looks,
    name_legend,
    note_below,
    note_in,
    padded,
    short,
    unknown_note,
)
from voxelseg.report.figures.pareto import amount, cost_axis

_HEIGHT = 3.8
_NAME = 18
"""Characters of a class."""
_MOST_NAMED = 30
"""Classes: the names of a hundred hide the points, and take long to place."""

Volumes = Mapping[str, float]
"""Class -> mean volume in ml; NaN where it is not known."""


def describe_volume_scores(volumes_ml: Volumes, scores: Mapping[str, Mapping[str, float]], *, label: str) -> str:
    """How volume and score go together for each contestant, in sentences."""
    known = _known(volumes_ml)
    told = [f"{name}: {rank_correlation(known, one).in_words()}" for name, one in scores.items()]
    return f"{label} of each class against its volume, {_range(known)}. {'; '.join(told) or 'Nobody has scores'}."


def draw_volume_scores(
    volumes_ml: Volumes,
    scores: Mapping[str, Mapping[str, float]],
    *,
    label: str,
    unit: str = "",
    look: Mapping[str, Look] | None = None,
) -> Figure:
    """A point for each class and contestant over the class's volume; a thin line joins those of one class.

    `scores` is contestant -> class -> mean. Classes of unknown volume, or without a score, are named below. Of more
    than 30 classes only those whose best value is lowest have their names beside them.
    """
    known, looks_of = _known(volumes_ml), look or looks(scores)
    of_class = {name: {who: one.get(name, math.nan) for who, one in scores.items()} for name in known}
    drawn = {name: one for name, one in of_class.items() if any(math.isfinite(value) for value in one.values())}
    names = short(drawn, _NAME)
    with styled():
        unknown = unknown_note([name for name in volumes_ml if name not in drawn], "volume or score")
        note = "\n".join(text for text in (unknown, _named_note(len(drawn), "lowest best values")) if text)
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT))
        legend_in = name_legend(figure, {name: looks_of[name] for name in scores})
        axes = axes_in(figure, left=0.8, right=0.25, bottom=0.6 + note_in(note), top=0.15 + legend_in)
        cost_axis(axes, (known[name] for name in drawn))
        axes.set_ylim(*padded((value for one in drawn.values() for value in one.values()), 0.15))
        points = []
        for name, one in drawn.items():
            finite = {who: value for who, value in one.items() if math.isfinite(value)}
            axes.plot([known[name]] * len(finite), list(finite.values()), color=MUTED, linewidth=0.7, zorder=1)
            for who, value in finite.items():
                _mark(axes, known[name], value, looks_of[who])
            points.append(Point(known[name], max(finite.values()), names[name], radius=3.5))
        others = [Point(known[name], value, "", radius=3.5) for name, one in drawn.items() for value in one.values()]
        named = sorted(points, key=lambda one: one.y)[:_MOST_NAMED]
        place_labels(axes, named, others=[one for one in others if math.isfinite(one.y)])
        _finish(axes, f"{label} ({unit})" if unit else label)
        note_below(figure, note)
    return figure


def describe_volume_differences(
    volumes_ml: Volumes, differences: Mapping[str, Estimate], *, ours: str, theirs: str, label: str
) -> str:
    """How volume and difference go together, in sentences."""
    known = _known(volumes_ml)
    found = rank_correlation(known, {name: one.mean for name, one in differences.items()})
    told = [f"{name} {one.mean:+.3f}" for name, one in differences.items() if not math.isnan(one.mean)]
    return (
        f"{label} of {ours} minus {theirs} for each class against its volume, {_range(known)}: {found.in_words()}. "
        f"{', '.join(told) or 'No class has a difference'}."
    )


def draw_volume_differences(
    volumes_ml: Volumes, differences: Mapping[str, Estimate], *, ours: str, theirs: str, label: str, unit: str = ""
) -> Figure:
    """Difference ours minus theirs of each class over its volume, with intervals; filled where these leave out 0.

    Of more than 30 classes only those with the largest differences have their names beside them.
    """
    known = _known(volumes_ml)
    drawn = {name: differences[name] for name in known if not math.isnan(_mean(differences, name))}
    names, pair = short(drawn, _NAME), short([ours, theirs])
    with styled():
        unknown = unknown_note([name for name in volumes_ml if name not in drawn], "volume or difference")
        note = "\n".join(text for text in (unknown, _named_note(len(drawn), "largest differences")) if text)
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT))
        axes = axes_in(figure, left=0.8, right=0.25, bottom=0.6 + note_in(note), top=0.4)
        cost_axis(axes, (known[name] for name in drawn))
        axes.set_ylim(*padded([0.0, *(end for one in drawn.values() for end in (one.mean, one.low, one.high))], 0.12))
        axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
        for name, one in drawn.items():
            clear = one.has_interval and (one.low > 0 or one.high < 0)
            if one.has_interval:
                axes.plot([known[name]] * 2, [one.low, one.high], color=CYCLE[0], linewidth=1.2, zorder=1.2)
            filling = CYCLE[0] if clear else "white"
            axes.plot([known[name]], [one.mean], marker="o", color=CYCLE[0], markerfacecolor=filling, markersize=6.5)
        bars = [[(known[name], one.low), (known[name], one.high)] for name, one in drawn.items() if one.has_interval]
        order = sorted(drawn.items(), key=lambda item: -abs(item[1].mean))
        points = [Point(known[name], one.mean, names[name], radius=4) for name, one in order]
        lines = [*bars, [(axes.get_xlim()[0], 0.0), (axes.get_xlim()[1], 0.0)]]
        place_labels(axes, points[:_MOST_NAMED], others=points[_MOST_NAMED:], lines=lines)
        _finish(axes, f"difference in {label} ({unit})" if unit else f"difference in {label}")
        title = f"{pair[ours]} − {pair[theirs]}"
        axes.text(0, 1.02, title, transform=axes.transAxes, fontsize=TEXT, color=INK, va="bottom")
        note_below(figure, note)
    return figure


def _named_note(num_classes: int, which: str) -> str:
    return f"Named: the {_MOST_NAMED} classes with the {which}." if num_classes > _MOST_NAMED else ""


def _known(volumes_ml: Volumes) -> dict[str, float]:
    return {name: volume for name, volume in volumes_ml.items() if math.isfinite(volume) and volume > 0}


def _mean(differences: Mapping[str, Estimate], name: str) -> float:
    return differences[name].mean if name in differences else math.nan


def _mark(axes: Axes, volume: float, value: float, look: Look) -> None:
    axes.plot([volume], [value], marker=look.marker, color=look.colour, markersize=6.5, zorder=3)


def _range(known: Volumes) -> str:
    if not known:
        return "which is not known"
    return f"{amount(min(known.values()))} to {amount(max(known.values()))} ml"


def _finish(axes: Axes, label: str) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
    axes.set_ylabel(label, fontsize=TEXT)
    axes.set_xlabel("mean volume of the reference (ml)", fontsize=SMALL + 1)
