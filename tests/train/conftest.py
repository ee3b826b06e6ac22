"""A stored data set and a network so small that a training step takes milliseconds."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.nets import Network, create_model
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.loader import PatchSource
from voxelseg.patches.sampler import Sampling
from voxelseg.plan.fingerprint import Fingerprint, compute_fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import make_plan
from voxelseg.preprocess.store import StoredCase, store_dataset
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.segmentation import segmentation_trainer
from voxelseg.train.loop.trainer import Trainer

PATCH = (16, 16, 8)


class Pointwise(Network):
    """The least that can be trained: each voxel is judged by its own intensity."""

    def __init__(self, num_classes: int) -> None:
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.head = nn.Conv3d(1, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


@dataclass(frozen=True)
class Prepared:
    """The tiny data set, measured, planned and stored."""

    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan
    stored: dict[str, StoredCase]

    def unet(self, *, deep_supervision=True) -> Network:
        """A U-Net of three levels."""
        torch.manual_seed(0)
        return create_model(
            "unet_s",
            in_channels=1,
            num_classes=self.dataset.labels.num_outputs,
            width=2,
            strides=(1, 2, 2),
            deep_supervision=deep_supervision,
        )

    def trainer(self, folder, *, augmentation=None, unet=None, batch_size=2, **settings) -> Trainer:
        """Trainer of three cases that validates on the fourth; `settings` are keys of TrainConfig or of Trainer."""
        keys = set(TrainConfig.model_fields)
        config = TrainConfig(
            **{"workers": 0, "validation_patches": 2, "epochs": 3, "steps_per_epoch": 2}
            | {key: value for key, value in settings.items() if key in keys}
        )
        *training, validation = self.stored.values()
        source = PatchSource(
            cases=training,
            patch_size=PATCH,
            batch_size=batch_size,
            accumulate=config.accumulate,
            sampling=Sampling(foreground_share=0.5),
            augmentation=augmentation or AugmentationConfig(enabled=False),
            mirror_axes=(),
            anisotropic=False,
            seed=0,
        )
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        return segmentation_trainer(
            Pointwise(self.dataset.labels.num_outputs) if unet is None else unet,
            config,
            source,
            labels=self.dataset.labels,
            folder=folder,
            **{"device": torch.device("cpu"), "validation_cases": [validation]}
            | {key: value for key, value in settings.items() if key not in keys},
        )


@pytest.fixture(scope="session")
def prepared(tiny_msd, tmp_path_factory) -> Prepared:
    """The tiny data set, stored once."""
    dataset = read_dataset(tiny_msd)
    fingerprint = compute_fingerprint(dataset)
    plan = make_plan(fingerprint)
    return Prepared(dataset, fingerprint, plan, store_dataset(dataset, plan, tmp_path_factory.mktemp("store")))
