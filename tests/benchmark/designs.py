"""A benchmark as it is designed, with the files that trainings would leave."""

import json
from pathlib import Path
from typing import Any

from voxelseg.benchmark.design import Cell, Design
from voxelseg.benchmark.entrants import Entrant, parse_entrants
from voxelseg.benchmark.length import Length
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.case import ClassScore
from voxelseg.metrics import METRICS
from voxelseg.plan.plan import Normalization, Plan

PLAN = Plan(
    channels=("CT",),
    spacing_mm=(2.0, 1.0, 1.5),
    anisotropic=False,
    normalization=(Normalization(kind="zscore"),),
    patch_size=(16, 24, 32),
    batch_size=2,
    mirror_axes=(),
    median_shape=(20, 30, 40),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3)),
)
HELD_OUT = {0: {"a": "anna", "b": "bert"}, 1: {"c": "carl"}}
"""Fold -> case -> patient."""


def designed(folder: Path, models: str | tuple[Entrant, ...] = "unet,uxnet", **changes: Any) -> Design:
    values: dict[str, Any] = {
        "folder": folder,
        "data": folder / "data",
        "dataset": "Tiny",
        "entrants": parse_entrants(models) if isinstance(models, str) else models,
        "folds": (0, 1),
        "seeds": (0, 1),
        "held_out": HELD_OUT,
        "trained_on": {0: ["c"], 1: ["a", "b"]},
        "length": Length(steps=3),
        "settings": ("train.workers=0", "plan.batch_size=2"),
        "pace": {},
        "plan": PLAN,
    }
    return Design(**(values | changes))


def finish(design: Design, name: str, fold: int, seed: int, *, dice: float = 0.5, seconds: float = 4.0) -> Path:
    """Leave what a training leaves; returns the folder of its fold."""
    (entrant,) = (one for one in design.entrants if one.name == name)
    folder = design.cell_folder(Cell(entrant, fold, seed)) / f"fold_{fold}"
    metrics = dict.fromkeys(METRICS, dice)
    scores = [
        ClassScore(case=case, name="organ", metrics=metrics, volume_reference_mm3=1.0, volume_prediction_mm3=1.0)
        for case in HELD_OUT[fold]
    ]
    folder.mkdir(parents=True)
    Evaluation(tuple(scores), 1.0).write(folder / "validation")
    (folder / "log.jsonl").write_text(json.dumps({"event": "epoch", "step": 3, "elapsed_s": seconds}) + "\n")
    taken = {case: 2.0 + number for number, case in enumerate(HELD_OUT[fold])}
    (folder / "validation" / "prediction.json").write_text(json.dumps({"seconds": taken}))
    return folder
