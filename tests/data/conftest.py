"""A tiny data set in nnU-Net layout, written with NiBabel alone, that tests damage in every way."""

import copy
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

AFFINE = np.array([[1.5, 0, 0, -11], [0, 2, 0, 7], [0, 0, 3, 40], [0, 0, 0, 1.0]])
SHAPE_IJK = (14, 12, 10)
LABELS = {"background": 0, "liver": 1, "spleen": 2}


class TinySet:
    """Cases "case_00", ... with a CT and a PET channel; the liver lies 9 voxels right of the spleen."""

    def __init__(self, root: Path, *, num_cases: int) -> None:
        self.root = root
        self.ids = [f"case_{number:02d}" for number in range(num_cases)]
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
        for number, case in enumerate(self.ids):
            rng = np.random.default_rng(number)
            self.write(self.image(case, 0), rng.integers(-1000, 400, SHAPE_IJK).astype(np.int16))
            self.write(self.image(case, 1), rng.normal(0, 1, SHAPE_IJK).astype(np.float32))
            self.write(self.label(case), self.label_array())
        self.describe()

    def describe(self, **changes: object) -> None:
        """Write dataset.json with some of its keys changed, or removed by None."""
        content = {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": LABELS,
            "numTraining": len(self.ids),
            "file_ending": ".nii.gz",
            "name": "Tiny",
        }
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        (self.root / "dataset.json").write_text(json.dumps(content))

    def image(self, case: str, channel: int) -> Path:
        return self.root / "imagesTr" / f"{case}_{channel:04d}.nii.gz"

    def label(self, case: str) -> Path:
        return self.root / "labelsTr" / f"{case}.nii.gz"

    @staticmethod
    def label_array() -> np.ndarray:
        array = np.zeros(SHAPE_IJK, np.uint8)
        array[1:3, 3:6, 2:7] = 2
        array[10:12, 4:8, 3:8] = 1
        return array

    @staticmethod
    def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        nibabel.save(nibabel.Nifti1Image(array, affine), path)

    @staticmethod
    def read(path: Path) -> np.ndarray:
        return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="session")
def _clean_sets(tmp_path_factory):
    return tmp_path_factory.mktemp("clean"), {}


@pytest.fixture
def tiny(tmp_path, _clean_sets):
    """Function that makes a clean tiny data set of so many cases: a copy of one that is written once."""
    folder, made = _clean_sets

    def make(num_cases=12):
        if num_cases not in made:
            made[num_cases] = TinySet(folder / f"{num_cases}", num_cases=num_cases)
        data = copy.copy(made[num_cases])
        data.root = shutil.copytree(data.root, tmp_path / "Dataset001_Tiny")
        return data

    return make
