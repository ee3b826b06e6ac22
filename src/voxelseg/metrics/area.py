"""Metrics of the distance between two surfaces in which each piece of surface counts with its area.

They are those of Nikolov et al. 2018 (arXiv:1809.04430) and of its package `surface-distance`. A surface runs between
foreground and background voxels; everything outside the image is background. Its pieces lie at the corners at which
both meet: the triangles that marching cubes lays between the eight voxels around a corner. Distances are between such
corners, in mm.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from voxelseg.geometry import Spacing
from voxelseg.metrics.nearest import Floats
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.surface import within

_PERCENTILE = 0.95


def area_surface_dice(pair: MaskPair, *, tolerance_mm: float) -> float:
    """Share of the area of both surfaces lying within `tolerance_mm` of the other surface, in [0, 1].

    Both masks empty: NaN. Exactly one empty: 0. Raises ConfigError for an impossible tolerance.
    Source: Nikolov et al. 2018, arXiv:1809.04430.
    """
    within_reach = within(tolerance_mm)
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return 0.0
    pieces = _pieces(pair)
    near = sum(float(areas[distances <= within_reach].sum()) for distances, areas in pieces)
    return near / sum(float(areas.sum()) for _, areas in pieces)


def area_hd95_mm(pair: MaskPair) -> float:
    """95th percentile Hausdorff distance in mm, each direction's percentile being one of the surface's area.

    It is the shortest distance within which at least 95 % of the area lies, and the larger of both directions.
    Both masks empty: NaN. Exactly one empty: the diagonal of the image.
    Source: "robust Hausdorff distance" of the package `surface-distance` of Nikolov et al. 2018, arXiv:1809.04430.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return max(_percentile(distances, areas) for distances, areas in _pieces(pair))


def area_masd_mm(pair: MaskPair) -> float:
    """Mean average surface distance in mm: mean over both directions of the mean distance over the surface's area.

    Both masks empty: NaN. Exactly one empty: the diagonal of the image.
    Source: "average surface distance" of the package `surface-distance` of Nikolov et al. 2018, arXiv:1809.04430,
    which gives the directions one by one.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return float(np.mean([distances @ areas / areas.sum() for distances, areas in _pieces(pair)]))


def _percentile(distances: Floats, areas: Floats) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(areas[order])
    place = int(np.searchsorted(reached / reached[-1], _PERCENTILE))
    return float(distances[order[min(place, order.size - 1)]])


def _pieces(pair: MaskPair) -> list[tuple[Floats, Floats]]:
    """Of the reference's surface, then the prediction's: distance in mm of each piece to the other, and its area."""
    table = areas_mm2(pair.spacing_mm)
    return [(distances, table[codes]) for distances, codes in pair.corner_distances_mm]


@lru_cache(maxsize=64)
def areas_mm2(spacing_mm: Spacing) -> Floats:
    """(256,): area of the triangles that marching cubes lays at a corner, by the code of the voxels around it.

    Codes are those of `Padded.corners`. Of more than four foreground voxels, it is the area of the background's.
    """
    found = np.zeros(256)
    for code, triangles in _triangles().items():
        first, second, third = np.moveaxis(triangles * np.asarray(spacing_mm), 1, 0)
        found[code] = found[255 - code] = np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2
    return found


@lru_cache(maxsize=1)
def _triangles() -> dict[int, npt.NDArray[np.float64]]:
    """Code with one to four foreground voxels -> triangles (N, 3 points, 3 coordinates along D, H, W) in voxels."""
    from skimage.measure import marching_cubes  # takes a while, and only evaluations need it

    found = {}
    for code in range(1, 255):
        voxels = np.array([code >> bit & 1 for bit in range(8)], np.float32).reshape(2, 2, 2)
        if voxels.sum() <= 4:
            points, corners, _, _ = marching_cubes(voxels, 0.5, method="lorensen")
            found[code] = points[corners].astype(np.float64)
    return found
