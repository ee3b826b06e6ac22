"""What a data set looks like in numbers: spacings, shapes, foreground intensities, class volumes and positions.

Scans without labels have no classes, and their foreground is every voxel above the lowest value of its scan, which is
padding or air.
"""

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
from voxelseg.geometry import Grid, Shape, Spacing
from voxelseg.io import read_channels, read_label
from voxelseg.parallel import attempt, map_unordered, raise_together
from voxelseg.volume import Volume

SAMPLES_PER_CASE = 10_000
"""Foreground intensities kept of each case and channel, so that a large organ in one scan does not outweigh others."""
VOXELS_TRIED = 4 * SAMPLES_PER_CASE
"""Of a scan without labels: those that are looked at to find as many that are not padding."""
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


class ScanFingerprint(CaseFingerprint):
    """A scan without labels: no classes, but what tells scans apart that do not belong together."""

    intensities: tuple[IntensityStatistics, ...]
    """Of each channel."""
    num_values: int
    """Different values that the sampled voxels have; few in a label map."""
    flat_share: float
    """Share of the sampled voxels whose next one along W has the same value: near 1 in a label map."""
    constant_slices: tuple[float, float, float]
    """Share of the slices across D, H and W of the non-zero box in which each channel has a single value."""


class Fingerprint(_Frozen):
    """All cases, and the foreground's intensities per channel."""

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    """None if the scans have no labels."""
    cases: dict[str, ScanFingerprint | CaseFingerprint]
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


def _measure(
    case: Case, *, labels: LabelScheme, channels: tuple[str, ...]
) -> tuple[CaseFingerprint, npt.NDArray[np.float32]]:
    """Fingerprint of one case, and sampled foreground intensities (channels, samples)."""
    image = read_channels(case.images)
    if not labels.classes:
        _check_image(image, case, channels)
        return _measure_scan(image, case, channels)
    if case.label is None:
        raise DataError(f"case {case.id}: has no label map, expected one for each training case. Add it.")
    label = read_label(case.label)
    _check_image(image, case, channels)
    check_label_map(label, image.grid, labels, case.label)
    volumes, centroids, spreads = _class_geometry(label, labels)
    foreground = np.flatnonzero(np.isin(label.array[0], sorted(labels.known_values - {0, labels.ignore})))
    if foreground.size > SAMPLES_PER_CASE:
        foreground = np.sort(_generator(case).choice(foreground, SAMPLES_PER_CASE, replace=False))
    samples = image.array.reshape(len(channels), -1)[:, foreground].astype(np.float32)
    measured = CaseFingerprint(
        shape=image.shape_dhw,
        spacing_mm=image.spacing_mm,
        nonzero_shape=_size(nonzero_box(image.array)),
        class_volumes_ml=volumes,
        class_centroids_mm=centroids,
        class_spreads_mm=spreads,
    )
    return measured, samples


def _generator(case: Case) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(case.id.encode()))


def _check_image(image: Volume, case: Case, channels: tuple[str, ...]) -> None:
    """DataError naming the case if its scan has other channels than expected, or voxels that are no numbers."""
    if image.array.shape[0] != len(channels):
        raise DataError(
            f"case {case.id}: the scan has {image.array.shape[0]} channel(s), expected {len(channels)}. "
            "`voxelseg check` lists all such cases."
        )
    try:
        check_intensities(image.array)
    except DataError as error:
        raise DataError(f"case {case.id}: {error}") from error


def _size(box: tuple[slice, slice, slice]) -> Shape:
    d, h, w = (part.stop - part.start for part in box)
    return (d, h, w)


def _measure_scan(
    image: Volume, case: Case, channels: tuple[str, ...]
) -> tuple[ScanFingerprint, npt.NDArray[np.float32]]:
    """Fingerprint of a scan without labels, and sampled intensities; DataError if a channel is constant."""
    lowest = image.array.min(axis=(1, 2, 3))
    for name, low, high in zip(channels, lowest, image.array.max(axis=(1, 2, 3)), strict=True):
        if low == high:
            raise DataError(
                f"case {case.id}: every voxel of {name} has the value {low:g}, expected a scan. Export it again, or "
                "take it out."
            )
    voxels = image.array.reshape(len(channels), -1)
    drawn = _drawn_above(voxels, lowest, _generator(case))
    samples = voxels[:, drawn].astype(np.float32)
    before_last = drawn[drawn + 1 < voxels.shape[1]]
    flat = (voxels[:, before_last] == voxels[:, before_last + 1]).all(axis=0)
    box = nonzero_box(image.array)
    measured = ScanFingerprint(
        shape=image.shape_dhw,
        spacing_mm=image.spacing_mm,
        nonzero_shape=_size(box),
        class_volumes_ml={},
        class_centroids_mm={},
        class_spreads_mm={},
        intensities=tuple(map(_statistics, samples)),
        num_values=int(np.unique(samples).size),
        flat_share=float(flat.mean()) if flat.size else 0.0,
        constant_slices=_constant_slices(image.array[(slice(None), *box)]),
    )
    return measured, samples


def _drawn_above(
    voxels: npt.NDArray[Any], lowest: npt.NDArray[Any], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Sorted indices of voxels of (C, N), at most as many as are kept, where some channel is above its lowest value.

    Only drawn ones are looked at: a list of all of them would take eight bytes a voxel.
    """
    count = voxels.shape[1]
    tried = generator.choice(count, VOXELS_TRIED, replace=False) if count > VOXELS_TRIED else np.arange(count)
    found: npt.NDArray[np.int64] = tried[(voxels[:, tried] > lowest[:, None]).any(axis=0)]
    if found.size > SAMPLES_PER_CASE:
        found = generator.choice(found, SAMPLES_PER_CASE, replace=False)
    return np.sort(found)


def _constant_slices(image: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Share of the slices across D, H and W of (C, D, H, W) in which each channel has a single value."""
    shares = []
    for axis in range(3):
        in_slice = tuple(1 + other for other in range(3) if other != axis)
        constant = (image.max(axis=in_slice) == image.min(axis=in_slice)).all(axis=0)
        shares.append(float(constant.mean()))
    return (shares[0], shares[1], shares[2])


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
    """Fingerprint of the training cases of `dataset`, or of its scans if it has no labels, by `workers` processes.

    `progress` is called with the number of cases done. The number of workers changes nothing. Raises DataError if there
    is no case, or listing all cases that cannot be read or whose parts do not fit together.
    """
    if not dataset.cases:
        raise DataError(
            f"{dataset.root}: no training case with image and label map. Run `voxelseg check` to see why."
            if dataset.labelled
            else f"{dataset.root}: no scan. Name a folder that holds some."
        )
    measured: dict[int, CaseFingerprint] = {}
    samples: dict[int, npt.NDArray[np.float32]] = {}
    errors: list[DataError] = []
    measure = partial(attempt, partial(_measure, labels=dataset.labels, channels=dataset.channels))
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
