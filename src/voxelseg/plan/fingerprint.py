"""What a data set looks like in numbers: spacings, shapes, foreground intensities, class volumes and positions."""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import ndimage

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.files import read_json, write_json
from voxelseg.geometry import Grid, Spacing
from voxelseg.io import read_channels, read_label
from voxelseg.parallel import attempt, map_unordered, raise_together
from voxelseg.volume import Volume

SAMPLES_PER_CASE = 10_000
"""Foreground intensities kept of each case and channel, so that a large organ in one scan does not outweigh others."""
PERCENTILES = (0.5, 50.0, 99.5)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CaseFingerprint(_Frozen):
    """One case; spatial values along canonical D, H, W."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    nonzero_shape: tuple[int, int, int]
    """Size of the box around the voxels that are not zero in all channels."""
    class_volumes_ml: dict[str, float]
    """0 where the class does not occur."""
    class_centroids_mm: dict[str, tuple[float, float, float]]
    """Centre of mass from the array's first voxel, along D, H, W; classes that do not occur are left out."""
    class_spreads_mm: dict[str, tuple[float, float, float]]
    """Standard deviation of the class's voxels along D, H, W: how far it reaches from its centre."""


class IntensityStatistics(_Frozen):
    """One channel, over foreground voxels of all cases."""

    mean: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    median: float
    percentile_99_5: float


class Fingerprint(_Frozen):
    """All cases, and the foreground's intensities per channel."""

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    cases: dict[str, CaseFingerprint]
    intensities: tuple[IntensityStatistics, ...]

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump())


def read_fingerprint(path: Path) -> Fingerprint:
    """Fingerprint from its JSON file; DataError if it is damaged or of another version of this program."""
    remedy = "Delete it and run `voxelseg plan` again."
    try:
        return Fingerprint.model_validate(read_json(path, remedy=remedy))
    except ValidationError as error:
        raise DataError(f"{path}: no fingerprint of this version ({error.error_count()} faults). {remedy}") from error


def nonzero_box(image: npt.NDArray[Any]) -> tuple[slice, slice, slice]:
    """Smallest box (D, H, W) that holds every voxel which is not 0 in some channel of (C, D, H, W).

    An image of zeros only gives the whole box.
    """
    occupied = image[0] != 0
    for channel in image[1:]:
        occupied |= channel != 0
    planes = occupied.any(axis=2)  # (D, H)
    lines = (planes.any(axis=1), planes.any(axis=0), occupied.any(axis=(0, 1)))
    slices = []
    for line in lines:
        (found,) = np.nonzero(line)
        slices.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, line.size))
    return (slices[0], slices[1], slices[2])


def check_intensities(image: npt.NDArray[Any]) -> None:
    """DataError if a voxel is NaN or infinite."""
    if image.dtype.kind == "f" and not all(bool(np.isfinite(channel).all()) for channel in image):
        raise DataError(
            "the scan holds NaN or infinite voxels, expected numbers. Replace them by the background's value."
        )


def check_label_map(label: Volume, grid: Grid, labels: LabelScheme, path: Path) -> None:
    """DataError naming `path` if the label map is not on its scan's `grid`, or holds values that `labels` does not."""
    differences = grid.differences(label.grid)
    if differences:
        raise DataError(
            f"{path}: not on the grid of its scan: {'; '.join(differences)} (scan against label map). Correct the "
            "header or resample the label map; `voxelseg check` lists all such cases."
        )
    known = sorted(labels.known_values)
    strange = label.array[~np.isin(label.array, known)]
    if strange.size:
        raise DataError(
            f"{path}: label values {np.unique(strange)[:5].tolist()} in {strange.size} voxels are not in the data "
            f"set's description (known: {known}). Correct the label map, or add the values under 'labels'."
        )


def _class_geometry(
    label: Volume, labels: LabelScheme
) -> tuple[dict[str, float], dict[str, Spacing], dict[str, Spacing]]:
    """Volume, centroid and spread of each class; see `CaseFingerprint`."""
    array, spacing = label.array[0], np.asarray(label.spacing_mm)
    values = sorted(labels.known_values - {0, labels.ignore})
    boxes = ndimage.find_objects(array, max_label=max(values))
    counts = dict.fromkeys(values, 0)
    sums = {value: np.zeros(3) for value in values}
    squares = {value: np.zeros(3) for value in values}
    for value in values:
        box = boxes[value - 1]
        if box is None:
            continue
        mask = array[box] == value
        counts[value] = int(np.count_nonzero(mask))
        for axis in range(3):
            per_plane = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
            position = np.arange(box[axis].start, box[axis].stop, dtype=np.float64)
            sums[value][axis] = per_plane @ position
            squares[value][axis] = per_plane @ position**2
    volumes: dict[str, float] = {}
    centroids: dict[str, Spacing] = {}
    spreads: dict[str, Spacing] = {}
    for one in labels.classes:
        count = sum(counts[value] for value in set(one.values))
        volumes[one.name] = round(count * float(np.prod(spacing)) / 1000, 6)
        if count:
            mean = np.sum([sums[value] for value in set(one.values)], axis=0) / count
            mean_square = np.sum([squares[value] for value in set(one.values)], axis=0) / count
            centroids[one.name] = _rounded(mean * spacing)
            spreads[one.name] = _rounded(np.sqrt(np.maximum(mean_square - mean**2, 0)) * spacing)
    return volumes, centroids, spreads


def _rounded(values_mm: npt.NDArray[np.float64]) -> Spacing:
    d, h, w = (round(float(value), 3) for value in values_mm)
    return (d, h, w)


def _measure(case: Case, *, labels: LabelScheme, channels: int) -> tuple[CaseFingerprint, npt.NDArray[np.float32]]:
    """Fingerprint of one case, and sampled foreground intensities (channels, samples)."""
    image = read_channels(case.images)
    if case.label is None:
        raise DataError(f"case {case.id}: has no label map, expected one for each training case. Add it.")
    label = read_label(case.label)
    if image.array.shape[0] != channels:
        raise DataError(
            f"case {case.id}: the scan has {image.array.shape[0]} channel(s), expected {channels}. "
            "`voxelseg check` lists all such cases."
        )
    try:
        check_intensities(image.array)
    except DataError as error:
        raise DataError(f"case {case.id}: {error}") from error
    check_label_map(label, image.grid, labels, case.label)
    volumes, centroids, spreads = _class_geometry(label, labels)
    foreground = np.flatnonzero(np.isin(label.array[0], sorted(labels.known_values - {0, labels.ignore})))
    if foreground.size > SAMPLES_PER_CASE:
        generator = np.random.default_rng(zlib.crc32(case.id.encode()))
        foreground = np.sort(generator.choice(foreground, SAMPLES_PER_CASE, replace=False))
    samples = image.array.reshape(channels, -1)[:, foreground].astype(np.float32)
    d, h, w = (part.stop - part.start for part in nonzero_box(image.array))
    measured = CaseFingerprint(
        shape=image.shape_dhw,
        spacing_mm=image.spacing_mm,
        nonzero_shape=(d, h, w),
        class_volumes_ml=volumes,
        class_centroids_mm=centroids,
        class_spreads_mm=spreads,
    )
    return measured, samples


def _statistics(values: npt.NDArray[np.float32]) -> IntensityStatistics:
    if values.size == 0:
        return IntensityStatistics(
            mean=0.0, std=1.0, minimum=0.0, maximum=0.0, percentile_00_5=0.0, median=0.0, percentile_99_5=0.0
        )
    low, median, high = np.percentile(values, PERCENTILES)
    return IntensityStatistics(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentile_00_5=float(low),
        median=float(median),
        percentile_99_5=float(high),
    )


def compute_fingerprint(
    dataset: Dataset, *, workers: int = 1, progress: Callable[[int], None] | None = None
) -> Fingerprint:
    """Fingerprint of the training cases of `dataset`, measured in `workers` processes.

    `progress` is called with the number of cases done. The number of workers changes nothing. Raises DataError if there
    is no case, or listing all cases that cannot be read or whose parts do not fit together.
    """
    if not dataset.cases:
        raise DataError(f"{dataset.root}: no training case with image and label map. Run `voxelseg check` to see why.")
    measured: dict[int, CaseFingerprint] = {}
    samples: dict[int, npt.NDArray[np.float32]] = {}
    errors: list[DataError] = []
    measure = partial(attempt, partial(_measure, labels=dataset.labels, channels=len(dataset.channels)))
    for index, outcome in map_unordered(measure, dataset.cases, workers=workers, name=lambda case: f"case {case.id}"):
        if isinstance(outcome, DataError):
            errors.append(outcome)
            continue
        measured[index], samples[index] = outcome
        if progress is not None:
            progress(len(measured))
    raise_together(errors, total=len(dataset.cases), verb="measured")
    cases = {case.id: measured[index] for index, case in enumerate(dataset.cases)}
    joined = np.concatenate([samples[index] for index in range(len(samples))], axis=1)
    return Fingerprint(
        channels=dataset.channels,
        classes=dataset.labels.names,
        cases=cases,
        intensities=tuple(_statistics(channel) for channel in joined),
    )
