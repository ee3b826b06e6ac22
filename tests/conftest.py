"""Shared fixtures: real scans and reference numbers where they are present, and a tiny data set with a trained run."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; threads would fight over the cores

import numpy as np
import pytest

from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.volume import Volume

if TYPE_CHECKING:
    from voxelseg.train.run import Run

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def _present(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{name} not present: real scans and reference numbers are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans, or skip."""
    return _present("data")


@pytest.fixture(scope="session")
def golden_data() -> Path:
    """Folder of the authors' networks' numbers, or skip."""
    return _present("golden")


def tiny_volumes(number: int) -> tuple[Volume, Volume]:
    """Scan and label map number `number`: a ball and, to its right, a rod, on oblique, flipped or swapped axes."""
    generator = np.random.default_rng(number)
    angle = 0.1 * number
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    flips = np.diag([(-1.0) ** number, 1.0, (-1.0) ** (number // 2)])
    affine = np.eye(4)
    affine[:3, :3] = turn @ flips @ np.diag([1.5, 1.0, 2.0])
    affine[:3, 3] = (-20.0, 10.0, number)
    grid = Grid(shape_ijk=(20, 26, 18), affine_ijk=affine, sform=affine, sform_code=1, qform=affine, qform_code=2)
    size = np.array(grid.shape_dhw)
    d, h, w = np.indices(grid.shape_dhw)
    middle = size / 2 + generator.uniform(-2, 2, 3)
    label = np.zeros(grid.shape_dhw, np.uint8)
    label[(d - middle[0]) ** 2 + (h - middle[1]) ** 2 + (w - middle[2] + 4) ** 2 < 16] = 1
    label[(abs(d - middle[0]) < 5) & (abs(h - middle[1]) < 2) & (abs(w - middle[2] - 4) < 2)] = 2
    scan = (generator.normal(0, 10, label.shape) + np.array([0, 60, 120])[label]).astype(np.float32)
    return Volume(scan[None], grid), Volume(label[None], grid)


def write_tiny_msd(folder: Path, *, num_training: int = 4, num_test: int = 2) -> Path:
    """Data set in MSD layout from the first numbers of `tiny_volumes`; returns `folder`."""
    training = [f"tiny_{number}" for number in range(num_training)]
    test = [f"tiny_{number}" for number in range(num_training, num_training + num_test)]
    for number, name in enumerate([*training, *test]):
        part = "Tr" if name in training else "Ts"
        scan, label = tiny_volumes(number)
        write_volume(folder / f"images{part}" / f"{name}.nii.gz", scan)
        write_volume(folder / f"labels{part}" / f"{name}.nii.gz", label)
    description = {
        "name": "Tiny",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "ball", "2": "rod"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in training],
        "test": [f"./imagesTs/{name}.nii.gz" for name in test],
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@dataclass(frozen=True)
class TinyRun:
    """A trained run and the data set that it was trained on."""

    data: Path
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "fold_0" / "model.safetensors"


@pytest.fixture(scope="session")
def tiny_msd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set; not to be changed."""
    return write_tiny_msd(tmp_path_factory.mktemp("tiny") / "Task01_Tiny")


TINY_SETTINGS = (
    "model.width=4",
    "plan.patch_size=[16,24,16]",
    "plan.batch_size=2",
    "plan.mirror_axes=[1]",
    "train.steps_per_epoch=2",
    "train.workers=0",
    "train.validation_patches=2",
)


@pytest.fixture(scope="session")
def tiny_settings() -> tuple[str, ...]:
    """The settings with which training takes seconds."""
    return TINY_SETTINGS


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., "Run"]:
    """`commands.train` with the arguments for seconds of training on the tiny data set; `settings` are added."""
    from voxelseg import commands

    def train(data: Path, out: Path, *, settings: Sequence[str] = (), **changes: Any) -> "Run":
        arguments: dict[str, Any] = {"model": "unet_s", "epochs": 2, "device": "cpu", "workers": 1, **changes}
        return commands.train(data, out, settings=[*TINY_SETTINGS, *settings], **arguments)

    return train


@pytest.fixture(scope="session")
def tiny_run(tiny_msd: Path, train_tiny: Callable[..., "Run"], tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Folds 0 and 1 of a tiny network, trained for 4 steps; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train_tiny(tiny_msd, folder, fold="0,1")
    return TinyRun(tiny_msd, folder)


@pytest.fixture
def only_networks() -> Iterator[Callable[..., None]]:
    """Leaves only the networks of these names; afterwards all are there again, in their order."""
    from voxelseg.nets import NETWORKS

    every = dict(NETWORKS)

    def leave(*names: str) -> None:
        for name in every.keys() - set(names):
            del NETWORKS[name]

    yield leave
    NETWORKS.clear()
    NETWORKS.update(every)
