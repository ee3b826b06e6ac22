"""Cases of a store that are written without scans."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data.labels import LabelScheme, parse_labels
from voxelseg.preprocess import store as store_module
from voxelseg.preprocess.store import StoredCase

LABELS = parse_labels({"background": 0, "liver": 1, "spleen": 2})


@pytest.fixture
def store_case(tmp_path: Path) -> Callable[..., StoredCase]:
    """Function that stores an image (C, D, H, W) and a target (D, H, W) as they are."""

    def store(name: str, image: np.ndarray, target: np.ndarray, labels: LabelScheme = LABELS) -> StoredCase:
        description = {"id": name, "key": "", "inputs": []}
        store_module._write_case(
            tmp_path / name, image.astype(np.float32), target.astype(np.int16), description, labels
        )
        return StoredCase(name, tmp_path / name)

    return store


@pytest.fixture
def cases(store_case) -> list[StoredCase]:
    """Two cases of noise: one larger than a patch of 8 x 10 x 12 with two classes, one smaller with one class."""
    large, small = np.zeros((14, 20, 22)), np.zeros((5, 12, 9))
    large[2:4, 3:6, 3:9] = 1
    large[11, 17:19, 19:21] = 2
    small[2, 5:7, 4:6] = 1
    generator = np.random.default_rng(0)
    return [
        store_case(name, generator.normal(0, 1, (2, *target.shape)), target)
        for name, target in (("large", large), ("small", small))
    ]
