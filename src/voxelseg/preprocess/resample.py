"""Resampling to another number of voxels, one matrix per axis.

Interpolation along one axis is linear in the voxel values, so it is a matrix; a volume is resampled by three matrix
products. The matrices are those of spline interpolation between voxel centres with repeated borders, as in nnU-Net
(skimage.transform.resize, mode "edge"), and give the same values about seven times faster.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from voxelseg.geometry import Shape

Float = npt.NDArray[np.float32]


@lru_cache(maxsize=256)
def resampling_matrix(size: int, new_size: int, order: int) -> Float:
    """Matrix (new_size, size) that resamples a line of voxels by splines of `order` (0 nearest, 1 linear, 3 cubic).

    Both lines cover the same length; positions beyond the outer voxel centres repeat the border voxel.
    """
    if size == new_size:
        return np.eye(size, dtype=np.float32)
    scale = size / new_size
    matrix: Float = ndimage.affine_transform(
        np.eye(size),
        (scale, 1.0),
        offset=(0.5 * scale - 0.5, 0.0),
        output_shape=(new_size, size),
        order=order if size > 1 else 0,
        mode="nearest",
    ).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resample(array: npt.NDArray[Any], shape: Sequence[int], orders: tuple[int, int, int]) -> Float:
    """`array` (..., D, H, W) resampled to `shape` with a spline order for each axis; float32."""
    result = array.astype(np.float32, copy=False)
    lead = array.ndim - 3
    # Shrinking axes first keeps the intermediate arrays small.
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[lead + axis]):
        if result.shape[lead + axis] == shape[axis]:
            continue
        matrix = resampling_matrix(result.shape[lead + axis], int(shape[axis]), orders[axis])
        moved = np.moveaxis(result, lead + axis, -2) if axis < 2 else result
        product = matrix @ moved if axis < 2 else moved @ matrix.T
        result = np.moveaxis(product, -2, lead + axis) if axis < 2 else product
    return np.ascontiguousarray(result)


def orders_for(order: int, *, anisotropic: bool) -> tuple[int, int, int]:
    """Spline order along D, H, W: nearest neighbour along an anisotropic D, where in-between slices are guesswork."""
    return (0 if anisotropic else order, order, order)


def resample_labels(
    label: npt.NDArray[Any], shape: Sequence[int], *, anisotropic: bool, values: Iterable[int] | None = None
) -> npt.NDArray[Any]:
    """Label map (D, H, W) resampled to `shape`: each class is interpolated linearly and the strongest wins.

    Thin structures survive better than with nearest neighbour, and no value appears that was not there.
    """
    if tuple(shape) == label.shape:
        return label.copy()
    present = np.unique(label) if values is None else np.asarray(sorted(values))
    target: Shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    best = np.full(target, -1.0, dtype=np.float32)
    result = np.zeros(target, dtype=label.dtype)
    for value in present:
        share = resample(label == value, target, orders_for(1, anisotropic=anisotropic))
        wins = share > best
        best[wins] = share[wins]
        result[wins] = value
    return result
