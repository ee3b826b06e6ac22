"""Unlabelled scans of a store that are written without files of scans."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data.labels import NO_LABELS
from voxelseg.preprocess import store as store_module
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.clusters.settings import ClusterConfig
from voxelseg.pretrain.clusters.slices import SliceSource

TINY = {
    "num_clusterers": 3,
    "least_clusters": 3,
    "most_clusters": 6,
    "scan_share": 0.3,
    "crops_per_scan": 1,
    "slices_per_cluster": 2,
}


def write_scan(folder: Path, image: np.ndarray, key: str = "") -> StoredCase:
    """The image (C, D, H, W) as a stored case without labels."""
    description = {"id": folder.name, "key": key or folder.name, "inputs": []}
    store_module._write_case(folder, image.astype(np.float32), None, description, NO_LABELS)
    return StoredCase(folder.name, folder)


@pytest.fixture
def store_scan(tmp_path: Path) -> Callable[..., StoredCase]:
    """Function that stores an image under a name."""

    def store(name: str, image: np.ndarray, key: str = "") -> StoredCase:
        return write_scan(tmp_path / name, image, key)

    return store


@pytest.fixture
def scans(store_scan) -> list[StoredCase]:
    """Five scans of noise of two channels, a little larger than a crop of 6 x 8 x 10."""
    generator = np.random.default_rng(0)
    return [store_scan(f"scan_{number}", generator.normal(size=(2, 7, 9, 11))) for number in range(5)]


@pytest.fixture
def source_of() -> Callable[..., SliceSource]:
    """Function that makes the source of slices of some scans, with changes to tiny settings."""

    def make(scans: Sequence[StoredCase], *, slice_axis: int = 0, num_channels: int = 2, **changes) -> SliceSource:
        return SliceSource(
            settings=ClusterConfig(**{**TINY, **changes}),
            scans=scans,
            crop_size=(6, 8, 10),
            num_channels=num_channels,
            slice_axis=slice_axis,
        )

    return make
