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
from voxelseg.plan.fingerprint import check_intensities, nonzero_box
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import ANISOTROPY
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
    box: tuple[slice, slice, slice]
    """Cropped range along the plan's axes, in the scan's voxels."""
    shape: Shape
    """Size after resampling, along the plan's axes."""
    coarse_axis: int | None
    """The plan's axis that is resampled by nearest neighbour, in the scan and in what is brought back to it."""

    @property
    def cropped_shape(self) -> Shape:
        """Size of the crop along the plan's axes, before resampling."""
        d, h, w = (part.stop - part.start for part in self.box)
        return (d, h, w)


def preprocess_image(volume: Volume, plan: Plan) -> tuple[npt.NDArray[np.float32], Placement]:
    """Network-ready image (C, D, H, W) along the plan's axes, and its placement in the scan.

    Raises DataError if the channels do not match the plan or a voxel is NaN or infinite.
    """
    if volume.array.shape[0] != len(plan.channels):
        raise DataError(
            f"the scan has {volume.array.shape[0]} channel(s), the plan expects {len(plan.channels)}: "
            f"{', '.join(plan.channels)}. Give one file per channel, or one file that holds them all."
        )
    check_intensities(volume.array)
    image = volume.array.transpose(0, *(1 + axis for axis in plan.axes))
    spacing = [volume.spacing_mm[axis] for axis in plan.axes]
    box = nonzero_box(image)
    cropped = image[(slice(None), *box)]
    d, h, w = (
        max(1, round(size * mm / target))
        for size, mm, target in zip(cropped.shape[1:], spacing, plan.spacing_mm, strict=True)
    )
    placement = Placement(
        grid=volume.grid, axes=plan.axes, box=box, shape=(d, h, w), coarse_axis=_coarse_axis(spacing, plan)
    )
    orders = orders_for(3, coarse_axis=placement.coarse_axis)
    return resample(normalize(cropped, plan.normalization), placement.shape, orders), placement


def _coarse_axis(spacing_mm: list[float], plan: Plan) -> int | None:
    """The scan's own coarse axis if it has one, else the plan's, as in nnU-Net; None if the plan wants splines."""
    if not plan.nearest_along_coarse:
        return None
    coarsest = int(np.argmax(spacing_mm))
    if spacing_mm[coarsest] > ANISOTROPY * sorted(spacing_mm)[1]:
        return coarsest
    return 0 if plan.anisotropic else None


def preprocess_label(label: Volume, placement: Placement, labels: LabelScheme) -> npt.NDArray[np.int16]:
    """Training target (D, H, W) on the grid of the preprocessed image; see `LabelScheme.encode`."""
    turned = label.array[0].transpose(placement.axes)[placement.box]
    return resample_labels(labels.encode(turned), placement.shape, coarse_axis=placement.coarse_axis)


def to_scan(
    outputs: npt.NDArray[Any], placement: Placement, *, outside: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Values (K, D, H, W) on the preprocessed grid brought back to the scan's canonical grid, linearly.

    Voxels outside the crop get `outside` (K). Values stay exact where nothing was resampled; where nothing was cropped
    either, the result is a view of `outputs`.
    """
    back = (0, *(1 + int(axis) for axis in np.argsort(placement.axes)))
    d, h, w = (placement.grid.shape_dhw[axis] for axis in placement.axes)
    if (d, h, w) == placement.cropped_shape == placement.shape:
        return outputs.astype(np.float32, copy=False).transpose(back)
    orders = orders_for(1, coarse_axis=placement.coarse_axis)
    whole = np.empty((outputs.shape[0], d, h, w), dtype=np.float32)
    for values, output, fill in zip(whole, outputs, outside, strict=True):
        values[:] = fill
        values[placement.box] = resample(output, placement.cropped_shape, orders)
    return whole.transpose(back)
