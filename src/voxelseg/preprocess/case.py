"""One case through the forward chain, and what is needed to undo it.

Canonical scan -> axes of the plan -> crop to non-zero -> normalise -> resample. Normalising comes before resampling,
as in nnU-Net v2, so that interpolation does not blur the scan's own statistics; a plan may have it after, as nnU-Net v1
and MONAI pipelines do, and may crop last instead of first.
"""

from collections.abc import Sequence
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
from voxelseg.preprocess.normalize import Mask, normalization_masks, normalize
from voxelseg.preprocess.resample import Line, clipped, orders_for, resample, resample_labels, resample_part
from voxelseg.volume import Volume

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a preprocessed array came from in its scan."""

    grid: Grid
    """The scan's own grid."""
    axes: Shape
    """Canonical axis of each of the plan's axes."""
    box: Box
    """Range that was cropped to first, along the plan's axes, in the scan's voxels."""
    lines: tuple[Line, Line, Line]
    """From the voxels of `box` to the resampled ones."""
    last_box: Box
    """Range of the resampled voxels that is kept."""
    coarse_axis: int | None
    """The plan's axis that is resampled by nearest neighbour, in the scan and in what is brought back to it."""

    @property
    def shape(self) -> Shape:
        """Size of the preprocessed array along the plan's axes."""
        return _size(self.last_box)

    @property
    def cropped_shape(self) -> Shape:
        """Size of the first crop along the plan's axes, before resampling."""
        return _size(self.box)


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
    whole = volume.array.transpose(0, *(1 + axis for axis in plan.axes))
    box = nonzero_box(whole) if plan.crop == "nonzero" else _whole(whole.shape[1:])
    cropped = whole[(slice(None), *box)]
    d, h, w = (_line(cropped.shape[1 + axis], volume.grid, plan, axis) for axis in range(3))
    lines = (d, h, w)
    coarse_axis = _coarse_axis([volume.spacing_mm[axis] for axis in plan.axes], plan)
    if plan.normalize_first:
        image = _resampled(normalize(cropped, plan.normalization), lines, coarse_axis, plan)
    else:
        masks = _resampled_masks(normalization_masks(cropped, plan.normalization), lines, coarse_axis)
        image = normalize(_resampled(cropped, lines, coarse_axis, plan), plan.normalization, masks)
    last_box = nonzero_box(image > 0) if plan.crop == "positive" else _whole(image.shape[1:])
    placement = Placement(
        grid=volume.grid, axes=plan.axes, box=box, lines=lines, last_box=last_box, coarse_axis=coarse_axis
    )
    return image[(slice(None), *last_box)], placement


def _whole(shape: Sequence[int]) -> Box:
    d, h, w = (slice(0, size) for size in shape)
    return (d, h, w)


def _size(box: Box) -> Shape:
    d, h, w = (part.stop - part.start for part in box)
    return (d, h, w)


def _line(size: int, grid: Grid, plan: Plan, axis: int) -> Line:
    """How `size` voxels of a scan along the plan's `axis` are resampled."""
    if plan.resampling == "none":
        return Line(size, size)
    canonical = plan.axes[axis]
    spacing_mm, wanted_mm = grid.spacing_mm[canonical], plan.spacing_mm[axis]
    if plan.resampling == "edges":
        return Line(size, max(1, round(size * spacing_mm / wanted_mm)))
    step = wanted_mm / spacing_mm
    count = round((size - 1) / step + 1)
    from_end = plan.resampling == "file_centres" and grid.orientation.flips[canonical]
    return Line(size, count, first=size - 1 - (count - 1) * step if from_end else 0.0, step=step)


def _resampled(
    image: npt.NDArray[Any], lines: Sequence[Line], coarse_axis: int | None, plan: Plan
) -> npt.NDArray[np.float32]:
    result = resample(image, lines, orders_for(plan.image_order, coarse_axis=coarse_axis))
    return clipped(result, image, lines, coarse_axis=coarse_axis) if plan.clip_overshoot else result


def _resampled_masks(masks: list[Mask | None], lines: Sequence[Line], coarse_axis: int | None) -> list[Mask | None]:
    """Masks on the resampled grid, as a label map is resampled."""
    done: dict[int, Mask] = {}  # channels may share one
    for mask in masks:
        if mask is not None and id(mask) not in done:
            done[id(mask)] = resample_labels(mask.astype(np.int16), lines, coarse_axis=coarse_axis) == 1
    return [None if mask is None else done[id(mask)] for mask in masks]


def _coarse_axis(spacing_mm: list[float], plan: Plan) -> int | None:
    """The scan's own coarse axis if it has one, else the plan's, as in nnU-Net; None if the plan wants splines."""
    if not plan.nearest_along_coarse:
        return None
    coarsest = int(np.argmax(spacing_mm))
    if spacing_mm[coarsest] > ANISOTROPY * sorted(spacing_mm)[1]:
        return coarsest
    return 0 if plan.anisotropic else None


def preprocess_label(
    label: Volume, placement: Placement, labels: LabelScheme, *, order: int = 1
) -> npt.NDArray[np.int16]:
    """Training target (D, H, W) on the grid of the preprocessed image; see `LabelScheme.encode`.

    `order` is the plan's `label_order`.
    """
    turned = label.array[0].transpose(placement.axes)[placement.box]
    target = resample_labels(labels.encode(turned), placement.lines, order=order, coarse_axis=placement.coarse_axis)
    return target[placement.last_box]


def to_scan(
    outputs: npt.NDArray[Any], placement: Placement, *, outside: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Values (K, D, H, W) on the preprocessed grid brought back to the scan's canonical grid, linearly.

    Voxels outside the crop get `outside` (K). Values stay exact where nothing was resampled; where nothing was cropped
    either, the result is a view of `outputs`.
    """
    back = (0, *(1 + int(axis) for axis in np.argsort(placement.axes)))
    d, h, w = (placement.grid.shape_dhw[axis] for axis in placement.axes)
    unchanged = all(line.unchanged for line in placement.lines)
    if unchanged and (d, h, w) == placement.cropped_shape == placement.shape:
        return outputs.astype(np.float32, copy=False).transpose(back)
    lines = [line.inverse for line in placement.lines]
    orders = orders_for(1, coarse_axis=placement.coarse_axis)
    whole = np.empty((outputs.shape[0], d, h, w), dtype=np.float32)
    for values, output, fill in zip(whole, outputs, outside, strict=True):
        values[:] = fill
        resampled, place = resample_part(output, placement.last_box, lines, orders)
        values[placement.box][place] = resampled
    return whole.transpose(back)
