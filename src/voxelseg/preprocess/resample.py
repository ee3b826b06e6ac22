"""Resampling to another number of voxels, one matrix per axis.

Interpolation along one axis is linear in the voxel values, so it is a matrix; a volume is resampled by three matrix
products. The matrices are those of spline interpolation between voxel centres with repeated borders, as in nnU-Net
(skimage.transform.resize, mode "edge", no anti-aliasing), and give the same values more than twenty times faster.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int16]


@lru_cache(maxsize=16)  # a case needs fewer; one matrix of a long axis is some megabytes
def resampling_matrix(size: int, new_size: int, order: int) -> Float:
    """Matrix (new_size, size) that resamples a line of voxels by splines of `order` (0 nearest, 1 linear, 3 cubic).

    Both lines cover the same length; positions beyond the outer voxel centres repeat the border voxel.
    """
    positions = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    grid = np.meshgrid(positions, np.arange(size), indexing="ij")
    values = ndimage.map_coordinates(np.eye(size), grid, order=order if size > 1 else 0, mode="nearest")
    matrix: Float = values.astype(np.float32)
    matrix.setflags(write=False)  # the cache hands out the same array again
    return matrix


def orders_for(order: int, *, coarse_axis: int | None) -> tuple[int, int, int]:
    """Spline order along D, H, W: nearest neighbour along a coarse axis, where in-between slices are guesswork."""
    d, h, w = (0 if axis == coarse_axis else order for axis in range(3))
    return (d, h, w)


def resample(array: npt.NDArray[Any], shape: Sequence[int], orders: tuple[int, int, int]) -> Float:
    """`array` (..., D, H, W) resampled to `shape` with a spline order for each axis; float32.

    An array that has the shape and type already is returned as it is, without a copy.
    """
    return _product(array, _matrices(array.shape[-3:], shape, orders))


def _matrices(shape: Sequence[int], new_shape: Sequence[int], orders: Sequence[int]) -> list[Float | None]:
    """One matrix per axis, None along axes that stay as they are."""
    return [
        None if size == new_size else resampling_matrix(int(size), int(new_size), order)
        for size, new_size, order in zip(shape, new_shape, orders, strict=True)
    ]


def _product(array: npt.NDArray[Any], matrices: Sequence[Float | None]) -> Float:
    result = array.astype(np.float32, copy=False)
    given = [(matrix, array.ndim - 3 + axis) for axis, matrix in enumerate(matrices) if matrix is not None]
    # Shrinking axes first keeps the intermediate arrays small.
    for matrix, axis in sorted(given, key=lambda one: one[0].shape[0] / one[0].shape[1]):
        before, after = result.shape[:axis], result.shape[axis + 1 :]
        if after:
            result = matrix @ result.reshape(prod(before), matrix.shape[1], prod(after))
        else:
            result = result.reshape(prod(before), matrix.shape[1]) @ matrix.T
        result = result.reshape(*before, matrix.shape[0], *after)
    return result


def resample_labels(label: Labels, shape: Sequence[int], *, coarse_axis: int | None) -> Labels:
    """Label map (D, H, W) resampled to `shape`: each value is interpolated linearly and the strongest wins.

    Ties go to the higher value, so that foreground wins against background. Thin structures survive better than with
    nearest neighbour, and no value appears that was not there.
    """
    if tuple(shape) == label.shape:
        return label
    matrices = _matrices(label.shape, shape, orders_for(1, coarse_axis=coarse_axis))
    lowest = int(label.min())
    result = np.zeros(shape, dtype=np.int16)
    strongest = np.zeros(shape, dtype=np.float32)
    # Values are looked at inside their bounding boxes only: what lies outside gets nothing of them.
    boxes = ndimage.find_objects(label - (lowest - 1))
    for value, box in enumerate(boxes, start=lowest):
        if box is None:
            continue
        columns = [None if m is None else m[:, part] for m, part in zip(matrices, box, strict=True)]
        reached = [part if m is None else _nonzero_rows(m) for m, part in zip(columns, box, strict=True)]
        rows = [None if m is None else m[part] for m, part in zip(columns, reached, strict=True)]
        share = _product(label[box] == value, rows)
        place = (reached[0], reached[1], reached[2])
        wins = (share >= strongest[place]) & (share > 0)
        np.copyto(strongest[place], share, where=wins)
        np.copyto(result[place], np.int16(value), where=wins)
    return result


def _nonzero_rows(matrix: Float) -> slice:
    (rows,) = np.nonzero(matrix.any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows.size else slice(0, 0)
