"""The tiny scans, stored, and pre-trainings of small networks on them that take seconds."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from voxelseg.data.dataset import Dataset
from voxelseg.plan.fingerprint import Fingerprint, compute_fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import make_plan
from voxelseg.preprocess.store import StoredCase, store_dataset
from voxelseg.pretrain.config import build_pretraining
from voxelseg.pretrain.pretraining import prepare_method, pretrain
from voxelseg.pretrain.run import Pretraining, open_pretraining
from voxelseg.pretrain.scans import read_scans

SETTINGS = ("train.workers=0", "train.validation_patches=2", "train.lr=1e-2")
SMALL_TASKS = {
    "masked-clusters": (
        *("masked_clusters.num_clusterers=2", "masked_clusters.least_clusters=2", "masked_clusters.most_clusters=4"),
        "masked_clusters.head_channels=8",
    ),
    "simmim": ("simmim.cube=[4,8,4]",),
    "rubik": ("rubik.cubes=2",),
    "rubik-cls": (),
    "simclr": ("simclr.embedding=4",),
    "mae": ("mae.block=8",),
}
"""Settings with which each method takes milliseconds a step."""


@dataclass(frozen=True)
class Scans:
    """Six tiny scans, measured, planned and stored as scans without labels."""

    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan
    stored: dict[str, StoredCase]
    cache: Path

    def opened(self, folder, *settings, method="simmim", model="unet_s", epochs=2, plan=None, seed=0):
        """A pre-training of so many epochs of three steps in `folder`; `plan` are values of the plan."""
        folder.mkdir(parents=True, exist_ok=True)
        width = ["model.width=2"] if model in ("unet_s", "e2enet") else []
        config = build_pretraining(method, [*SETTINGS, *width, *SMALL_TASKS[method], *settings], epochs=epochs)
        found = Pretraining(
            folder=folder,
            scans=self.dataset,
            plan=self.plan.changed(**(plan or {})),
            model=model,
            config=config,
            seed=seed,
            device=torch.device("cpu"),
        )
        open_pretraining(found, self.fingerprint)
        return found

    def prepared(self, pretraining):
        """Its method, ready to start."""
        return prepare_method(pretraining, self.stored, cache=self.cache)

    def train(self, pretraining, **options):
        """Do what is left of it."""
        return pretrain(pretraining, self.stored, self.prepared(pretraining), **options)


@pytest.fixture(scope="session")
def tiny_scans(tiny_msd, tmp_path_factory) -> Scans:
    """The tiny data set as scans without labels, stored once."""
    dataset = read_scans(tiny_msd)
    fingerprint = compute_fingerprint(dataset)
    plan = make_plan(fingerprint).changed(patch_size=(16, 32, 16), batch_size=2)
    stored = store_dataset(dataset, plan, tmp_path_factory.mktemp("scans"))
    return Scans(dataset, fingerprint, plan, stored, tmp_path_factory.mktemp("cache"))
