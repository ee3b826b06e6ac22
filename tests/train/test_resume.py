"""A training that is killed after any of its steps and continued is, bit for bit, one that was not."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from watching import events, same, scale_losses, weights_of

from voxelseg.nets import Network, create_model
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.sparse.settings import SparseConfig

STEPS = 6
"""Of three epochs."""


class KilledError(BaseException):
    """Ends a training as SIGKILL does: nothing of ours may catch it."""


class Drawing(Network):
    """Draws from every global generator in training: dropout, and what networks of others may do."""

    def __init__(self, num_classes):
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.first, self.head = nn.Conv3d(1, 4, 1), nn.Conv3d(4, num_classes, 1)

    def forward(self, x):
        y = nn.functional.dropout3d(self.first(x), 0.3, training=self.training)
        factor = 1 + 0.1 * (random.random() + np.random.default_rng(np.random.randint(9)).random()) * self.training  # noqa: NPY002
        return self.head(y * factor)


def e2enet(prepared):
    torch.manual_seed(0)
    return create_model(
        "e2enet", in_channels=1, num_classes=prepared.dataset.labels.num_outputs, width=2, strides=(1, 2, 2)
    )


COMBINATIONS = {
    "average and dropout": {"ema": 0.9, "unet": lambda prepared: Drawing(3)},
    "plateau": {"schedule": "plateau", "plateau_patience": 1, "lr": 1e-5},
    "early stopping": {"early_stopping": 1, "lr": 1e-5, "schedule": "constant"},
    "accumulation": {"accumulate": 2, "batch_dice": True, "optimizer": "sgd"},
    "augmentation": {"augmentation": AugmentationConfig(), "unet": lambda prepared: prepared.unet()},
    "loss scaling": {"scale": 4096.0},
    "random growth": {"unet": e2enet, "sparse": SparseConfig(update_every=1), "ema": 0.9},
    "gradient growth": {"unet": e2enet, "sparse": SparseConfig(update_every=2, growth="gradient"), "optimizer": "sgd"},
    "rare validation": {"validate_every": 2, "warmup": 0.5, "schedule": "cosine"},
}


class Case:
    """A training of `STEPS` steps with the settings of a combination, in one process or in several lives."""

    def __init__(self, prepared, folder, settings):
        self.prepared = prepared
        self.folder = folder
        self.settings = dict(settings)
        self.scale = self.settings.pop("scale", None)
        self.network = self.settings.pop("unet", None)
        self.best = None

    def trainer(self):
        torch.manual_seed(0)
        network = None if self.network is None else self.network(self.prepared)
        trainer = self.prepared.trainer(self.folder, unet=network, on_best=self.keep, **self.settings)
        if self.scale is not None:
            scale_losses(trainer, self.scale, too_large=1024.0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        return trainer

    def keep(self, trainer):
        self.best = weights_of(trainer)

    def whole(self):
        trainer = self.trainer()
        trainer.fit()
        return self.end(trainer)

    def killed_after(self, step):
        first = self.trainer()

        def kill(state):
            if state.step == step:
                raise KilledError

        first.on_progress = kill
        with pytest.raises(KilledError):
            first.fit()
        second = self.trainer()
        if (self.folder / STATE_FILE).is_file():  # where the generators stand must come from there
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(12345)
        second.load_state()
        second.fit()
        return self.end(second)

    def end(self, trainer):
        told = [
            {key: value for key, value in event.items() if key not in ("elapsed_s", "time")}
            for kind in ("epoch", "topology", "early_stop")
            for event in events(self.folder, kind)
        ]
        state = torch.load(self.folder / STATE_FILE, weights_only=True)
        return weights_of(trainer), self.best, told, state["plateau"], state["best"], state["scaler"]


@pytest.mark.parametrize("saved", ["after epochs", "after steps"])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_killed_after_any_step_the_same_bits_come_out(prepared, tmp_path, monkeypatch, name, saved):
    if saved == "after steps":
        monkeypatch.setattr("voxelseg.train.loop.trainer.SAVE_EVERY_S", -1.0)
    weights, best, *rest = Case(prepared, tmp_path / "whole", COMBINATIONS[name]).whole()
    last = rest[0][-1]["step"] if name == "early stopping" else STEPS
    for step in range(1, last):
        found, found_best, *found_rest = Case(prepared, tmp_path / str(step), COMBINATIONS[name]).killed_after(step)
        assert same(weights, found)
        assert same(best, found_best)
        assert rest == found_rest


def test_the_combinations_do_what_they_are_named_for(prepared, tmp_path):
    """Else the test above would prove nothing."""
    ends = {name: Case(prepared, tmp_path / name, settings).whole() for name, settings in COMBINATIONS.items()}
    told = {name: end[2] for name, end in ends.items()}
    assert ends["plateau"][3]["factor"] < 1
    assert [one["event"] for one in told["early stopping"]].count("early_stop") == 1
    assert ends["loss scaling"][5]["scale"] < 4096.0
    assert [one["update"] for one in told["random growth"] if one["event"] == "topology"] == [0, 1, 2, 3, 4, 5]
    assert [one["update"] for one in told["gradient growth"] if one["event"] == "topology"] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_continuing_with_other_workers_gives_the_same_bits(prepared, tmp_path, workers):
    settings = {"augmentation": AugmentationConfig(), "accumulate": 2, "epochs": 2}
    whole = Case(prepared, tmp_path / "whole", settings).whole()
    case = Case(prepared, tmp_path / "killed", {**settings, "workers": workers})
    found = case.killed_after(3)
    assert same(whole[0], found[0])
    assert whole[2:] == found[2:]
