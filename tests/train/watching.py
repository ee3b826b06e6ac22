"""What tests of a training look at: its log, its weights, and a clock of their own."""

import json
import math

import torch


def events(folder, kind=None):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [one for one in found if kind in (None, one["event"])]


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.result.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def scale_losses(trainer, scale, *, too_large):
    """Let `trainer` scale its losses as in float16, and gradients overflow where the scale is above `too_large`."""
    trainer.stepper.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    parameter = next(trainer.model.parameters())
    parameter.register_hook(lambda gradient: gradient * (math.inf if scaler.get_scale() > too_large else 1.0))
    return trainer


class Clock:
    """Seconds that pass only when the network runs: `step` of them in training, `validation` in validation."""

    def __init__(self, *, step=1.0, validation=0.0):
        self.now = 1000.0
        self.step = step
        self.validation = validation

    def __call__(self):
        return self.now

    def watch(self, trainer):
        trainer.model.register_forward_hook(lambda *_: self.advance(trainer.model.training))
        return trainer

    def advance(self, training):
        self.now += self.step if training else self.validation
