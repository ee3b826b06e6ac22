"""Evaluations and contestants made by hand or drawn."""

import math

import numpy as np

from voxelseg.compare.contestants import Contestant
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.case import ClassScore

CLASSES = ("liver", "spleen")


def evaluation(dice, *, classes=CLASSES, tolerance_mm=1.0, more=()):
    """Of case -> one Dice for each class; the surface Dice is the same, HD95 is 10 mm times what Dice lacks.

    `more` names further columns, which are copies of Dice.
    """
    scores = [
        ClassScore(
            case,
            name,
            {
                "dice": value,
                "surface_dice": value,
                "hd95_mm": 10 * (1 - value),
                **dict.fromkeys(more, value),
            },
            0.0 if math.isnan(value) else 2000.0 * (1 + place),
            0.0 if math.isnan(value) else 1900.0 * (1 + place),
        )
        for case, values in dice.items()
        for place, (name, value) in enumerate(zip(classes, values, strict=True))
    ]
    return Evaluation(tuple(scores), tolerance_mm)


def drawn(mean, *, num=12, seed=0, classes=CLASSES, std=0.01):
    """An evaluation whose Dice lies around `mean`; cases are as hard in every one."""
    hardness = np.random.default_rng(99).uniform(-0.05, 0.05, (num, len(classes)))
    noise = np.random.default_rng(seed).normal(0, std, hardness.shape)
    values = np.clip(mean + hardness + noise, 0, 1)
    return evaluation({f"case_{place:02}": row.tolist() for place, row in enumerate(values)}, classes=classes)


def contestants(means, *, seeds=2, num=12, classes=CLASSES, **more):
    """One for each name and mean Dice of `means`."""
    return [
        Contestant(
            name=name,
            runs={str(seed): drawn(mean, num=num, seed=100 * place + seed, classes=classes) for seed in range(seeds)},
            **more,
        )
        for place, (name, mean) in enumerate(means.items())
    ]
