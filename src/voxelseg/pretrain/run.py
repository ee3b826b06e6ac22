"""The folder of a pre-training, and everything that says how its weights come about.

PRE/pretraining.json    command, versions, seed, device, scans, configuration, plan, fingerprint
PRE/plan.json           the plan as it is used
PRE/model.safetensors   the weights at the end, best.safetensors those of the best running validation
PRE/training_state.pt   what continuing needs
PRE/pictures.npz        what the task looks like at the end, if it can be seen
PRE/log.jsonl           as of any training
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from voxelseg.checkpoint import BEST_FILE, MODEL_FILE
from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import ConfigError
from voxelseg.files import read_json, write_json
from voxelseg.nets import Network
from voxelseg.nets.parts import Part
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.pretrain.backbone import build_backbone, trained_weights
from voxelseg.pretrain.config import PretrainingConfig, PretrainingLoopConfig, find_method
from voxelseg.pretrain.crops import held_out_scans
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.record import differences, made_with, refuse_others
from voxelseg.train.run import PLAN_FILE

PRETRAINING_FILE = "pretraining.json"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A network that is to learn from scans without labels."""

    folder: Path
    scans: Dataset
    plan: Plan
    model: str
    config: PretrainingConfig
    seed: int
    device: torch.device

    @property
    def model_file(self) -> Path:
        """PRE/model.safetensors."""
        return self.folder / MODEL_FILE

    @property
    def best_file(self) -> Path:
        """PRE/best.safetensors."""
        return self.folder / BEST_FILE

    @property
    def parts(self) -> tuple[list[Case], list[Case]]:
        """Scans that are learnt from, and those that are held out to watch the training by."""
        least = find_method(self.config.method).least_held_out
        return held_out_scans(self.scans.cases, share=self.config.pretrain.held_out, seed=self.seed, least=least)

    @property
    def loop(self) -> PretrainingLoopConfig:
        """The `train` section with the length of an epoch: one crop of each scan, unless it says another."""
        train = self.config.train
        if train.steps_per_epoch:
            return train
        learnt, per_step = len(self.parts[0]), self.plan.batch_size * train.accumulate
        return train.model_copy(update={"steps_per_epoch": -(-learnt // per_step)})

    def build_network(self, part: Part = "all") -> Network:
        """The network with fresh weights, of which only `part` can be trained; from PyTorch's global generator."""
        return build_backbone(self.model, with_classes(self.scans, self.config), self.config, self.plan, part)


def with_classes(scans: Dataset, config: PretrainingConfig) -> Dataset:
    """`scans` as a data set of as many classes as the network is built for, since its heads need some."""
    classes = [LabelClass(f"class {value}", (value,), value) for value in range(1, config.pretrain.num_classes)]
    return replace(scans, labels=LabelScheme(tuple(classes)))


def check_num_classes(model: str, scans: Dataset, config: PretrainingConfig) -> None:
    """ConfigError if a number of classes is set and no width of the network follows it."""
    if "num_classes" not in config.pretrain.model_fields_set:
        return
    one_more = config.pretrain.model_copy(update={"num_classes": config.pretrain.num_classes + 1})
    with torch.device("meta"):
        shapes = [
            {name: tensor.shape for name, tensor in trained_weights(network, "all").items()}
            for network in (
                build_backbone(model, with_classes(scans, other), other, None, "all")
                for other in (config, config.model_copy(update={"pretrain": one_more}))
            )
        ]
    if shapes[0] == shapes[1]:
        raise ConfigError(f"pretrain.num_classes: no width of {model} follows the classes. Leave it out.")


def has_begun(folder: Path) -> bool:
    """Whether the folder holds a pre-training that has learnt something."""
    learnt = any((folder / name).is_file() for name in (STATE_FILE, BEST_FILE, MODEL_FILE))
    return learnt and (folder / PRETRAINING_FILE).is_file()


def open_pretraining(pretraining: Pretraining, fingerprint: Fingerprint) -> None:
    """Start a pre-training in its folder, which must be locked, or see to it that the one that is there is the same.

    Raises ConfigError naming what differs if the folder holds one of another model, method, configuration, plan, seed
    or other scans. Workers, threads and TensorBoard may differ: the record then gets the new ones. One that has learnt
    nothing so far, since its settings did not suit the scans, may be replaced.
    """
    folder, scans = pretraining.folder, pretraining.scans
    identity = {
        "method": pretraining.config.method,
        "model": pretraining.model,
        "seed": pretraining.seed,
        "config": pretraining.config.record(),
        "plan": pretraining.plan.model_dump(mode="json"),
        "scans": {
            "name": scans.name,
            "layout": scans.layout,
            "root": str(scans.source.absolute()),
            "num_scans": len(scans.cases),
            "channels": list(scans.channels),
            "held_out": [case.id for case in pretraining.parts[1]],
        },
    }
    path = folder / PRETRAINING_FILE
    if not has_begun(folder):
        pretraining.plan.write(folder / PLAN_FILE)
        measured = fingerprint.model_dump(mode="json")
        write_json(path, {**made_with(pretraining.device), **identity, "fingerprint": measured})
        return
    stored = read_json(path, remedy="Choose another --out.")
    differing = differences({key: stored.get(key) for key in identity}, identity)
    if not differing and stored.get("fingerprint") != fingerprint.model_dump(mode="json"):
        differing = ["the scans have changed since"]
    refuse_others(folder, differing)
    if stored["config"] != identity["config"]:
        write_json(path, {**stored, "config": identity["config"]})
