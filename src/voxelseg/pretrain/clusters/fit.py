"""Fitting the clusterers of a set of scans, each of them once: what is there is read, what is missing is made.

CACHE/clusters-<key>/ holds one file for each clusterer and clusters.json, which says for people what the key is made
of: the settings, the seed, slice axis and size of the crops, and what identifies the preprocessed scans. Clusterer j is
a function of these and j alone, so neither a kill nor a larger number of clusterers nor other processes change it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.files import locked, sha256_of_json, write_json
from voxelseg.parallel import map_unordered
from voxelseg.pretrain.clusters.files import Clusterer, read_clusterer, write_clusterer
from voxelseg.pretrain.clusters.kmeans import fit_kmeans
from voxelseg.pretrain.clusters.labels import Clusterers
from voxelseg.pretrain.clusters.slices import SliceSource, draw_slices
from voxelseg.train.machines.resources import free_memory

FORMAT_VERSION = 1
"""Part of every key: raise it when clusterers are fitted in another way."""
_OVERHEAD = 2.0
"""Memory of a fit against that of its slices: starts, a minibatch and scikit-learn's copies come on top."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Everything that the clusterers depend on."""

    source: SliceSource
    seed: int

    def decisive(self) -> dict[str, object]:
        """What the key is made of, as JSON."""
        return {
            "version": FORMAT_VERSION,
            "settings": self.source.settings.deciding(),
            "seed": self.seed,
            "slice_axis": self.source.slice_axis,
            "crop_size": list(self.source.crop_size),
            "num_channels": self.source.num_channels,
            "scans": [[scan.id, scan.key] for scan in self.source.scans],
        }

    @property
    def key(self) -> str:
        """Tells these clusterers from any others; equal for any number of them."""
        return sha256_of_json(self.decisive())[:16]

    def folder(self, cache: Path) -> Path:
        """Where the clusterers are kept."""
        return cache / f"clusters-{self.key}"

    def num_clusters(self, index: int) -> int:
        """Clusters of clusterer `index`, unless it has too few slices and may have fewer."""
        settings = self.source.settings
        return int(self._generator(index).integers(settings.least_clusters, settings.most_clusters + 1))

    def kmeans_seed(self, index: int) -> int:
        """Seed of scikit-learn for clusterer `index`: another one for each."""
        first = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
        return (first + index) % 2**32

    def check(self) -> None:
        """DataError if the scans can never give the slices that some clusterer needs; nothing is read.

        ConfigError if the memory cannot hold the centres of all clusters, or the slices of one fit.
        """
        count = self.source.settings.num_clusterers
        sizes = [self.num_clusters(index) for index in range(count)]
        for size in sizes:
            self.source.check(size)
        needs = (
            (
                f"the centres of {count} clusterers",
                4 * self.source.values_per_slice * sum(sizes),
                "num_clusterers or most_clusters",
            ),
            ("the slices of one clusterer", self.source.expected_bytes(), "most_slices, scan_share or most_clusters"),
        )
        free = free_memory(torch.device("cpu"))
        for what, needed, lower in needs:
            if free is not None and needed > free:
                raise ConfigError(
                    f"{what} take {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free. Set a lower "
                    f"masked_clusters.{lower}, or make crops smaller (plan.patch_size)."
                )

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    def fit(self, index: int) -> Clusterer:
        """Clusterer `index`; DataError if its scans give too few different slices."""
        settings, generator = self.source.settings, self._generator(index)
        num_clusters = int(generator.integers(settings.least_clusters, settings.most_clusters + 1))
        least = num_clusters * settings.slices_per_cluster
        sample = draw_slices(self.source, generator, least=least)
        if sample.num_different < least:
            fewer = sample.num_different // settings.slices_per_cluster
            if not settings.fewer_clusters or fewer < 2:
                reason = self.source.too_few(num_clusters, found=sample.num_different, constant=sample.num_constant)
                raise DataError(f"clusterer {index + 1}: {reason}")
            num_clusters = fewer
        seed = self.kmeans_seed(index)
        centres, labels = fit_kmeans(sample.rows, num_clusters, settings, seed=seed)
        counts = np.bincount(labels, minlength=num_clusters)
        return Clusterer(index=index, seed=seed, slice_axis=self.source.slice_axis, centres=centres, counts=counts)


def fit_clusterers(plan: ClusterPlan, cache: Path, *, workers: int, progress: Progress | None = None) -> Clusterers:
    """All clusterers, fitted where `cache` does not hold them, `workers` at a time as far as the memory allows.

    A clusterer is written as soon as it is there, so the same call after a kill goes on; a damaged file is made again.
    Each fit takes one thread and, in memory, about twice its slices (`SliceSource.expected_bytes`). DataError if the
    scans have too few slices; VoxelsegError if nothing can be written.
    """
    plan.check()
    count = plan.source.settings.num_clusterers
    folder = plan.folder(cache)
    with locked(folder, wait=True):
        write_json(folder / "clusters.json", plan.decisive())
        sizes = {index: len(one.centres) for index in range(count) if (one := _read(folder, plan, index)) is not None}
        missing = [index for index in range(count) if index not in sizes]
        fit = partial(_fit_and_write, plan, folder)
        several = _affordable(workers, plan.source)
        for place, size in map_unordered(fit, missing, workers=several, name=lambda index: f"clusterer {index + 1}"):
            sizes[missing[place]] = size
            if progress is not None:
                progress(f"fitting {count} clusterers", len(sizes) / count)
    return _together(folder, plan, [sizes[index] for index in range(count)])


def _read(folder: Path, plan: ClusterPlan, index: int) -> Clusterer | None:
    return read_clusterer(folder, index, plan.source)


def _fit_and_write(plan: ClusterPlan, folder: Path, index: int) -> int:
    """Fit and keep a clusterer; returns the number of its clusters."""
    clusterer = plan.fit(index)
    write_clusterer(folder, clusterer)
    return len(clusterer.centres)


def _affordable(workers: int, source: SliceSource) -> int:
    """`workers`, or as many as half of the free memory holds the slices of, and one at least."""
    free = free_memory(torch.device("cpu"))
    if free is None:
        return workers
    return min(workers, max(1, int(free / 2 / (_OVERHEAD * source.expected_bytes()))))


def _together(folder: Path, plan: ClusterPlan, sizes: Sequence[int]) -> Clusterers:
    """Clusterers of these sizes from their files, read one by one into place."""
    centres = torch.empty(sum(sizes), plan.source.values_per_slice)
    counts = torch.empty(sum(sizes), dtype=torch.int64)
    parts = zip(torch.split(centres, list(sizes)), torch.split(counts, list(sizes)), strict=True)
    for index, (own_centres, own_counts) in enumerate(parts):
        found = _read(folder, plan, index)
        if found is None or len(found.centres) != sizes[index]:
            raise DataError(f"{folder}: clusterer {index + 1} was changed meanwhile. Run the same command again.")
        own_centres.copy_(torch.from_numpy(found.centres))
        own_counts.copy_(torch.from_numpy(found.counts))
    return Clusterers(centres, sizes, counts)
