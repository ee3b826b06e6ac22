"""One figure: Dice against the share of labels, a line for each start, and the differences from scratch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxelseg.files import atomic_path
from voxelseg.report.curves import CYCLE, INK, MUTED, STYLE
from voxelseg.statistics.paired import ALL_SEEDS
from voxelseg.study.results import Study
from voxelseg.study.starts import SCRATCH
from voxelseg.study.tables import FIGURE_NAME

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SPREAD = 0.44
"""Of the starts beside each other, where the distance of two shares is 1."""
_DPI = 200


def write_figure(study: Study) -> list[Path]:
    """Write the figure as PNG and as SVG into the study's folder; returns their paths."""
    figure = draw(study)
    paths = [study.design.folder / f"{FIGURE_NAME}{suffix}" for suffix in (".png", ".svg")]
    for path in paths:
        with atomic_path(path) as temporary, rc_context(STYLE):
            figure.savefig(temporary, dpi=_DPI, facecolor="white", metadata=_without_date(path))
    return paths


def _without_date(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix == ".svg" else {}


def draw(study: Study) -> Figure:
    """Left: mean Dice with intervals. Right: paired differences from scratch with intervals. Dots are single seeds.

    On the right only the starts that are better or worse have filled markers.
    """
    design = study.design
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.4), layout="constrained")
        dice, against = figure.subplots(1, 2)
        for start, style in _styles(study).items():
            _draw_dice(dice, study, start, style)
            if start != SCRATCH:
                _draw_differences(against, study, start, style)
        against.axhline(0, color=INK, linewidth=1.2)
        titles = (
            "Mean Dice\nBars: 95 % over patients. Dots: seeds",
            f"Difference from {SCRATCH}, paired by case\nFilled: better or worse. Hollow: not told apart",
        )
        for axes, title in zip((dice, against), titles, strict=True):
            axes.set_title(title, fontsize=12, loc="left", color=INK)
            axes.set_xticks(
                range(len(design.shares)), [f"{share:g} %\n{study.cases_in_words(share)}" for share in design.shares]
            )
            axes.set_xlim(-0.5, len(design.shares) - 0.5)
            axes.set_xlabel("training cases with labels")
        handles, names = dice.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
    return figure


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """Colour, marker and place beside the others of each start: markers differ too, for any eye and for grey prints."""
    names = [start.name for start in study.design.starts]
    offsets = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(names))
    colours = {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(one for one in names if one != SCRATCH)}
    return {
        name: {"color": colours.get(name, MUTED), "marker": _MARKERS[place % len(_MARKERS)], "offset": offset}
        for place, (name, offset) in enumerate(zip(names, offsets, strict=True))
    }


def _draw_dice(axes: Axes, study: Study, start: str, style: Mapping[str, Any]) -> None:
    points = [study.point(start, share) for share in study.design.shares]
    finished = {place + style["offset"]: point for place, point in enumerate(points) if point.by_seed}
    means = [point.mean for point in finished.values()]
    ends = [(point.interval.low, point.interval.high) for point in finished.values()]
    line = {"linestyle": "--" if start == SCRATCH else "-", "linewidth": 1.2}
    _draw_line(axes, list(finished), means, ends, style, label=start, **line)
    _draw_seeds(axes, {place: list(point.means.values()) for place, point in finished.items()}, style)


def _draw_differences(axes: Axes, study: Study, start: str, style: Mapping[str, Any]) -> None:
    found = [study.comparison(start, share) for share in study.design.shares]
    finished = {place + style["offset"]: one for place, one in enumerate(found) if one is not None and one.differences}
    for place, one in finished.items():
        overall = one.differences[ALL_SEEDS]
        filled = style["color"] if one.verdict in ("better", "worse") else "white"
        look = {"linestyle": "none", "markerfacecolor": filled}
        _draw_line(axes, [place], [overall.mean], [(overall.low, overall.high)], style, **look)
    seeds = {
        place: [difference.mean for which, difference in one.differences.items() if which != ALL_SEEDS]
        for place, one in finished.items()
    }
    _draw_seeds(axes, seeds, style)


def _draw_seeds(axes: Axes, values: Mapping[float, Sequence[float]], style: Mapping[str, Any]) -> None:
    """A dot for each seed."""
    places = [place for place, of_place in values.items() for _ in of_place]
    seeds = [value for of_place in values.values() for value in of_place]
    axes.plot(places, seeds, ".", color=style["color"], markersize=3.5, alpha=0.6)


def _draw_line(
    axes: Axes,
    places: list[float],
    means: list[float],
    ends: list[tuple[float, float]],
    style: Mapping[str, Any],
    **more: Any,
) -> None:
    reach = np.abs(np.reshape(ends, (-1, 2)).T - np.array(means))
    look = {"color": style["color"], "marker": style["marker"], "markersize": 5.5, "capsize": 3, "elinewidth": 1.2}
    axes.errorbar(places, means, yerr=reach, **look, **more)
