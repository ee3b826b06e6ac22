"""Small data sets on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data import Case, Dataset, LabelScheme
from voxelseg.data.labels import parse_labels
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.plan import Normalization, Plan
from voxelseg.volume import Volume

LABELS = parse_labels({"background": 0, "liver": 1, "spleen": 2})
AFFINE = np.diag([-1.5, 2.0, 3.0, 1.0])  # i against right, j to anterior, k to superior


@pytest.fixture
def plan() -> Plan:
    """Plan that resamples the scans of `write_set` to 1.5 mm."""
    return Plan(
        channels=("MRI",),
        spacing_mm=(1.5, 1.5, 1.5),
        anisotropic=False,
        normalization=(Normalization(kind="zscore"),),
        patch_size=(8, 8, 8),
        batch_size=2,
        mirror_axes=(),
        median_shape=(8, 8, 8),
        strides=((1, 1, 1),),
        kernels=((3, 3, 3),),
    )


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., Dataset]:
    """Function that writes cases of noise with a liver and a spleen as NIfTI files and returns their data set."""

    def write(*ids: str, labels: LabelScheme = LABELS) -> Dataset:
        cases = []
        folder = tmp_path / "data"
        for number, name in enumerate(ids):
            grid = Grid(shape_ijk=(12, 10, 8 + number), affine_ijk=AFFINE)
            image = np.random.default_rng(number).normal(100, 20, (1, *grid.shape_dhw)).astype(np.float32)
            label = np.zeros((1, *grid.shape_dhw), np.uint8)
            label[0, 1:4, 2:6, 3:9] = 1
            label[0, 5:7, 4:8, 2:5] = 2
            paths = (folder / f"image_{number}.nii.gz", folder / f"label_{number}.nii.gz")
            write_volume(paths[0], Volume(image, grid))
            write_volume(paths[1], Volume(label, grid))
            cases.append(Case(name, (paths[0],), paths[1]))
        return Dataset("Tiny", folder, "pairs", ("MRI",), labels, tuple(cases))

    return write
