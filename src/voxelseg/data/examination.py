"""Everything that is wrong inside the files of one case, found by reading each of them once.

Sizes are compared exactly, positions with a tolerance: below `SILENT_VOXELS` of a voxel a difference is rounding, below
`HARMFUL_VOXELS` it is a warning, above it an error.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.data.dataset import Case, Problem, Severity, is_ct
from voxelseg.data.labels import LabelScheme
from voxelseg.data.layouts.description import relative_name
from voxelseg.errors import DataError
from voxelseg.geometry import HARMFUL_VOXELS, Affine, Grid
from voxelseg.io import Header, read_header, read_volume
from voxelseg.io.format import DAMAGED
from voxelseg.io.labels import rounding_of, to_integers

SILENT_VOXELS = 0.02
"""Positions that differ by less are equal but for rounding in the headers."""
AIR_HU = -500
"""A CT scan that shows any air has voxels below this."""

Array = npt.NDArray[Any]

_LARGEST_TABLE = 2**16


@dataclass
class Findings:
    """What a worker returns about one case."""

    problems: list[Problem] = field(default_factory=list)
    channel_hashes: list[str] = field(default_factory=list)
    """Hash of the voxels of each channel that is not constant."""
    values: set[int] | None = None
    """Label values, None if there is no readable label map."""
    centroids_right_mm: dict[str, float] = field(default_factory=dict)
    """World position of each class along the left to right axis."""
    centre_right_mm: float = 0.0
    """Position of the middle of the label map along that axis."""
    spacing_right_mm: float = 0.0
    """Voxel size along it."""
    width_right_mm: float = 0.0
    """Size of the label map along it."""


def examine_case(case: Case, *, channels: tuple[str, ...], labels: LabelScheme, root: Path) -> Findings:
    """Findings of one case; whatever goes wrong in it becomes one of its problems."""
    examination = _Examination(case, channels, labels, root)
    try:
        examination.run()
    except MemoryError:
        examination.report(
            "error",
            "out-of-memory",
            "there is not enough memory to read the scan and its label map.",
            "Close other programs, check fewer cases at once (--workers 1), or use a bigger machine.",
        )
    except Exception as error:  # noqa: BLE001  # one case must not keep the others from being checked
        examination.report(
            "error",
            "check-failed",
            f"the check itself failed: {type(error).__name__}: {error}.",
            "Report this message.",
        )
    return examination.findings


class _Examination:
    """One case under examination: its files, and what was found so far."""

    def __init__(self, case: Case, channels: tuple[str, ...], labels: LabelScheme, root: Path) -> None:
        self.case = case
        self.channels = channels
        self.labels = labels
        self.root = root
        self.findings = Findings()

    def report(self, severity: Severity, code: str, message: str, remedy: str) -> None:
        self.findings.problems.append(Problem(self.case.id, severity, code, message, remedy))

    def run(self) -> None:
        headers = [self._header(path) for path in self.case.images]
        if None not in headers:
            self._check_channel_count([header for header in headers if header])
        first = next((header for header in headers if header), None)
        for path, header in zip(self.case.images, headers, strict=True):
            if header and first:
                self._check_forms(path, header.grid)
                if header is not first:
                    self._compare(path, header.grid, first.grid, "the first channel")
        foreground = self._check_label(first.grid if first else None)
        channel, on_background = 0, []
        for path, header in zip(self.case.images, headers, strict=True):
            if header:
                on_background += self._check_image(path, channel, foreground)
            channel += header.num_channels if header else 1
        if on_background and all(on_background):
            self.report(
                "warning",
                "label-outside-image",
                f"{self._name(self.case.label)}: all of its foreground lies where the image has its lowest value, "
                "as if label and image did not belong together.",
                "Compare label and image in a viewer; one may be flipped, shifted or of another case.",
            )
        self._check_repeated_channels()

    def _name(self, path: Path | None) -> str:
        assert path is not None
        return relative_name(path, self.root)

    def _unreadable(self, path: Path, error: DataError) -> None:
        self.report(
            "error",
            "unreadable",
            str(error).replace(str(path), self._name(path)).removesuffix(f" {DAMAGED}"),
            "Copy or export the file again, or take the case out of the data set.",
        )

    def _header(self, path: Path) -> Header | None:
        try:
            header = read_header(path)
            _ = header.grid.orientation
            return header
        except DataError as error:
            self._unreadable(path, error)
            return None

    def _check_channel_count(self, headers: Sequence[Header]) -> None:
        count = sum(header.num_channels for header in headers)
        if count != len(self.channels):
            self.report(
                "error",
                "channel-count",
                f"{count} channels in {', '.join(self._name(path) for path in self.case.images)}, expected "
                f"{len(self.channels)}: {', '.join(self.channels)}.",
                "Give every case all channels, in the same order, or correct the channel names in the description.",
            )

    def _check_forms(self, path: Path, grid: Grid) -> None:
        """Report a NIfTI header whose sform and qform contradict each other, or whose qform is damaged."""
        found = ""
        if grid.qform is None and grid.qform_code:
            found = "the qform is damaged, so programs that prefer it may see the scan elsewhere or not at all"
        elif grid.sform is not None and grid.qform is not None:
            apart = _apart_voxels(grid.sform, grid.qform, grid.shape_ijk)
            if apart > SILENT_VOXELS:
                found = (
                    f"sform and qform put the same voxel up to {apart:.3g} voxels apart, so other programs may see the "
                    "scan elsewhere"
                )
        if found:
            self.report(
                "warning",
                "sform-qform",
                f"{self._name(path)}: {found}; the sform is used.",
                "Find out which one is right and copy it to the other.",
            )

    def _compare(self, path: Path, grid: Grid, reference: Grid, reference_name: str) -> None:
        """Report differences of two grids, one problem per kind, as an error or, if slight, a warning."""
        harmful = reference.differences(grid)
        for difference in harmful or reference.differences(grid, tolerance_voxels=SILENT_VOXELS):
            kind = difference.split()[0]
            what = f"{self._name(path)}: does not lie on the grid of {reference_name}: {difference}"
            self.report(
                "error" if harmful else "warning",
                f"{kind}-mismatch",
                f"{what}." if harmful else f"{what}, less than {HARMFUL_VOXELS:g} voxels.",
                "Resample the file onto that grid (nearest neighbour for labels); if only the header is wrong, copy "
                "the header of the other file.",
            )

    # ------------------------------------------------------------------------------------------------ label map

    def _check_label(self, image_grid: Grid | None) -> npt.NDArray[np.bool_] | None:
        """Report on the label map; its foreground (D, H, W) if it lies on the image's grid and is not empty."""
        path = self.case.label
        if path is None:
            return None
        try:
            volume = read_volume(path)
            grid = volume.grid
        except DataError as error:
            self._unreadable(path, error)
            return None
        self._check_forms(path, grid)
        if image_grid is not None:
            self._compare(path, grid, image_grid, "the image")
        if volume.array.shape[0] != 1:
            self.report(
                "error",
                "label-channels",
                f"{self._name(path)}: {volume.array.shape[0]} channels, expected one map of integers.",
                "Merge the channels into one label map.",
            )
            return None
        label = self._as_integers(path, volume.array[0])
        if label is None:
            return None
        counts, coordinates = _counts_and_centroids(label)
        self.findings.values = set(counts)
        self._check_values(path, counts)
        self._keep_centroids(grid, counts, coordinates)
        foreground = label > 0 if self.labels.ignore is None else (label > 0) & (label != self.labels.ignore)
        if image_grid is None or grid.shape_dhw != image_grid.shape_dhw or not foreground.any():
            return None
        return foreground

    def _as_integers(self, path: Path, label: Array) -> Array | None:
        if label.dtype.kind in "iu":
            return label
        rounding = rounding_of(label)
        if rounding.num_non_finite:
            self.report(
                "error",
                "non-finite",
                f"{self._name(path)}: {rounding.num_non_finite} voxels of the label map are NaN or infinite.",
                "Correct the label map; unlabelled voxels are 0, or the ignore label.",
            )
            return None
        if rounding.num_off:
            self.report(
                "error",
                "label-not-integer",
                f"{self._name(path)}: label values that are no integers: {rounding.examples}.",
                "Use nearest-neighbour interpolation when label maps are resampled; give the map, not probabilities.",
            )
            return None
        if rounding.furthest:
            self.report(
                "warning",
                "label-near-integer",
                f"{self._name(path)}: label values up to {rounding.furthest:.2g} away from integers; they are rounded.",
                "Save the label map as integers without scaling.",
            )
        else:
            self.report(
                "info",
                "label-float",
                f"{self._name(path)}: the label map is stored as real numbers, all of them whole.",
                "Nothing; stored as integers it would be smaller.",
            )
        integers = to_integers(label)
        if integers is None:
            self.report(
                "error",
                "unknown-label",
                f"{self._name(path)}: label values from {label.min():g} to {label.max():g} are not in the description.",
                "Correct the label map, or name the right file.",
            )
        return integers

    def _check_values(self, path: Path, counts: Mapping[int, int]) -> None:
        known = self.labels.known_values
        unknown = sorted(set(counts) - known)
        if unknown:
            shown = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            mask = set(counts) <= {0, 255}
            self.report(
                "error",
                "unknown-label",
                f"{self._name(path)}: label values {shown}{more} are not in the description "
                f"(known: {', '.join(map(str, sorted(known)))}).",
                "Save the mask with 1 instead of 255."
                if mask
                else "Correct the label map, or add the values under 'labels' in the description.",
            )
        if not set(counts) - {0, self.labels.ignore}:
            nothing_but = "background" if self.labels.ignore not in counts else "background and ignore"
            self.report(
                "warning",
                "empty-label",
                f"{self._name(path)}: the label map holds nothing but {nothing_but}.",
                "Keep it if the structures are truly absent; otherwise label the scan or take the case out.",
            )

    def _keep_centroids(self, grid: Grid, counts: Mapping[int, int], coordinates: Mapping[int, Array]) -> None:
        findings, middle = self.findings, (np.array(grid.shape_dhw) - 1) / 2
        findings.centre_right_mm = float((grid.affine_dhw @ (*middle, 1.0))[0])
        findings.spacing_right_mm = grid.spacing_mm[2]
        findings.width_right_mm = grid.spacing_mm[2] * grid.shape_dhw[2]
        for label_class in self.labels.classes:
            present = [value for value in label_class.values if value in counts]
            if present:
                weights = [counts[value] for value in present]
                centroid = np.average([coordinates[value] for value in present], axis=0, weights=weights)
                world = grid.affine_dhw @ (*centroid, 1.0)
                findings.centroids_right_mm[label_class.name] = float(world[0])

    # ---------------------------------------------------------------------------------------------------- image

    def _check_image(self, path: Path, first_channel: int, foreground: npt.NDArray[np.bool_] | None) -> list[bool]:
        """Report on an image's voxels; for each channel, whether the foreground has its lowest value only."""
        try:
            array = read_volume(path).array
        except DataError as error:
            self._unreadable(path, error)
            return []
        on_background = []
        for number, channel in enumerate(array, start=first_channel):
            name = self.channels[number] if number < len(self.channels) else f"channel {number}"
            where = self._name(path) if len(array) == 1 else f"{self._name(path)}, channel {name}"
            num_bad = 0 if channel.dtype.kind in "iu" else int(channel.size - np.count_nonzero(np.isfinite(channel)))
            if num_bad:
                self.report(
                    "error",
                    "non-finite",
                    f"{where}: {num_bad} of {channel.size} voxels are NaN or infinite.",
                    "Replace them, for example by the value of the background, or export the scan again.",
                )
                continue
            low, high = float(channel.min()), float(channel.max())
            if low == high:
                self.report(
                    "error",
                    "constant-image",
                    f"{where}: every voxel has the value {low:g}.",
                    "Export the scan again, or take the case out of the data set.",
                )
                continue
            self.findings.channel_hashes.append(_content_hash(channel))
            if is_ct(name):
                self._check_hounsfield(where, low, high)
            if foreground is not None and foreground.shape == channel.shape:
                on_background.append(float(channel[foreground].max()) == low)
        return on_background

    def _check_hounsfield(self, where: str, low: float, high: float) -> None:
        if low >= 0:
            self.report(
                "warning",
                "ct-not-negative",
                f"{where}: values from {low:g} to {high:g}; CT in Hounsfield units has negative ones (air -1000, "
                "fat -100). Mostly the rescale intercept was not applied, or the values were rescaled.",
                "Convert the scan from DICOM again with rescale slope and intercept; call the channel by another name "
                "if it is no CT.",
            )
        elif low > AIR_HU:
            self.report(
                "warning",
                "ct-no-air",
                f"{where}: values from {low:g} to {high:g}, none near air (-1000 HU).",
                "Nothing if the scan is cropped inside the body or clipped on purpose, as all others are; otherwise "
                "convert it again with rescale slope and intercept.",
            )

    def _check_repeated_channels(self) -> None:
        if len(set(self.findings.channel_hashes)) < len(self.findings.channel_hashes):
            self.report(
                "warning",
                "repeated-channel",
                f"two channels of {', '.join(self._name(path) for path in self.case.images)} have identical voxels.",
                "Check that each channel holds its own sequence, not a copy of another.",
            )


def _apart_voxels(first: Affine, second: Affine, shape_ijk: tuple[int, int, int]) -> float:
    """Largest distance between where two affines put a corner of the grid, in the smallest voxel size."""
    corners = np.array(np.meshgrid(*((0, size - 1) for size in shape_ijk))).reshape(3, -1)
    apart = (first - second) @ np.vstack([corners, np.ones(8)])
    smallest = np.linalg.norm(first[:3, :3], axis=0).min()
    return float(np.linalg.norm(apart[:3], axis=0).max() / smallest)


def _content_hash(channel: Array) -> str:
    """Hash of shape and values, whatever type they are stored as."""
    digest = hashlib.blake2b(repr(channel.shape).encode(), digest_size=16)
    for plane in channel:
        digest.update(np.ascontiguousarray(plane, dtype=np.float32).data)
    return digest.hexdigest()


def _counts_and_centroids(label: Array) -> tuple[dict[int, int], dict[int, Array]]:
    """Number of voxels and centroid (d, h, w) of every value in an integer label map (D, H, W).

    Goes plane by plane, so that the temporary arrays stay small.
    """
    low, high = int(label.min()), int(label.max())
    if high - low < _LARGEST_TABLE:
        values, indices = np.arange(low, high + 1), label
    else:
        values, indices = np.unique(label, return_inverse=True)
        indices, low = indices.reshape(label.shape), 0
    counts = np.zeros(values.size, np.int64)
    sums = np.zeros((3, values.size))
    h, w = (axis.reshape(-1).astype(np.float64) for axis in np.indices(label.shape[1:]))
    for d, plane in enumerate(indices):
        index = plane.reshape(-1).astype(np.int64) - low
        number = np.bincount(index, minlength=values.size)
        counts += number
        sums[0] += d * number
        sums[1] += np.bincount(index, weights=h, minlength=values.size)
        sums[2] += np.bincount(index, weights=w, minlength=values.size)
    present = np.flatnonzero(counts).tolist()
    found = {int(values[index]): index for index in present}
    return (
        {value: int(counts[index]) for value, index in found.items()},
        {value: sums[:, index] / counts[index] for value, index in found.items()},
    )
