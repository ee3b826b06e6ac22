"""Small data sets on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data import Case, Dataset, LabelScheme
from voxelseg.data.labels import parse_labels
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.volume import Volume

LABELS = parse_labels({"background": 0, "liver": 1, "spleen": 2})
AFFINE = np.diag([1.5, 2.0, 3.0, 1.0])  # i, j, k along right, anterior, superior: spacing 3, 2, 1.5 along D, H, W


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., Dataset]:
    """Function that writes (image (C, D, H, W), label (D, H, W)) pairs as NIfTI files and returns their data set."""

    def write(*pairs: tuple[np.ndarray, np.ndarray], labels: LabelScheme = LABELS, channels: int = 1) -> Dataset:
        cases = []
        for number, (image, label) in enumerate(pairs):
            paths = (tmp_path / f"image_{number}.nii.gz", tmp_path / f"label_{number}.nii.gz")
            for path, array in zip(paths, (image, label[None]), strict=True):
                d, h, w = array.shape[1:]
                write_volume(path, Volume(array, Grid(shape_ijk=(w, h, d), affine_ijk=AFFINE)))
            cases.append(Case(f"case_{number}", (paths[0],), paths[1]))
        return Dataset("Tiny", tmp_path, "pairs", ("MRI",) * channels, labels, tuple(cases))

    return write
