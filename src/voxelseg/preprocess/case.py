"""One case through the forward chain, and what is needed to undo it.

Canonical scan -> axes of the plan -> crop to non-zero -> normalise -> resample. Normalising comes before resampling,
as in nnU-Net, so that interpolation does not blur the scan's own statistics.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.geometry import Grid, Shape
from voxelseg.plan.fingerprint import nonzero_box
from voxelseg.plan.plan import Plan
from voxelseg.preprocess.normalize import normalize
from voxelseg.preprocess.resample import orders_for, resample, resample_labels
from voxelseg.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a preprocessed array came from in its scan."""

    grid: Grid
    """The scan's own grid."""
    axes: Shape
    """Canonical axis of each of the plan's axes."""
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """Cropped range along the plan's axes, in the scan's voxels."""
    shape: Shape
    """Size after resampling, along the plan's axes."""
    anisotropic: bool

    @property
    def cropped_shape(self) -> Shape:
        """Size of the crop along the plan's axes, before resampling."""
        (d0, d1), (h0, h1), (w0, w1) = self.box
        return (d1 - d0, h1 - h0, w1 - w0)

    def slices(self) -> tuple[slice, slice, slice]:
        """The crop as slices along the plan's axes."""
        (d0, d1), (h0, h1), (w0, w1) = self.box
        return (slice(d0, d1), slice(h0, h1), slice(w0, w1))


def preprocess_image(volume: Volume, plan: Plan) -> tuple[npt.NDArray[np.float32], Placement]:
    """Network-ready image (C, D, H, W) along the plan's axes, and its placement in the scan.

    Raises DataError if the channels do not match the plan or a voxel is NaN or infinite.
    """
    if volume.array.shape[0] != len(plan.channels):
        raise DataError(
            f"the scan has {volume.array.shape[0]} channel(s), the plan expects {len(plan.channels)}: "
            f"{', '.join(plan.channels)}. Give one file per channel, or one file that holds them all."
        )
    image = volume.array.transpose(0, *(1 + axis for axis in plan.axes))
    if not np.isfinite(image).all():
        raise DataError("the scan holds NaN or infinite voxels. Replace them by the background value.")
    box = nonzero_box(image)
    cropped = image[(slice(None), *box)]
    spacing = [volume.spacing_mm[axis] for axis in plan.axes]
    sizes = [
        max(1, round(size * mm / target))
        for size, mm, target in zip(cropped.shape[1:], spacing, plan.spacing_mm, strict=True)
    ]
    shape: Shape = (sizes[0], sizes[1], sizes[2])
    resampled = resample(normalize(cropped, plan.normalization), shape, orders_for(3, anisotropic=plan.anisotropic))
    d, h, w = ((part.start, part.stop) for part in box)
    placement = Placement(grid=volume.grid, axes=plan.axes, box=(d, h, w), shape=shape, anisotropic=plan.anisotropic)
    return resampled, placement


def preprocess_label(label: Volume, placement: Placement, labels: LabelScheme) -> npt.NDArray[np.int16]:
    """Training target (D, H, W) on the grid of the preprocessed image; see `LabelScheme.encode`."""
    turned = label.array[0].transpose(placement.axes)[placement.slices()]
    target: npt.NDArray[np.int16] = resample_labels(
        labels.encode(turned), placement.shape, anisotropic=placement.anisotropic
    )
    return target


def to_scan(
    outputs: npt.NDArray[Any], placement: Placement, *, outside: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Values (K, D, H, W) on the preprocessed grid brought back to the scan's canonical grid, linearly.

    Voxels outside the crop get `outside` (K).
    """
    cropped = resample(outputs, placement.cropped_shape, orders_for(1, anisotropic=placement.anisotropic))
    scan_shape = tuple(placement.grid.shape_dhw[axis] for axis in placement.axes)
    if scan_shape == cropped.shape[1:]:
        whole = cropped
    else:
        whole = np.empty((outputs.shape[0], *scan_shape), dtype=np.float32)
        whole[:] = outside.reshape(-1, 1, 1, 1)
        whole[(slice(None), *placement.slices())] = cropped
    back = np.argsort(placement.axes)
    return whole.transpose(0, *(1 + int(axis) for axis in back))
