"""Runs of small networks on the tiny data set, for tests of whole folds."""

import json

import torch

from voxelseg.data.splits import Split
from voxelseg.train.config import build_config
from voxelseg.train.run import open_run

MEDNEXT = ("model.width=2", "model.blocks=1")
SETTINGS = ("train.workers=0", "train.validation_patches=1", "augmentation.enabled=false")


def opened_run(prepared, folder, *settings, model="mednext_xs", epochs=2, steps=1, plan=None, **changes):
    """A run whose fold 0 holds out the last case, with epochs of `steps` steps; `plan` are values of the plan.

    `changes` are arguments of `open_run`.
    """
    *training, held_out = prepared.stored
    length = () if epochs is None else (f"train.epochs={epochs}", f"train.steps_per_epoch={steps}")
    return open_run(
        folder,
        **{
            "dataset": prepared.dataset,
            "plan": prepared.plan.changed(**{"patch_size": (16, 32, 16), "batch_size": 1, **(plan or {})}),
            "fingerprint": prepared.fingerprint,
            "splits": [Split(tuple(training), (held_out,)), Split((*training[1:], held_out), (training[0],))],
            "model": model,
            "config": build_config([*SETTINGS, *length, *settings]),
            "seed": 0,
            "device": torch.device("cpu"),
        }
        | changes,
    )


def events(folder, kind):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]
