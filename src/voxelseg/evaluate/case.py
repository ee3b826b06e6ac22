"""One predicted label map against its reference: every metric of every class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from voxelseg.data.examination import SILENT_VOXELS
from voxelseg.data.labels import MAX_VALUE, LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.probabilities import reliabilities
from voxelseg.geometry import Grid, Spacing
from voxelseg.io import read_label
from voxelseg.metrics import MaskPair, columns
from voxelseg.metrics.reliability import Box, Reliability
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.volume import Volume

_COSINE = 0.01
"""Of the angle between two axes of a grid, 0 for a right one: up to 0.6 degrees off it, distances are right to 1 %."""


@dataclass(frozen=True)
class LabelPair:
    """Files of one case to be compared."""

    case: str
    prediction: Path
    reference: Path
    probabilities: Path | None = None
    """4D file, one channel per output of the network."""
    patient: str = ""
    """Empty if nobody said whose it is."""


@dataclass(frozen=True)
class ClassScore:
    """One class in one case."""

    case: str
    name: str
    """Of the class."""
    metrics: Mapping[str, float]
    """Key of a column -> value; NaN if both masks are empty."""
    volume_reference_mm3: float
    volume_prediction_mm3: float

    @property
    def empty_reference(self) -> bool:
        """Whether the reference has no voxel of the class."""
        return self.volume_reference_mm3 == 0

    @property
    def empty_prediction(self) -> bool:
        """Whether the prediction has no voxel of the class."""
        return self.volume_prediction_mm3 == 0


@dataclass(frozen=True)
class CaseScores:
    """One pair of files."""

    scores: tuple[ClassScore, ...]
    """One per class."""
    off_grid: bool
    """Whether the voxels of the two files lie apart by more than rounding, though by no more than is allowed."""
    sheared: bool = False
    """Whether the axes of the reference's grid are not at right angles, as if they were for metrics in mm."""


def read_pair(pair: LabelPair, labels: LabelScheme | None) -> tuple[Volume, Volume]:
    """Reference and prediction.

    DataError if a file cannot be read, the grids differ by more than `HARMFUL_VOXELS`, or a value is not in `labels`;
    without these, if one cannot be a class.
    """
    reference, prediction = read_label(pair.reference), read_label(pair.prediction)
    differences = reference.grid.differences(prediction.grid)
    if differences:
        raise DataError(
            f"{pair.prediction}: not on the grid of {pair.reference}: {'; '.join(differences)} (reference against "
            "prediction). Predict with voxelseg, which restores the scan's grid, or resample the prediction."
        )
    for volume, path in ((reference, pair.reference), (prediction, pair.prediction)):
        if labels is None:
            _require_possible(volume.array, path)
        else:
            _require_known(volume.array, path, labels)
    return reference, prediction


def score_files(
    pair: LabelPair,
    labels: LabelScheme | None,
    *,
    tolerance_mm: float | Sequence[float],
    postprocessing: Postprocessing | None = None,
) -> CaseScores:
    """Scores of one pair of label maps, voxel by voxel, the prediction as `postprocessing` leaves it.

    `labels=None`: each value that occurs in either file is a class named by its number; it goes without postprocessing
    and probabilities. DataError as from `read_pair` and `reliabilities`.
    """
    reference, prediction = read_pair(pair, labels)
    predicted = prediction.array[0]
    sure = None
    if pair.probabilities is not None and labels is not None:
        sure = reliabilities(pair.probabilities, reference, labels, class_boxes(labels, reference.array[0]))
    if postprocessing is not None and labels is not None:
        predicted = postprocessing.apply(predicted, labels)
    scores = score_label_maps(
        reference.array[0],
        predicted,
        labels or labels_of_values(reference.array, prediction.array),
        case=pair.case,
        spacing_mm=reference.spacing_mm,
        voxel_mm3=float(abs(np.linalg.det(reference.grid.affine_ijk[:3, :3]))),
        tolerance_mm=tolerance_mm,
        reliability_of=sure,
    )
    off_grid = bool(reference.grid.differences(prediction.grid, tolerance_voxels=SILENT_VOXELS))
    return CaseScores(scores, off_grid, _is_sheared(reference.grid))


def _is_sheared(grid: Grid) -> bool:
    axes = grid.affine_ijk[:3, :3] / np.linalg.norm(grid.affine_ijk[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max()) > _COSINE


def score_label_maps(
    reference: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    labels: LabelScheme | None,
    *,
    case: str,
    spacing_mm: Spacing,
    voxel_mm3: float,
    tolerance_mm: float | Sequence[float],
    reliability_of: Mapping[str, Reliability] | None = None,
) -> tuple[ClassScore, ...]:
    """Scores of two label maps (D, H, W) of integers on one grid, one per class; none if `labels` is None.

    Voxels with the ignore label in the reference count as background in both, so they are neither hit nor miss.
    `reliability_of` has each class's probabilities, if there are any: then they are scored, too.
    """
    if labels is None:
        return ()
    wanted = columns(tolerance_mm, probabilities=bool(reliability_of))
    pairs = class_pairs(
        reference, prediction, labels, spacing_mm=spacing_mm, voxel_mm3=voxel_mm3, reliability_of=reliability_of
    )
    return tuple(
        ClassScore(
            case=case,
            name=name,
            metrics={column.key: column.score(pair) for column in wanted},
            volume_reference_mm3=pair.num_reference * voxel_mm3,
            volume_prediction_mm3=pair.num_prediction * voxel_mm3,
        )
        for name, pair in pairs
    )


def class_pairs(
    reference: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    labels: LabelScheme,
    *,
    spacing_mm: Spacing,
    voxel_mm3: float = 0.0,
    reliability_of: Mapping[str, Reliability] | None = None,
) -> Iterator[tuple[str, MaskPair]]:
    """Each class's name and masks in two label maps (D, H, W) on one grid; without what the reference ignores."""
    d, h, w = reference.shape
    boxes = class_boxes(labels, reference, prediction)
    for name in labels.names:
        box = boxes[name]  # most classes are small: counting and comparing whole scans would take most of the time
        judged: npt.NDArray[np.bool_] | bool = True if labels.ignore is None else reference[box] != labels.ignore
        yield (
            name,
            MaskPair(
                labels.mask(reference[box], name) & judged,
                labels.mask(prediction[box], name) & judged,
                spacing_mm,
                image_shape=(d, h, w),
                voxel_mm3=voxel_mm3,
                reliability=(reliability_of or {}).get(name),
            ),
        )


def class_boxes(labels: LabelScheme, *label_maps: npt.NDArray[Any]) -> dict[str, Box]:
    """Class -> smallest box that holds its voxels in all of the label maps (D, H, W); of no voxel if it has none."""
    highest = max(value for one in labels.classes for value in one.values)
    found = [find_objects(label_map, max_label=highest) for label_map in label_maps]
    return {one.name: _union([boxes[value - 1] for boxes in found for value in one.values]) for one in labels.classes}


def _union(boxes: Sequence[Box | None]) -> Box:
    held = [box for box in boxes if box is not None]
    d, h, w = (
        slice(min((box[axis].start for box in held), default=0), max((box[axis].stop for box in held), default=0))
        for axis in range(3)
    )
    return d, h, w


def labels_of_values(*label_maps: npt.NDArray[Any]) -> LabelScheme | None:
    """One class per value other than 0 that occurs, named by its number; None if there is none."""
    values = sorted({int(value) for label_map in label_maps for value in np.unique(label_map)} - {0})
    return LabelScheme(tuple(LabelClass(str(value), (value,), value) for value in values)) if values else None


def _require_possible(label_map: npt.NDArray[Any], path: Path) -> None:
    low, high = int(label_map.min()), int(label_map.max())
    if low < 0 or high > MAX_VALUE:
        raise DataError(
            f"{path}: label values from {low} to {high}, expected 0 to {MAX_VALUE}. Correct the file, or give its "
            "values smaller numbers."
        )


def _require_known(label_map: npt.NDArray[Any], path: Path, labels: LabelScheme) -> None:
    unknown = sorted({int(value) for value in np.unique(label_map)} - labels.known_values)
    if unknown:
        raise DataError(
            f"{path}: label values {unknown} are not in the data set's description (known: "
            f"{sorted(labels.known_values)}). Correct the file, or add the values under 'labels' in dataset.json."
        )
