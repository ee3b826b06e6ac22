"""Names beside the points of a scatter, placed so that they cover neither points nor each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from voxelseg.report.curves import INK, MUTED
from voxelseg.report.figures.look import POINTS, SMALL, text_size_in

_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)
"""Degrees in which a label may lie from its point, the best ones first."""
_DISTANCES = (3.0, 9.0, 17.0, 27.0, 40.0, 56.0, 76.0, 100.0)
"""Points between the rim of a marker and its label; from the second on a line joins them."""
_ROUNDS = 3
"""How often each label is placed again in view of all others."""
_GAP = 1.5
"""Points that are kept free around a label."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""
Place = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """What gets a label."""

    x: float
    y: float
    text: str
    radius: float = 4.0
    """Of its marker, in points."""
    colour: str = INK
    """Of the text."""


@dataclass(frozen=True)
class _Candidate:
    """A place for a label."""

    box: Box
    start: Place
    """Of the line that joins it: the middle of the marker."""
    end: Place
    cost: float
    """For itself: far away is worse, and some directions are."""
    is_joined: bool


@dataclass
class _Scene:
    """What labels must not cover, and where the labels are so far."""

    bounds: Box
    markers: npt.NDArray[np.float64]
    """(markers, 4): there may be hundreds, of which each place looks at all."""
    lines: Sequence[tuple[Place, Place]]
    placed: dict[int, _Candidate] = field(default_factory=dict)

    def place(self, number: int, candidates: Sequence[_Candidate]) -> None:
        """Put label `number` where it disturbs least."""
        self.placed[number] = min(candidates, key=lambda one: self.cost(number, one))

    def cost(self, number: int, candidate: _Candidate) -> float:
        """How bad a place is for label `number`: what it covers weighs most."""
        others = [one for other, one in self.placed.items() if other != number]
        cost = candidate.cost + 40 * _outside(candidate.box, self.bounds)
        cost += 20 * _overlaps(candidate.box, self.markers)
        cost += sum(40 * _overlap(candidate.box, one.box) for one in others)
        cost += sum(60 * _meets(*line, candidate.box) for line in self.lines)
        for one in others:
            cost += 300 * (candidate.is_joined and _meets(candidate.start, candidate.end, one.box))
            cost += 300 * (one.is_joined and _meets(one.start, one.end, candidate.box))
            cost += 200 * (candidate.is_joined and one.is_joined and _cross(candidate, one))
        if candidate.is_joined:
            crossed = np.delete(self.markers, number, axis=0)
            cost += 100 * _num_met(candidate.start, candidate.end, crossed)
        return cost


def place_labels(
    axes: Axes,
    points: Sequence[Point],
    *,
    others: Sequence[Point] = (),
    lines: Sequence[Sequence[Place]] = (),
    size: float = SMALL,
) -> None:
    """Write the text of each point beside it, with a thin line where it had to go further away.

    `others` are markers without a label and `lines` what is drawn through the places given: labels keep off both. The
    limits of the axes must be set. The same points always give the same places: each label takes the place that covers
    least, those with the most neighbours first, and all are placed again a few times. Several labels of one point stand
    beside each other.
    """
    figure = axes.figure.figure
    scale = POINTS / figure.dpi
    middles = [_middle(axes, point.x, point.y, scale) for point in points]
    sizes = [text_size_in(figure, point.text, size) for point in points]
    room = [float(end) * scale for end in axes.get_window_extent().extents]
    scene = _Scene(
        bounds=(room[0], room[1], POINTS * figure.get_figwidth() - 2, room[3] + 6),
        markers=np.array(
            [_around(_middle(axes, point.x, point.y, scale), point.radius) for point in (*points, *others)]
        ).reshape(-1, 4),
        lines=[
            (_middle(axes, *start, scale), _middle(axes, *end, scale))
            for line in lines
            for start, end in pairwise(line)
        ],
    )
    candidates = [
        _candidates(middle, (POINTS * width, POINTS * height), point.radius)
        for middle, (width, height), point in zip(middles, sizes, points, strict=True)
    ]
    for _ in range(_ROUNDS):
        for number in _crowded_first(middles):
            scene.place(number, candidates[number])
    for number, point in enumerate(points):
        _write(axes, point, scene.placed[number], scale=1 / scale, size=size)


def _middle(axes: Axes, x: float, y: float, scale: float) -> Place:
    """Where something is drawn, in points of the figure."""
    right, up = axes.transData.transform((x, y))
    return float(right) * scale, float(up) * scale


def _around(middle: Place, radius: float) -> Box:
    return middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius


def _crowded_first(middles: Sequence[Place]) -> list[int]:
    def neighbours(number: int) -> int:
        return sum(math.dist(middles[number], other) < 60 for other in middles)

    return sorted(range(len(middles)), key=lambda number: (-neighbours(number), middles[number]))


def _candidates(middle: Place, size: Place, radius: float) -> list[_Candidate]:
    """Places around a point, near ones first."""
    (x, y), (width, height) = middle, size
    found = []
    for ring, distance in enumerate(_DISTANCES):
        for order, degrees in enumerate(_ANGLES):
            right, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            reach = radius + distance
            # The label touches the circle with the corner or edge that faces the point.
            left = x + reach * right - width * (1 - right) / 2
            bottom = y + reach * up - height * (1 - up) / 2
            box = (left, bottom, left + width, bottom + height)
            end = (min(max(x, left), left + width), min(max(y, bottom), bottom + height))
            found.append(_Candidate(box, middle, end, 2 * distance + order, ring > 0))
    return found


def _write(axes: Axes, point: Point, chosen: _Candidate, *, scale: float, size: float) -> None:
    left, bottom, _, top = (one * scale for one in chosen.box)
    x, y = axes.transData.inverted().transform((left, (bottom + top) / 2))
    axes.text(x, y, point.text, fontsize=size, color=point.colour, ha="left", va="center", clip_on=False, zorder=5)
    if chosen.is_joined:
        ends = axes.transData.inverted().transform([[one * scale for one in end] for end in (chosen.start, chosen.end)])
        axes.plot(*ends.T, color=MUTED, linewidth=0.6, zorder=1.5, marker="", clip_on=False)


def _overlap(one: Box, other: Box) -> float:
    """Common area, in square points, with the gap that is kept free."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + _GAP
    height = min(one[3], other[3]) - max(one[1], other[1]) + _GAP
    return max(width, 0.0) * max(height, 0.0)


def _overlaps(one: Box, others: npt.NDArray[np.float64]) -> float:
    """Sum of `_overlap` with many boxes (boxes, 4)."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2]) + _GAP  # width and height
    return float(np.maximum(sides, 0).prod(axis=1).sum())


def _outside(box: Box, bounds: Box) -> float:
    """How far a box reaches out of the bounds, in points, times its height."""
    beyond = (bounds[0] - box[0], bounds[1] - box[1], box[2] - bounds[2], box[3] - bounds[3])
    return sum(max(one, 0.0) for one in beyond) * (box[3] - box[1])


def _meets(start: Place, end: Place, box: Box) -> bool:
    """Whether a straight line goes through a box: what of it lies between the box's sides, and its ends, in common."""
    first, last = 0.0, 1.0
    for axis in (0, 1):
        step = end[axis] - start[axis]
        if abs(step) < 1e-9:
            if not box[axis] < start[axis] < box[axis + 2]:
                return False
        else:
            ways = sorted(((box[axis] - start[axis]) / step, (box[axis + 2] - start[axis]) / step))
            first, last = max(first, ways[0]), min(last, ways[1])
    return first < last


def _num_met(start: Place, end: Place, boxes: npt.NDArray[np.float64]) -> int:
    """Of many boxes (boxes, 4), how many a straight line goes through, as `_meets` says of one."""
    low, high = np.minimum(start, end), np.maximum(start, end)
    near = ((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(axis=1)
    return sum(_meets(start, end, tuple(box)) for box in boxes[near].tolist())


def _cross(one: _Candidate, other: _Candidate) -> bool:
    def side(a: Place, b: Place, c: Place) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    return (
        side(one.start, one.end, other.start) * side(one.start, one.end, other.end) < 0
        and side(other.start, other.end, one.start) * side(other.start, other.end, one.end) < 0
    )


def apart(places: Mapping[str, float], distance: float, low: float, high: float) -> dict[str, float]:
    """Places along a line, moved as little as possible to be `distance` apart, in their order and within two ends.

    If there is no room for all within the ends, they begin at the low end and go beyond the high one.
    """
    order = sorted(places, key=lambda name: places[name])
    groups: list[list[float]] = []  # of what must stand together, where each would put the first of all
    for number, name in enumerate(order):
        groups.append([places[name] - number * distance])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    firsts = [fmean(group) for group in groups for _ in group]
    most = max(high - (len(order) - 1) * distance, low)
    return {
        name: min(max(first, low), most) + number * distance
        for number, (name, first) in enumerate(zip(order, firsts, strict=True))
    }
