"""What the methods that restore voxels share: the head, the errors, and those that guessing would make.

B batch, C channels of the image, D H W depth, height, width in voxels, F feature channels of the network.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from voxelseg.nets import Network
from voxelseg.ops.pointwise import pointwise_head
from voxelseg.pretrain.methods.method import Pretext, Sample, Scores

Norm = Literal["l1", "l2"]
"""Mean absolute or mean squared error."""


class VoxelHead(nn.Module):
    """Pointwise convolution from the network's features to the channels of the image."""

    def __init__(self, feature_channels: int, num_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(feature_channels, num_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, D, H, W) in float32."""
        return pointwise_head(features, self.conv.weight, self.conv.bias).float()


def voxel_errors(prediction: Tensor, image: Tensor, norm: Norm) -> Tensor:
    """Error of each voxel, float32: its absolute value or its square."""
    difference = prediction.float() - image.float()
    return difference.abs() if norm == "l1" else difference.square()


def sample_errors(prediction: Tensor, image: Tensor, norm: Norm, mask: Tensor | None = None) -> Tensor:
    """Mean error (B,) of each sample over its voxels (B, C, D, H, W), or over those of `mask` (B, 1, D, H, W)."""
    errors = voxel_errors(prediction, image, norm)
    if mask is None:
        return errors.flatten(1).mean(1)
    return (errors * mask).flatten(1).sum(1) / (image.shape[1] * mask.flatten(1).sum(1))


def mean_error(prediction: Tensor, image: Tensor, norm: Norm, mask: Tensor | None = None) -> Tensor:
    """Mean error over all voxels (B, C, D, H, W) of a batch, or over those of `mask` (B, 1, D, H, W), a scalar."""
    errors = voxel_errors(prediction, image, norm)
    return errors.mean() if mask is None else (errors * mask).sum() / (image.shape[1] * mask.sum())


def visible_guesses(image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """What can be put in place of masked voxels without learning, from the visible ones of a sample.

    Their mean in each channel (B, C, 1, 1, 1), and the value of the nearest one (B, C, D, H, W), by distance in voxels.
    """
    visible = ~mask
    mean = (image * visible).flatten(2).sum(2) / visible.flatten(2).sum(2)
    return {
        "the visible mean": mean[..., None, None, None],
        "the nearest visible voxel": filled_from_nearest(image, mask[:, 0]),
    }


def filled_from_nearest(image: Tensor, mask: Tensor) -> Tensor:
    """Images (B, C, D, H, W) with the value of the nearest visible voxel in each one of `mask` (B, D, H, W).

    Distances are in voxels. What has no visible voxel at all becomes 0.
    """
    return torch.stack([_filled(*sample) for sample in zip(image, mask, strict=True)])


def _filled(image: Tensor, mask: Tensor) -> Tensor:
    if mask.all():
        return torch.zeros_like(image)
    places = ndimage.distance_transform_edt(mask.cpu().numpy(), return_distances=False, return_indices=True)
    d, h, w = torch.from_numpy(places.astype(np.int64)).to(image.device)
    return image[:, d, h, w]


def explained(own: Tensor, guessed: Mapping[str, Tensor]) -> Scores:
    """Errors (B,) of the samples and of each guess, and the share of the best guess's error that is not made.

    Mean of `score` over batches: 1 - (sum of the errors) / (sum of the errors of each sample's best guess). So 0 is no
    better than guessing with hindsight, and 1 is without error. See `Pretext.judged` for what is returned.
    """
    best = torch.stack(list(guessed.values())).amin(0)
    number = float(len(own))
    return {
        "score": (float((best - own).sum()), float(best.sum())),
        "error": (float(own.sum()), number),
        **{f"error of {name}": (float(error.sum()), number) for name, error in guessed.items()},
    }


class Restoring(Pretext):
    """A network, and the head that restores the "image" of a sample, of which the network sees something else."""

    def __init__(self, backbone: Network, *, num_channels: int, norm: Norm) -> None:
        super().__init__(backbone)
        self.head = VoxelHead(backbone.feature_channels, num_channels)
        self.norm: Norm = norm

    def forward(self, batch: Sample) -> Tensor:
        """Mean error over the voxels of "mask", or over all where there is none."""
        loss = self._loss(self.restored(batch), batch)
        self.parts = {"absolute error" if self.norm == "l1" else "squared error": loss.detach()}
        return loss

    def _loss(self, restored: Tensor, batch: Sample) -> Tensor:
        return mean_error(restored, batch["image"], self.norm, batch.get("mask"))

    def _errors(self, guess: Tensor, batch: Sample) -> Tensor:
        """(B,), over the voxels that count for the loss."""
        return sample_errors(guess, batch["image"], self.norm, batch.get("mask"))

    @abstractmethod
    def restored(self, batch: Sample) -> Tensor:
        """The whole crops (B, C, D, H, W), float32."""

    @abstractmethod
    def guesses(self, batch: Sample) -> Mapping[str, Tensor]:
        """What could be said without learning, (B, C, D, H, W) or (B, C, 1, 1, 1), by name."""

    def unlearnt(self, batch: Sample) -> Sample:
        """Errors (B,) of guesses, by name."""
        return {name: self._errors(guess, batch) for name, guess in self.guesses(batch).items()}

    def judged(self, batch: Sample, unlearnt: Sample) -> tuple[Tensor, Scores]:
        """Mean errors over the same voxels, those of guesses, and the explained share."""
        restored = self.restored(batch)
        return self._loss(restored, batch), explained(self._errors(restored, batch), unlearnt)


class RestoringMasked(Restoring):
    """One that restores what "mask" (B, 1, D, H, W) hides."""

    def guesses(self, batch: Sample) -> Mapping[str, Tensor]:
        """Mean and nearest of the visible voxels."""
        return visible_guesses(batch["image"], batch["mask"])

    def pictures(self, batch: Sample) -> dict[str, Tensor]:
        """A crop, what is visible of it, and what is restored."""
        whole, hidden = batch["image"][0, 0], batch["mask"][0, 0]
        restored = self.restored(batch)[0, 0].to(whole.dtype)
        return {
            "Scan": whole,
            "Masked": whole.masked_fill(hidden, float(whole.min())),
            "Restored": torch.where(hidden, restored, whole),
        }
