"""What a data set looks like in numbers: spacings, shapes, foreground intensities, class volumes and positions."""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelScheme
from voxelseg.files import read_json, write_json
from voxelseg.io import read_channels, read_label
from voxelseg.parallel import map_unordered
from voxelseg.volume import Volume

SAMPLES_PER_CASE = 10_000
"""Foreground intensities kept of each case and channel, so that every case weighs the same."""
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
    """Fingerprint from its JSON file."""
    return Fingerprint.model_validate(read_json(path, remedy="Run `voxelseg plan` again."))


def nonzero_box(image: npt.NDArray[Any]) -> tuple[slice, slice, slice]:
    """Smallest box (D, H, W) that holds every voxel which is not 0 in some channel of (C, D, H, W).

    An image of zeros only gives the whole box.
    """
    occupied = (image != 0).any(axis=0)
    slices = []
    for axis in range(3):
        line = occupied.any(axis=tuple(other for other in range(3) if other != axis))
        (found,) = np.nonzero(line)
        slices.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, line.size))
    return (slices[0], slices[1], slices[2])


def _class_geometry(
    label: Volume, labels: LabelScheme
) -> tuple[dict[str, float], dict[str, tuple[float, float, float]]]:
    voxel_ml = float(np.prod(label.spacing_mm)) / 1000
    volumes, centroids = {}, {}
    for name in labels.names:
        mask = labels.mask(label.array[0], name)
        count = int(mask.sum())
        volumes[name] = count * voxel_ml
        if count:
            sums = [
                float(mask.sum(axis=tuple(other for other in range(3) if other != axis)) @ np.arange(mask.shape[axis]))
                for axis in range(3)
            ]
            d, h, w = (total / count * mm for total, mm in zip(sums, label.spacing_mm, strict=True))
            centroids[name] = (d, h, w)
    return volumes, centroids


def _measure(case: Case, labels: LabelScheme) -> tuple[CaseFingerprint, npt.NDArray[np.float32]]:
    """Fingerprint of one case, and sampled foreground intensities (channels, samples)."""
    image = read_channels(case.images)
    assert case.label is not None
    label = read_label(case.label)
    volumes, centroids = _class_geometry(label, labels)
    foreground = np.flatnonzero(np.isin(label.array[0], sorted(labels.known_values - {0, labels.ignore})))
    if foreground.size > SAMPLES_PER_CASE:
        generator = np.random.default_rng(zlib.crc32(case.id.encode()))
        foreground = generator.choice(foreground, SAMPLES_PER_CASE, replace=False)
    samples = image.array.reshape(image.array.shape[0], -1)[:, foreground].astype(np.float32)
    box = nonzero_box(image.array)
    d, h, w = (part.stop - part.start for part in box)
    measured = CaseFingerprint(
        shape=image.shape_dhw,
        spacing_mm=image.spacing_mm,
        nonzero_shape=(d, h, w),
        class_volumes_ml=volumes,
        class_centroids_mm=centroids,
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

    `progress` is called with the number of cases done. Raises DataError for a case that cannot be read.
    """
    measured: dict[int, CaseFingerprint] = {}
    samples: dict[int, npt.NDArray[np.float32]] = {}
    measure = partial(_measure, labels=dataset.labels)
    for index, (one, sampled) in map_unordered(measure, dataset.cases, workers=workers):
        measured[index], samples[index] = one, sampled
        if progress is not None:
            progress(len(measured))
    cases = {case.id: measured[index] for index, case in enumerate(dataset.cases)}
    joined = np.concatenate([samples[index] for index in range(len(samples))], axis=1)
    return Fingerprint(
        channels=dataset.channels,
        classes=dataset.labels.names,
        cases=cases,
        intensities=tuple(_statistics(channel) for channel in joined),
    )
