"""A reference mask and a predicted mask of one class, with what several metrics need of them computed once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxelseg.errors import DataError
from voxelseg.geometry import Shape, Spacing
from voxelseg.metrics.nearest import Floats, margins, nearest_mm
from voxelseg.metrics.padded import Codes, Mask, Padded
from voxelseg.metrics.reliability import Reliability


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Boolean masks (D, H, W) on one grid.

    A surface is the set of foreground voxels with at least one of their six face neighbours in the background;
    everything outside the image is background, so the image border is surface too. Distances are between voxel
    centres, in mm. This is the boundary of `monai.metrics` without `use_subvoxels`.
    """

    reference: Mask
    prediction: Mask
    spacing_mm: Spacing
    """Voxel size along D, H, W."""
    image_shape: Shape | None = None
    """Of the whole image if the masks are a part of it that holds all of their foreground; None: they are whole."""
    voxel_mm3: float = 0.0
    """Volume of a voxel; 0: the product of `spacing_mm`, which a sheared grid's is not."""
    reliability: Reliability | None = None
    """Of the class's probabilities, where there are some."""

    def __post_init__(self) -> None:
        for name in ("reference", "prediction"):
            mask = getattr(self, name)
            if mask.ndim != 3 or mask.dtype != np.bool_:
                raise DataError(
                    f"{name} mask: found shape {mask.shape} of {mask.dtype}, expected a boolean array (D, H, W). "
                    "Compare the label map with the class's value to get one."
                )
        if self.reference.shape != self.prediction.shape:
            raise DataError(
                f"the reference mask has shape {self.reference.shape}, the prediction {self.prediction.shape}. "
                "Bring both onto one grid first."
            )
        if not all(0 < step < np.inf for step in self.spacing_mm):
            raise DataError(f"spacing {self.spacing_mm} mm: expected three positive numbers. Repair the scan's header.")
        if not self.voxel_mm3:
            object.__setattr__(self, "voxel_mm3", float(np.prod(self.spacing_mm)))

    @cached_property
    def num_reference(self) -> int:
        """Foreground voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def num_prediction(self) -> int:
        """Foreground voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def num_common(self) -> int:
        """Voxels that are foreground in both."""
        return int(np.count_nonzero(self.reference & self.prediction))

    @property
    def both_empty(self) -> bool:
        """Whether neither mask has a voxel: every metric is then NaN."""
        return self.num_reference == 0 and self.num_prediction == 0

    @property
    def one_empty(self) -> bool:
        """Whether exactly one mask has no voxel: a metric then has its worst value, if it has one."""
        return (self.num_reference == 0) != (self.num_prediction == 0)

    @property
    def diagonal_mm(self) -> float:
        """Length of the whole image's diagonal; no distance inside the image is longer."""
        return float(np.linalg.norm(np.multiply(self.image_shape or self.reference.shape, self.spacing_mm)))

    @cached_property
    def centre_shift_mm(self) -> tuple[float, float, float]:
        """From the reference's centre of mass to the prediction's along D, H, W; only for two masks that are not empty.

        Sums of whole numbers are exact, so it does not matter how much background there is around the masks.
        """
        num_reference, num_prediction = self.num_reference, self.num_prediction
        sums = zip(index_sums(self.reference), index_sums(self.prediction), self.spacing_mm, strict=True)
        d, h, w = (
            (ours * num_reference - theirs * num_prediction) / (num_reference * num_prediction) * step
            for theirs, ours, step in sums
        )
        return d, h, w

    @cached_property
    def padded(self) -> tuple[Padded, Padded]:
        """Reference and prediction, cropped to what both hold if they are whole; only for masks that are not empty."""
        box = bounding_box(self.reference, self.prediction) if self.image_shape is None else (slice(None),) * 3
        rim = [margin + 1 for margin in margins(self.spacing_mm)]  # a corner lies half a voxel before its voxel
        return Padded.of(self.reference[box], rim), Padded.of(self.prediction[box], rim)

    @cached_property
    def surface_distances_mm(self) -> tuple[Floats, Floats]:
        """Distance of each reference surface voxel to the nearest predicted one, and the other way round.

        Only for two masks that are not empty.
        """
        reference, prediction = (padded.surface() for padded in self.padded)
        to_prediction = nearest_mm(reference, prediction, self.spacing_mm)
        return to_prediction, nearest_mm(prediction, reference, self.spacing_mm)

    @cached_property
    def corner_distances_mm(self) -> tuple[tuple[Floats, Codes], tuple[Floats, Codes]]:
        """Distance of each corner of the reference's surface to the nearest of the prediction's, and the corner's code.

        Then the other way round. See `Padded.corners`. Only for two masks that are not empty.
        """
        (reference, codes), (prediction, predicted_codes) = (padded.corners() for padded in self.padded)
        to_prediction = nearest_mm(reference, prediction, self.spacing_mm)
        to_reference = nearest_mm(prediction, reference, self.spacing_mm)
        return (to_prediction, codes), (to_reference, predicted_codes)


def index_sums(mask: Mask) -> tuple[int, int, int]:
    """Sums of the indices along D, H, W of the foreground voxels of a mask (D, H, W)."""
    of_planes = [np.count_nonzero(plane) for plane in mask]
    columns = np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint32)  # (H, W)
    of_axes = (np.array(of_planes, np.int64), columns.sum(axis=1, dtype=np.int64), columns.sum(axis=0, dtype=np.int64))
    d, h, w = (int(counts @ np.arange(counts.size)) for counts in of_axes)
    return d, h, w


def bounding_box(*masks: Mask) -> tuple[slice, ...]:
    """Smallest box (one slice per axis) that holds every foreground voxel of all masks, at least one of them not empty.

    Background outside the box is all there is, so surfaces inside it are those of the whole image.
    """
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        occupied = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
