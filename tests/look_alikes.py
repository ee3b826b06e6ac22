"""Tiny folders that look like those in which the makers of public data sets hand them out, written with NiBabel."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

SHAPE_IJK = (11, 9, 7)
AFFINE = np.array([[-1.5, 0, 0, 8], [0, -2, 0, 7], [0, 0, 3, 40], [0, 0, 0, 1.0]])  # LPS, as most CT scans
KITS_AFFINE = np.array([[0, 0, -2.0, 0], [0, -1.5, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])  # slices are the first axis

ABDOMEN_13 = tuple(range(14))


class LookAlike:
    """A folder in which scans and label maps are written as a data set's makers do."""

    def __init__(self, root: Path, *, affine: np.ndarray = AFFINE, values: Sequence[int] = (0, 1)) -> None:
        self.root = root
        self.affine = affine
        self.values = values
        self.count = 0

    def image(self, name: str, *, channels: int = 0, low: int = -1000) -> Path:
        """Write noise, with so many channels as last axis if any."""
        self.count += 1
        shape = (*SHAPE_IJK, channels) if channels else SHAPE_IJK
        array = np.random.default_rng(self.count).integers(low, low + 1400, shape).astype(np.int16)
        return self._save(name, array)

    def label(self, name: str) -> Path:
        """Write a label map that shows every value."""
        array = np.zeros(SHAPE_IJK, np.uint8)
        for position, value in enumerate(self.values):
            array[1 + position % 9, 2 + position // 9, 2:5] = value
        return self._save(name, array)

    def case(self, images: Sequence[str], label: str | None, *, channels: int = 0, low: int = -1000) -> None:
        for name in images:
            self.image(name, channels=channels, low=low)
        if label is not None:
            self.label(label)

    def _save(self, name: str, array: np.ndarray) -> Path:
        path = self.root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, self.affine), path)
        return path


def btcv(root: Path) -> Path:
    made = LookAlike(root / "RawData", values=ABDOMEN_13)
    for number in (1, 2, 21, 35, 40):
        made.case([f"Training/img/img{number:04d}"], f"Training/label/label{number:04d}")
    made.case(["Testing/img/img0061"], None)
    return made.root


def amos22(root: Path) -> Path:
    made = LookAlike(root / "amos22", values=tuple(range(16)))
    for number in (1, 4, 381, 507, 508):  # the last two are MRI
        low = -1000 if number <= 500 else 0
        made.case([f"imagesTr/amos_{number:04d}"], f"labelsTr/amos_{number:04d}", low=low)
    for number in (8, 540):
        low = -1000 if number <= 500 else 0
        made.case([f"imagesVa/amos_{number:04d}"], f"labelsVa/amos_{number:04d}", low=low)
    made.case(["imagesTs/amos_0003"], None)
    (made.root / "dataset.json").write_text('{"name": "AMOS"}')
    return made.root


def flare21(root: Path) -> Path:
    made = LookAlike(root / "FLARE21", values=range(5))
    for number in (0, 1, 36):
        made.case([f"TrainingImg/train_{number:03d}_0000"], f"TrainingMask/train_{number:03d}")
    made.case(["ValidationImg/validation_001_0000"], None)
    return made.root


def flare22(root: Path) -> Path:
    made = LookAlike(root / "FLARE22_LabeledCase50", values=ABDOMEN_13)
    for number in (1, 2):
        made.case([f"images/FLARE22_Tr_{number:04d}_0000"], f"labels/FLARE22_Tr_{number:04d}")
    return made.root


def kits19(root: Path) -> Path:
    made = LookAlike(root / "kits19" / "data", affine=KITS_AFFINE, values=range(3))
    for number in (0, 1, 209):
        made.case([f"case_{number:05d}/imaging"], f"case_{number:05d}/segmentation")
    made.case(["case_00210/imaging"], None)
    (made.root / "kits.json").write_text("[]")
    return made.root


def feta21(root: Path) -> Path:
    made = LookAlike(root / "feta_2.1", values=range(8))
    for number in (1, 2, 61):
        start = f"sub-{number:03d}/anat/sub-{number:03d}_rec-{'mial' if number < 41 else 'irtk'}"
        made.case([f"{start}_T2w"], f"{start}_dseg", low=0)
        (made.root / f"{start}_T2w.json").write_text("{}")
    (made.root / "participants.tsv").write_text("participant_id\n")
    return made.root


def brats21(root: Path) -> Path:
    made = LookAlike(root / "BraTS2021_Training_Data", values=(0, 1, 2, 4))
    for number in (0, 2, 1666):
        start = f"BraTS2021_{number:05d}/BraTS2021_{number:05d}"
        made.case([f"{start}_{name}" for name in ("flair", "t1", "t1ce", "t2")], f"{start}_seg", low=0)
    return made.root


def msd_brats(root: Path) -> Path:
    made = LookAlike(root / "Task01_BrainTumour", values=range(4))
    for number in (1, 2, 3):
        made.case([f"imagesTr/BRATS_{number:03d}"], f"labelsTr/BRATS_{number:03d}", channels=4, low=0)
    made.case(["imagesTs/BRATS_485"], None, channels=4, low=0)
    (made.root / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"left by macOS")
    (made.root / "dataset.json").write_text('{"name": "BRATS"}')
    return made.root


def msd_spleen(root: Path) -> Path:
    made = LookAlike(root / "Task09_Spleen")
    for number in (2, 3, 10, 12, 13):
        made.case([f"imagesTr/spleen_{number}"], f"labelsTr/spleen_{number}")
    made.case(["imagesTs/spleen_1"], None)
    (made.root / "dataset.json").write_text('{"name": "Spleen"}')
    return made.root


MAKERS = {
    "btcv": btcv,
    "amos22_ct": amos22,
    "amos22_mri": amos22,
    "flare21": flare21,
    "flare22": flare22,
    "kits19": kits19,
    "feta21": feta21,
    "brats21": brats21,
    "brats21_classes": brats21,
    "msd_brats": msd_brats,
    "msd_spleen": msd_spleen,
}
