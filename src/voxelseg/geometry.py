"""Voxel grids and orientation: the only place that permutes axes.

Files store voxels along axes i, j, k that may point anywhere; inside voxelseg every array is canonical, (D, H, W)
running inferior to superior, posterior to anterior, left to right (S, A, R of RAS+). Going between the two takes an
axis permutation and flips only, so no voxel value changes and the way back is exact.
Affines map voxel indices to millimetres in RAS+ world coordinates, as in NIfTI and NiBabel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.errors import DataError

Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]
Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]

HARMFUL_VOXELS = 0.5
"""Two grids whose voxels lie further apart than this share of a voxel are not the same: a label is on its neighbour."""
_WORLD_AXES_DHW = (2, 1, 0)  # superior, anterior, right among the axes of RAS+
_TIE = 1e-3


@dataclass(frozen=True)
class Orientation:
    """How to turn the file's axes (i, j, k) into (D, H, W)."""

    axes: Shape
    """File axis that becomes D, H, W."""
    flips: tuple[bool, bool, bool]
    """Whether D, H, W run against the file axis they came from."""


def orientation_of(affine_ijk: Affine) -> Orientation:
    """Orientation whose axes lie closest to superior, anterior, right; works for oblique and sheared affines.

    The choice between axes that lie equally close, as in a scan tilted by 45 degrees, does not depend on rounding, so
    an image and its label map are always turned the same way. DataError if an axis has no length or direction.
    """
    columns = np.asarray(affine_ijk, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(columns).all() or lengths.min() == 0 or abs(np.linalg.det(columns / lengths)) < 1e-6:
        raise DataError(
            f"affine {np.asarray(affine_ijk).tolist()}, expected three axes with lengths and directions of their own. "
            "Repair the scan's header."
        )
    left, _, right = np.linalg.svd(columns / lengths)
    closest_rotation = left @ right  # rows: world axes; columns: file axes
    choices = list(permutations(range(3)))
    scores = [abs(closest_rotation[_WORLD_AXES_DHW, axes]).sum() for axes in choices]
    axes = next(axes for axes, score in zip(choices, scores, strict=True) if score > max(scores) - _TIE)
    d, h, w = (bool(value < 0) for value in closest_rotation[_WORLD_AXES_DHW, axes])
    return Orientation((axes[0], axes[1], axes[2]), (d, h, w))


def to_canonical(array: Array, orientation: Orientation) -> Array:
    """View of an array (..., I, J, K) as (..., D, H, W)."""
    lead = array.ndim - 3
    moved = array.transpose(*range(lead), *(lead + axis for axis in orientation.axes))
    return _flipped(moved, orientation)


def from_canonical(array: Array, orientation: Orientation) -> Array:
    """View of an array (..., D, H, W) as (..., I, J, K): the exact inverse of `to_canonical`."""
    lead = array.ndim - 3
    back = np.argsort(orientation.axes)
    return _flipped(array, orientation).transpose(*range(lead), *(lead + int(axis) for axis in back))


def _flipped(array: Array, orientation: Orientation) -> Array:
    d, h, w = (slice(None, None, -1 if flip else 1) for flip in orientation.flips)
    view: Array = array[..., d, h, w]
    return view


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """The voxel grid of a scan as its file states it, and its canonical view.

    Carries what a written output must share with its scan: shape, affine, NIfTI sform and qform with codes, and units.
    """

    shape_ijk: Shape
    """Size along the file's own three axes."""
    affine_ijk: Affine
    """(4, 4) file voxel index to RAS+ millimetres."""
    sform: Affine | None = None
    """NIfTI sform in the file's units, None if the file has none (code 0) or the format knows none."""
    sform_code: int = 0
    qform: Affine | None = None
    """NIfTI qform in the file's units, None if the file has none (code 0), a damaged one, or the format knows none."""
    qform_code: int = 0
    units: str = "mm"
    """Unit that the file's header states: mm, m, um or unknown; `affine_ijk` is in millimetres whatever it says."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON values that writing needs: NIfTI's version and pixdim, and `num_axes` if the file has fewer than three."""

    def __post_init__(self) -> None:
        if min(self.shape_ijk) < 1:
            raise DataError(f"shape {self.shape_ijk} of a grid, expected sizes of at least 1.")
        if self.affine_ijk.shape != (4, 4) or not np.isfinite(self.affine_ijk).all():
            raise DataError(
                f"affine {self.affine_ijk.tolist()}, expected (4, 4) finite numbers. Repair the scan's header."
            )
        _ = self.orientation  # DataError here rather than at first use

    @cached_property
    def orientation(self) -> Orientation:
        """How the file's axes become D, H, W."""
        return orientation_of(self.affine_ijk)

    @property
    def shape_dhw(self) -> Shape:
        """Size along D, H, W."""
        d, h, w = self.orientation.axes
        return (self.shape_ijk[d], self.shape_ijk[h], self.shape_ijk[w])

    @property
    def spacing_mm(self) -> Spacing:
        """Distance of neighbouring voxels along D, H, W in mm."""
        lengths = np.linalg.norm(self.affine_ijk[:3, :3], axis=0)
        d, h, w = (float(lengths[axis]) for axis in self.orientation.axes)
        return (d, h, w)

    @cached_property
    def affine_dhw(self) -> Affine:
        """(4, 4) canonical voxel index (d, h, w) to RAS+ millimetres."""
        canonical_to_file = np.zeros((4, 4))
        canonical_to_file[3, 3] = 1.0
        for canonical, (axis, flip) in enumerate(zip(self.orientation.axes, self.orientation.flips, strict=True)):
            canonical_to_file[axis, canonical] = -1.0 if flip else 1.0
            canonical_to_file[axis, 3] = self.shape_ijk[axis] - 1 if flip else 0.0
        affine: Affine = self.affine_ijk @ canonical_to_file
        return affine

    def differences(self, other: "Grid", *, tolerance_voxels: float = HARMFUL_VOXELS) -> list[str]:
        """What differs between two grids, in words; empty if they are the same.

        Shape, spacing, origin and direction are compared along D, H, W. A difference counts if it moves some voxel of
        the grid by more than `tolerance_voxels` of the smallest spacing.
        """
        if self.shape_dhw != other.shape_dhw:
            return [f"shape {self.shape_dhw} against {other.shape_dhw}"]
        found: list[str] = []
        tolerance_mm = tolerance_voxels * min(self.spacing_mm)
        if any(
            abs(a - b) * size > tolerance_mm
            for a, b, size in zip(self.spacing_mm, other.spacing_mm, self.shape_dhw, strict=True)
        ):
            found.append(f"spacing {_numbers(self.spacing_mm)} against {_numbers(other.spacing_mm)} mm")
        if np.linalg.norm(self.affine_dhw[:3, 3] - other.affine_dhw[:3, 3]) > tolerance_mm:
            found.append(f"origin {_numbers(self.affine_dhw[:3, 3])} against {_numbers(other.affine_dhw[:3, 3])} mm")
        turned = _directions(self.affine_dhw) - _directions(other.affine_dhw)
        reach = turned * (np.asarray(self.shape_dhw) * np.asarray(self.spacing_mm))
        if np.linalg.norm(reach, axis=0).max() > tolerance_mm:
            angles = np.degrees(
                np.arccos(np.clip((_directions(self.affine_dhw) * _directions(other.affine_dhw)).sum(0), -1, 1))
            )
            found.append(f"direction of D, H, W turned by {_numbers(angles)} degrees")
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` restores it exactly."""
        return {
            "shape_ijk": list(self.shape_ijk),
            "affine_ijk": self.affine_ijk.tolist(),
            "sform": None if self.sform is None else self.sform.tolist(),
            "sform_code": self.sform_code,
            "qform": None if self.qform is None else self.qform.tolist(),
            "qform_code": self.qform_code,
            "units": self.units,
            "extra": self.extra,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Grid":
        """Grid from its JSON form."""
        i, j, k = value["shape_ijk"]
        return cls(
            shape_ijk=(i, j, k),
            affine_ijk=np.asarray(value["affine_ijk"], dtype=np.float64),
            sform=None if value["sform"] is None else np.asarray(value["sform"], dtype=np.float64),
            sform_code=value["sform_code"],
            qform=None if value["qform"] is None else np.asarray(value["qform"], dtype=np.float64),
            qform_code=value["qform_code"],
            units=value["units"],
            extra=value["extra"],
        )


def _directions(affine: Affine) -> Affine:
    columns: Affine = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return columns


def _numbers(values: Sequence[float] | Affine) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
