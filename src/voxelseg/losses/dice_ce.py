"""Soft Dice plus cross entropy, and its sum over the outputs of a deeply supervised network.

As in nnU-Net (Isensee et al. 2021): softmax, Dice over the foreground classes, mean of both parts with weight 1 each.
Targets hold class indices, or with regions the index of a row in the region table (see LabelScheme.encode); -1 marks
voxels to ignore.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError


class DiceCrossEntropy(nn.Module):
    """Loss of logits (B, K, D, H, W) against targets (B, D, H, W).

    With `region_table` (rows, K) the outputs are independent (sigmoid, binary cross entropy), else exclusive (softmax).
    `batch_dice` pools all patches of a batch before the ratio is taken, which is steadier where a class is missing from
    most patches.
    """

    region_table: Tensor | None

    def __init__(
        self,
        *,
        region_table: Tensor | None = None,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        if dice_weight < 0 or ce_weight < 0 or dice_weight + ce_weight == 0:
            raise ConfigError(f"loss weights must not be negative nor both 0, got {dice_weight} and {ce_weight}.")
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.batch_dice = batch_dice
        self.smooth = smooth
        self.register_buffer("region_table", None if region_table is None else region_table.float(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.float()
        known = target >= 0
        if self.region_table is None:
            probabilities = logits.softmax(dim=1)
            one_hot = F.one_hot(target.clamp(min=0).long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
            cross_entropy = F.cross_entropy(logits, target.long(), ignore_index=-1, reduction="sum")
            first = 1  # background takes no part in the Dice
        else:
            probabilities = logits.sigmoid()
            one_hot = self.region_table[target.clamp(min=0).long()].movedim(-1, 1)
            per_voxel = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").mean(dim=1)
            cross_entropy = (per_voxel * known).sum()
            first = 0
        cross_entropy = cross_entropy / known.sum().clamp(min=1)
        if self.dice_weight == 0:
            return self.ce_weight * cross_entropy
        dice = self._dice(probabilities[:, first:], one_hot[:, first:], known)
        return self.ce_weight * cross_entropy - self.dice_weight * dice

    def _dice(self, probabilities: Tensor, one_hot: Tensor, known: Tensor) -> Tensor:
        if not bool(known.all()):
            mask = known[:, None].to(probabilities.dtype)
            probabilities, one_hot = probabilities * mask, one_hot * mask
        over = (0, 2, 3, 4) if self.batch_dice else (2, 3, 4)
        intersection = (probabilities * one_hot).sum(over)
        size = probabilities.sum(over) + one_hot.sum(over)
        return ((2 * intersection + self.smooth) / (size + self.smooth + 1e-8)).mean()


def deep_supervision_weights(num_outputs: int) -> list[float]:
    """Weights 1, 1/2, 1/4, ... of the outputs, full resolution first, scaled to a sum of 1."""
    raw = [0.5**level for level in range(num_outputs)]
    return [weight / sum(raw) for weight in raw]


class DeepSupervisionLoss(nn.Module):
    """Weighted sum of `loss` over outputs of decreasing resolution; targets are sampled at the outputs' size."""

    def __init__(self, loss: nn.Module, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss = loss
        self.weights = list(weights)

    def forward(self, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for logits, weight in zip(outputs, self.weights, strict=True):
            if weight:
                total = total + weight * self.loss(logits, _resized(target, logits.shape[2:]))
        return total


def _resized(target: Tensor, size: torch.Size) -> Tensor:
    if target.shape[1:] == size:
        return target
    resized = F.interpolate(target[:, None].float(), size=tuple(size), mode="nearest-exact")
    return resized[:, 0].to(target.dtype)
