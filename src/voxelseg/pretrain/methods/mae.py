"""Masked autoencoder for networks of convolutions, after SparK (Tian et al., ICLR 2023, arXiv:2301.03580).

B batch, C channels, D H W depth, height, width in voxels.
Most blocks of a crop are masked; the encoder sees what is left, the decoder restores the rest, and the loss is the mean
squared error over masked voxels only. What SparK adds to plain masking is that the mask stays through the encoder, see
`encoder_mask`. The share of 75 % is that of its best 3D form (Wald et al., Revisiting MAE pre-training for 3D medical
image segmentation, CVPR 2025, arXiv:2410.23132, whose public code it was read in); SparK's own is 60 %.

Unlike SparK: its decoder is a light one that is thrown away, with a learned embedding in place of what is masked. Here
it is the network's own, which is transferred, too, and sees zeros there. Norms are not sparse. And the target is the
intensities as the plan normalises them, as in the 3D study, not normalised once more in each block.
"""

from functools import partial
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxelseg.nets import Network
from voxelseg.pretrain.methods.blocks import Sides, masked_blocks
from voxelseg.pretrain.methods.encoder_mask import EncoderMask
from voxelseg.pretrain.methods.method import Method, Prepared, Sample, Surroundings
from voxelseg.pretrain.methods.reconstruction import RestoringMasked


class MAEConfig(BaseModel):
    """How blocks are masked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    block: Sides | None = None
    """Side of the blocks in voxels, or one for each of D, H, W. None: 16, or along an axis of less than 64 voxels the
    largest of 8, 4 and 2 of which four fit. At a resolution with larger voxels than that, those are masked of which no
    block is visible."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of the blocks that is masked."""


class MAE(RestoringMasked):
    """A network whose encoder obeys a mask, and the head that restores what is masked."""

    def __init__(self, backbone: Network, *, num_channels: int) -> None:
        super().__init__(backbone, num_channels=num_channels, norm="l2")
        self.encoder_mask = EncoderMask(backbone)

    def restored(self, batch: Sample) -> Tensor:
        """The whole crops (B, C, D, H, W) from their visible voxels."""
        visible = (~batch["mask"]).to(batch["image"].dtype)
        self.encoder_mask.show(visible)
        restored: Tensor = self.head(self.backbone.features(batch["image"] * visible))
        if not torch.is_grad_enabled():  # else activations may be computed again in the backward pass
            self.encoder_mask.show(None)
        return restored


def prepare(settings: MAEConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError if all of a crop's blocks would be masked."""
    drawer = masked_blocks("mae", "block", settings.block, settings.share, surroundings.crop_size)
    return Prepared(
        drawer=drawer,
        build=partial(MAE, num_channels=surroundings.num_channels),
        record={"trained": "all", "block": list(drawer.block_size)},
    )


METHOD = Method(
    settings=MAEConfig,
    prepare=prepare,
    summary="masked autoencoder whose encoder sees visible blocks only: hard to beat today",
    source="Tian et al., ICLR 2023, arXiv:2301.03580; Wald et al., CVPR 2025, arXiv:2410.23132",
)
