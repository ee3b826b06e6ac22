"""One predicted label map against its reference: every metric of every class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.geometry import Spacing
from voxelseg.io import read_label
from voxelseg.metrics import METRICS, MaskPair


@dataclass(frozen=True)
class LabelPair:
    """Files of one case to be compared."""

    case: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class ClassScore:
    """One class in one case."""

    case: str
    name: str
    """Of the class."""
    metrics: Mapping[str, float]
    """Key of METRICS -> value; NaN if both masks are empty."""
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


def score_files(pair: LabelPair, labels: LabelScheme | None, *, tolerance_mm: float) -> tuple[ClassScore, ...]:
    """Scores of one pair of label maps, one per class.

    `labels=None`: each value that occurs in either file is a class named by its number.
    Raises DataError if a file cannot be read, the grids differ, or a value is not in `labels`.
    """
    reference, prediction = read_label(pair.reference), read_label(pair.prediction)
    differences = reference.grid.differences(prediction.grid)
    if differences:
        raise DataError(
            f"{pair.prediction}: not on the grid of {pair.reference}: {'; '.join(differences)} (reference against "
            "prediction). Predict with voxelseg, which restores the scan's grid, or resample the prediction."
        )
    if labels is not None:
        _require_known(reference.array, pair.reference, labels)
        _require_known(prediction.array, pair.prediction, labels)
    return score_label_maps(
        reference.array[0],
        prediction.array[0],
        labels or labels_of_values(reference.array, prediction.array),
        case=pair.case,
        spacing_mm=reference.spacing_mm,
        voxel_mm3=float(abs(np.linalg.det(reference.grid.affine_ijk[:3, :3]))),
        tolerance_mm=tolerance_mm,
    )


def score_label_maps(
    reference: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    labels: LabelScheme | None,
    *,
    case: str,
    spacing_mm: Spacing,
    voxel_mm3: float,
    tolerance_mm: float,
) -> tuple[ClassScore, ...]:
    """Scores of two label maps (D, H, W) on one grid, one per class; none if `labels` is None.

    Voxels with the ignore label in the reference count as background in both, so they are neither hit nor miss.
    """
    if labels is None:
        return ()
    judged = None if labels.ignore is None else reference != labels.ignore
    scores = []
    for name in labels.names:
        masks = [labels.mask(label, name) for label in (reference, prediction)]
        if judged is not None:
            masks = [mask & judged for mask in masks]
        pair = MaskPair(masks[0], masks[1], spacing_mm)
        scores.append(
            ClassScore(
                case=case,
                name=name,
                metrics={key: metric(pair, tolerance_mm=tolerance_mm) for key, metric in METRICS.items()},
                volume_reference_mm3=pair.num_reference * voxel_mm3,
                volume_prediction_mm3=pair.num_prediction * voxel_mm3,
            )
        )
    return tuple(scores)


def labels_of_values(*label_maps: npt.NDArray[Any]) -> LabelScheme | None:
    """One class per value other than 0 that occurs, named by its number; None if there is none."""
    values = sorted({int(value) for label_map in label_maps for value in np.unique(label_map)} - {0})
    return LabelScheme(tuple(LabelClass(str(value), (value,), value) for value in values)) if values else None


def _require_known(label_map: npt.NDArray[Any], path: Path, labels: LabelScheme) -> None:
    unknown = sorted({int(value) for value in np.unique(label_map)} - labels.known_values)
    if unknown:
        raise DataError(
            f"{path}: label values {unknown} are not in the data set's description (known: "
            f"{sorted(labels.known_values)}). Correct the file, or add the values under 'labels' in dataset.json."
        )
