"""Slices of crops as rows of numbers, and the rows that a clusterer is fitted on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxelseg.errors import DataError
from voxelseg.geometry import Shape
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.clusters.settings import ClusterConfig
from voxelseg.pretrain.crops import ScanCrops

Rows = npt.NDArray[np.float32]
MOST_CROPS = 20
"""Of each scan, where their number is left open."""
_ROUNDING = 1e-9  # 0.1 x 70 is 7.000000000000001


def slices_of(image: Tensor, slice_axis: int) -> Tensor:
    """Slices of crops (B, C, D, H, W) along `slice_axis` as rows (B, Z, T); T is channels times voxels of a slice."""
    return image.movedim(2 + slice_axis, 1).flatten(2)


def constant_slices(rows: Tensor, num_channels: int) -> Tensor:
    """Which of the slices (..., T) have a single value in each channel."""
    channels = rows.reshape(*rows.shape[:-1], num_channels, -1)
    return (channels.amax(-1) == channels.amin(-1)).all(-1)


@dataclass(frozen=True, kw_only=True)
class SliceSource:
    """Where the slices of all clusterers come from."""

    settings: ClusterConfig
    scans: Sequence[StoredCase]
    crop_size: Shape
    num_channels: int
    slice_axis: int

    @property
    def slices_per_visit(self) -> int:
        """Slices that one scan gives each time that it is read."""
        return (self.settings.crops_per_scan or 1) * self.crop_size[self.slice_axis]

    @property
    def visits(self) -> int:
        """How often a scan may be read."""
        return MOST_CROPS if self.settings.crops_per_scan is None else 1

    @property
    def values_per_slice(self) -> int:
        """Length T of a row."""
        return self.num_channels * prod(self.crop_size) // self.crop_size[self.slice_axis]

    def expected_bytes(self) -> int:
        """Memory that the slices of one clusterer take, unless many of them are left out or equal."""
        needed = self.settings.slices_per_cluster * self.settings.most_clusters
        return 4 * self.values_per_slice * self.expected_slices(needed)

    def expected_slices(self, least: int) -> int:
        """Slices of a clusterer that needs `least` of them, unless many are left out or equal."""
        share = self.num_shared_scans() * self.slices_per_visit
        return min(self.most_slices(), max(share, least + self.slices_per_visit))

    def most_slices(self) -> int:
        """Slices that a clusterer is fitted on at most."""
        return min(self.settings.most_slices, len(self.scans) * self.visits * self.slices_per_visit)

    def num_shared_scans(self) -> int:
        """Scans that make up the share of a clusterer."""
        return ceil(self.settings.scan_share * len(self.scans) - _ROUNDING)

    def check(self, num_clusters: int) -> None:
        """DataError if the scans can never give the slices that so many clusters need; nothing is read."""
        if not self.settings.fewer_clusters and self.most_slices() < num_clusters * self.settings.slices_per_cluster:
            raise DataError(self.too_few(num_clusters, found=self.most_slices(), constant=0))

    def too_few(self, num_clusters: int, *, found: int, constant: int) -> str:
        """What to tell where `found` different slices, besides those that are constant, do not suffice."""
        settings = self.settings
        needed = num_clusters * settings.slices_per_cluster
        size = " x ".join(map(str, self.crop_size))
        left_out = f", besides {constant} that are constant and left out" if constant else ""
        most = found // settings.slices_per_cluster
        lower = "" if most >= settings.least_clusters else " and a lower least_clusters"
        remedies = ["masked_clusters.fewer_clusters=true", f"masked_clusters.most_clusters={most}{lower}"]
        remedies = remedies if most >= 2 else []
        if settings.crops_per_scan is None:
            crops = f"up to {MOST_CROPS}"
        else:
            crops = str(settings.crops_per_scan)
            remedies.append("a larger masked_clusters.crops_per_scan where scans are larger than a crop")
        remedy = f", or set {', or '.join(remedies)}" if found and remedies else " that are not empty"
        return (
            f"a clusterer with {num_clusters} clusters needs {needed} different slices, "
            f"{settings.slices_per_cluster} for each, but {crops} crop(s) of {size} voxels from each of "
            f"{len(self.scans)} scan(s) give {found}{left_out}. Pre-train on more scans{remedy}."
        )


@dataclass(frozen=True, eq=False)
class SliceSample:
    """What one clusterer is fitted on."""

    rows: Rows
    """Slices (n, T), float32."""
    num_different: int
    """How many of them are unlike all others before."""
    num_constant: int
    """Slices that were left out since they are constant."""


def draw_slices(source: SliceSource, generator: np.random.Generator, *, least: int) -> SliceSample:
    """Slices of random crops of `source.settings.scan_share` of the scans, and of more until `least` of them differ.

    Scans are read crop by crop, so the memory is that of the result: at most `most_slices` rows.
    """
    order = generator.permutation(len(source.scans)).tolist() * source.visits
    kept = _Kept(source, least)
    for place, number in enumerate(order):
        if kept.num_slices == source.most_slices():
            break
        if place >= source.num_shared_scans() and len(kept.different) >= least:
            break
        crops = ScanCrops(source.scans[number], source.crop_size)
        for _ in range(source.settings.crops_per_scan or 1):
            crop = torch.from_numpy(crops.random(generator))
            kept.add(slices_of(crop[None], source.slice_axis)[0])
    return SliceSample(kept.rows[: kept.num_slices], len(kept.different), kept.num_constant)


class _Kept:
    """Slices that are collected in one array."""

    def __init__(self, source: SliceSource, least: int) -> None:
        self.source = source
        self.rows = np.empty((source.expected_slices(least), source.values_per_slice), dtype=np.float32)
        self.num_slices = self.num_constant = 0
        self.different: set[bytes] = set()
        """Digests of the slices."""

    def add(self, found: Tensor) -> None:
        """Take slices (Z, T), without constant ones if these are to be skipped, as long as there is room."""
        if self.source.settings.skip_constant:
            left_out = constant_slices(found, self.source.num_channels)
            self.num_constant += int(left_out.sum())
            found = found[~left_out]
        most = self.source.most_slices()
        taken = found[: most - self.num_slices].numpy()
        last = self.num_slices + len(taken)
        if last > len(self.rows):
            larger = (min(2 * last, most), self.rows.shape[1])
            self.rows.resize(larger, refcheck=False)  # in place where that is possible
        self.rows[self.num_slices : last] = taken
        self.different.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in taken)
        self.num_slices = last
