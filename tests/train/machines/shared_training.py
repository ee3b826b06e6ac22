"""Trains small networks on the tiny data set, alone or as one of several processes: what test_distributed.py compares.

    torchrun --nproc-per-node 2 shared_training.py DATA STORE OUT [VARIANT ...]

STORE/<case> holds the preprocessed cases of DATA; OUT/<variant>/ gets the weights, the log and the state.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "nets"))
from small import SMALL

from voxelseg.data.layouts import read_dataset
from voxelseg.nets import create_model
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.loader import PatchSource
from voxelseg.patches.sampler import Sampling
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.segmentation import segmentation_trainer
from voxelseg.train.loop.trainer import Trainer
from voxelseg.train.machines.distributed import Processes, joined
from voxelseg.train.sparse.settings import SparseConfig
from voxelseg.train.start.transfer import TransferConfig

PATCH = (16, 32, 16)
VARIANTS = {
    "mednext_s": {"deep_supervision": True},
    "uxnet": {},
    "e2enet": {"deep_supervision": True},
    "logonet": {"optimizer": "sgd", "lr": 1e-2},
    "ulkanet": {
        "optimizer": "sgd",
        "lr": 1e-3,
        "transfer": TransferConfig(freeze="encoder", lr_factors={"classifier.*": 0.5}),
    },
    "accumulated": {"accumulate": 2, "ema": 0.9},
    "pooled": {"batch_dice": True, "optimizer": "sgd", "lr": 1e-2, "gradient_clip": 0.5},
}
"""Settings of a training; the network is the one of that name, or a U-Net."""
CPU = torch.device("cpu")


def trainer(name, data: Path, store: Path, out: Path, processes: Processes) -> Trainer:
    settings = {"epochs": 3, "steps_per_epoch": 2, "workers": 0, "validation_patches": 2, **VARIANTS[name]}
    supervised, transfer = settings.pop("deep_supervision", False), settings.pop("transfer", None)
    model = name if name in SMALL else "unet_s"
    dataset = read_dataset(data)
    *training, validation = (StoredCase(case.id, store / case.id) for case in dataset.cases)
    torch.manual_seed(0)
    options = {**SMALL[model], **({"deep_supervision": True} if supervised else {})}
    network = create_model(model, in_channels=1, num_classes=dataset.labels.num_outputs, **options)
    source = PatchSource(
        cases=training,
        patch_size=PATCH,
        batch_size=4,
        accumulate=settings.get("accumulate", 1),
        sampling=Sampling(foreground_share=0.5),
        augmentation=AugmentationConfig(),
        mirror_axes=(0,),
        anisotropic=False,
        seed=3,
    )
    if processes.is_main:
        (out / name).mkdir(parents=True, exist_ok=True)
    return segmentation_trainer(
        network,
        TrainConfig(**settings),
        source,
        validation_cases=[validation],
        labels=dataset.labels,
        folder=out / name,
        device=processes.device,
        transfer=transfer,
        sparse=SparseConfig(update_every=2) if model == "e2enet" else None,
        processes=processes,
    )


def train(names: list[str], data: Path, store: Path, out: Path, processes: Processes) -> None:
    for name in names:
        one = trainer(name, data, store, out, processes)
        one.load_state()
        one.fit()
        if processes.is_main:
            weights = {key: value.clone().contiguous() for key, value in one.result.state_dict().items()}
            save_file(weights, out / name / "weights.safetensors")


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:4]]
    torch.set_num_threads(1)
    with joined(CPU) as processes:
        train(sys.argv[4:] or list(VARIANTS), *paths, processes)
