"""Divisions into training and held-out cases that papers used."""

from collections.abc import Sequence

import numpy as np

from voxelseg.data.convert.public import HeldOut
from voxelseg.data.splits import Split

NNUNET_FOLDS = 5
NNUNET_SEED = 12345


def nnunet_folds(case_ids: Sequence[str]) -> list[Split]:
    """The five folds of nnU-Net: sorted ids, shuffled with seed 12345 and cut into five, longer parts first.

    The same as KFold(5, shuffle=True, random_state=12345) of scikit-learn, which nnU-Net calls. There must be at least
    five ids. Source: Isensee et al. 2021, MIC-DKFZ/nnUNet, versions 1 and 2.
    """
    assert len(case_ids) >= NNUNET_FOLDS
    ids = sorted(case_ids)
    order = np.arange(len(ids))
    np.random.RandomState(NNUNET_SEED).shuffle(order)  # the generator that scikit-learn uses
    held_out = [{ids[index] for index in part} for part in np.array_split(order, NNUNET_FOLDS)]
    return [Split(tuple(one for one in ids if one not in part), tuple(sorted(part))) for part in held_out]


def fixed_split(case_ids: Sequence[str], division: HeldOut) -> Split | None:
    """Division of a paper among the cases that are there; None if it leaves a side empty."""
    ids = set(case_ids)
    validation = ids & set(division.validation)
    train = ids - validation - set(division.unused)
    return Split(tuple(sorted(train)), tuple(sorted(validation))) if train and validation else None
