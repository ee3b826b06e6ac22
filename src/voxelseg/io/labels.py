"""Whole numbers in label maps, however a file stores them. Goes plane by plane, so that temporary arrays stay small."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NEAR_INTEGER = 1e-3
"""A stored value this close to a whole number is rounded to it; another one is no label value."""
MOST_EXAMPLES = 5

_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "int16", "int32", "int64"))
_LARGEST_TABLE = 2  # bytes of a type whose values are counted in a table


@dataclass(frozen=True)
class Rounding:
    """How far the values of a label map are from whole numbers."""

    num_non_finite: int = 0
    """Voxels that are NaN or infinite."""
    num_off: int = 0
    """Finite voxels that are further than `NEAR_INTEGER` from a whole number."""
    furthest: float = 0.0
    """Largest distance of a finite voxel from a whole number."""
    off: tuple[float, ...] = ()
    """The lowest values of those voxels, one more than `MOST_EXAMPLES` at most."""

    @property
    def examples(self) -> str:
        """Some of the values in `off`, in words."""
        more = ", ..." if len(self.off) > MOST_EXAMPLES else ""
        return ", ".join(f"{value:g}" for value in self.off[:MOST_EXAMPLES]) + more


def rounding_of(array: Array) -> Rounding:
    """Distance of the values of an array (..., H, W) from whole numbers; none for an array of integers."""
    if array.dtype.kind in "iu":
        return Rounding()
    num_non_finite = num_off = 0
    furthest = 0.0
    off: set[float] = set()
    for plane in _planes(array):
        values = plane[np.isfinite(plane)]
        apart = np.abs(values - np.rint(values))
        far = apart > NEAR_INTEGER
        num_non_finite += plane.size - values.size
        num_off += int(np.count_nonzero(far))
        furthest = max(furthest, float(apart.max(initial=0.0)))
        off.update(np.unique(values[far])[: MOST_EXAMPLES + 1].tolist())
    return Rounding(num_non_finite, num_off, furthest, tuple(sorted(off)[: MOST_EXAMPLES + 1]))


def to_integers(array: Array) -> Array | None:
    """Array of finite numbers rounded to the smallest of uint8, uint16, int16, int32, int64; None if none holds them.

    The array itself if it is of that type.
    """
    low, high = (
        float(np.rint(value)) if array.dtype.kind == "f" else int(value) for value in (array.min(), array.max())
    )
    dtype = next((one for one in _TYPES if np.iinfo(one).min <= low and high <= np.iinfo(one).max), None)
    if dtype is None or array.dtype.kind != "f":
        return None if dtype is None else array.astype(dtype, copy=False)
    rounded = np.empty(array.shape, dtype)
    for target, plane in zip(_planes(rounded), _planes(array), strict=True):
        target[...] = np.rint(plane)
    return rounded


def values_of(array: Array) -> list[int]:
    """Distinct values of an integer array (..., H, W), in ascending order."""
    if array.dtype.itemsize > _LARGEST_TABLE:
        found: list[int] = np.unique(array).tolist()
        return found
    lowest = int(np.iinfo(array.dtype).min)
    present = np.zeros(int(np.iinfo(array.dtype).max) - lowest + 1, bool)
    for plane in _planes(array):
        present[plane.astype(np.intp) - lowest] = True
    return [index + lowest for index in np.flatnonzero(present).tolist()]


def _planes(array: Array) -> Array:
    """View (planes, H, W) of a contiguous array (..., H, W)."""
    return array.reshape(-1, *array.shape[-2:])
