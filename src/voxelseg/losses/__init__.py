"""Losses: Dice + cross entropy, deep supervision."""

from voxelseg.losses.dice_ce import DeepSupervisionLoss, DiceCrossEntropy, deep_supervision_weights

__all__ = ["DeepSupervisionLoss", "DiceCrossEntropy", "deep_supervision_weights"]
