"""Probabilities of one class beside what was there, summed up so that a scan's need not be kept."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxelseg.geometry import Shape, Spacing

BINS = 15
"""Of equal width, as in Guo et al. 2017, arXiv:1706.04599; a probability at the edge of two counts for the upper."""
MARGIN_MM = 10.0
"""How far around the box that holds the reference's voxels the probabilities count."""
_AT_ONCE = 1 << 18
Box = tuple[slice, slice, slice]
"""A part of an array (D, H, W)."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities of one class beside what was there, summed over voxels."""

    counts: npt.NDArray[np.int64]
    """(BINS,): voxels whose probability lies in the bin."""
    positives: npt.NDArray[np.int64]
    """(BINS,): those of them that are of the class."""
    probabilities: npt.NDArray[np.float64]
    """(BINS,): sum of their probabilities."""
    squared_errors: float
    """Sum over all voxels of the squared difference of the probability from 1, or from 0 outside the class."""


def reliability(probabilities: npt.NDArray[np.floating], of_class: npt.NDArray[np.bool_]) -> Reliability:
    """Sums over the voxels of two arrays of one shape: probabilities in [0, 1], and whether voxels are of the class."""
    counts, positives = np.zeros((2, BINS), np.int64)
    sums, squares = np.zeros(BINS), 0.0
    values, truths = probabilities.reshape(-1), of_class.reshape(-1)
    for start in range(0, values.size, _AT_ONCE):  # bins and double precision take 32 bytes a voxel
        value, truth = values[start : start + _AT_ONCE].astype(np.float64), truths[start : start + _AT_ONCE]
        bins = np.minimum((value * BINS).astype(np.intp), BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
        positives += np.bincount(bins[truth], minlength=BINS)
        sums += np.bincount(bins, weights=value, minlength=BINS)
        squares += float(np.square(value - truth).sum())
    return Reliability(counts, positives, sums, squares)


def judged_box(found: Box, shape: Shape, spacing_mm: Spacing) -> Box:
    """The part of an image of `shape` (D, H, W) whose probabilities count.

    It is `found`, the smallest box that holds the reference's voxels of the class, wider by `MARGIN_MM` on each side;
    the whole image if that is empty. So it is the same for all predictions.
    """
    if found[0].start == found[0].stop:
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    d, h, w = (
        slice(max(side.start - math.ceil(MARGIN_MM / step), 0), min(side.stop + math.ceil(MARGIN_MM / step), size))
        for side, size, step in zip(found, shape, spacing_mm, strict=True)
    )
    return d, h, w
