"""Exact distances from points of a grid to the nearest points of another set on it, where most of them are short.

Surfaces of a prediction and its reference mostly lie a few voxels apart. So each point first looks, nearest places
first, whether the other set has a point there; the few that find none within reach ask a k-d tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from voxelseg.geometry import Shape, Spacing

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
_LOOKED_AT = 256
"""Places that a point looks at, about. From 64 to 1024 the organs of `benchmarks/metrics.py` take the same time."""


@dataclass(frozen=True)
class Shell:
    """All places at one distance from a point."""

    distance_mm: float
    offsets_dhw: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Points:
    """A set of points of a grid whose sides are `shape`."""

    marked: Flags
    """One flag for each place of the grid, flattened."""
    places: Places
    """Flat places of the points, ascending."""
    shape: Shape
    """Its rim, as wide as `margins` says, holds no point, so that a look beyond one end of a row finds none."""


@lru_cache(maxsize=64)
def shells(spacing_mm: Spacing) -> tuple[Shell, ...]:
    """The nearest places of a grid around a point, nearest first and none left out within their reach."""
    reach_mm = (_LOOKED_AT * float(np.prod(spacing_mm)) * 3 / (4 * np.pi)) ** (1 / 3)  # of a ball with as many voxels
    steps = [np.arange(-int(reach_mm / step), int(reach_mm / step) + 1) for step in spacing_mm]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = lengths_mm(offsets, spacing_mm)
    found = []
    for distance in np.unique(distances[distances <= reach_mm]):
        at = tuple((int(d), int(h), int(w)) for d, h, w in offsets[distances == distance])
        found.append(Shell(float(distance), at))
    return tuple(found)


def margins(spacing_mm: Spacing) -> tuple[int, int, int]:
    """How far, in voxels along D, H, W, the places of `shells` are from their point at most; at least 1."""
    offsets = np.array([offset for shell in shells(spacing_mm) for offset in shell.offsets_dhw])
    d, h, w = np.maximum(np.abs(offsets).max(axis=0), 1).tolist()
    return d, h, w


def lengths_mm(offsets: npt.NDArray[np.intp], spacing_mm: Spacing) -> Floats:
    """Lengths (N,) in mm of offsets (N, 3) in voxels along D, H, W."""
    scaled = offsets * np.asarray(spacing_mm, np.float64)
    lengths: Floats = np.sqrt(np.square(scaled).sum(axis=1))
    return lengths


def nearest_mm(points: Points, others: Points, spacing_mm: Spacing) -> Floats:
    """Distance (N,) in mm of each of `points` to the nearest of `others`, on the same grid; none of them is empty."""
    found = np.empty(points.places.size)
    waiting, places = np.arange(points.places.size), points.places
    for shell in shells(spacing_mm):
        hits = _any_marked(others, places, shell.offsets_dhw)
        found[waiting[hits]] = shell.distance_mm
        missed = ~hits
        waiting, places = waiting[missed], places[missed]
        if not waiting.size:
            return found
    found[waiting] = _by_tree(places, others, spacing_mm)
    return found


def _any_marked(others: Points, places: Places, offsets_dhw: Sequence[tuple[int, int, int]]) -> Flags:
    """Whether any of `others` lies at one of the offsets from each place."""
    _, height, width = others.shape
    flat = [(d * height + h) * width + w for d, h, w in offsets_dhw]
    hits = others.marked.take(places + flat[0])
    for offset in flat[1:]:
        hits |= others.marked.take(places + offset)
    return hits


def _by_tree(places: Places, others: Points, spacing_mm: Spacing) -> Floats:
    """As `nearest_mm`, of points at `places`, by a k-d tree."""
    here, there = (np.stack(np.unravel_index(one, others.shape), axis=1) for one in (places, others.places))
    tree = cKDTree(there * np.asarray(spacing_mm), leafsize=32, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(here * np.asarray(spacing_mm))[1]
    return lengths_mm(here - there[nearest], spacing_mm)
