"""SimMIM for volumes (Xie et al., CVPR 2022, arXiv:2111.09886): restore masked cubes from what surrounds them.

B batch, C channels, D H W depth, height, width in voxels.
Of the cubes of a crop, a share is masked. Their voxels become a learned number per channel, since a network of
convolutions has no tokens that could be left out. A pointwise convolution on the network's features restores them, and
the loss is the mean absolute error over masked voxels only.

Unlike the paper, the whole network is trained, its decoder included, which therefore is transferred, too.
"""

from functools import partial
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxelseg.nets import Network
from voxelseg.pretrain.methods.blocks import Sides, masked_blocks
from voxelseg.pretrain.methods.method import Method, Prepared, Sample, Surroundings
from voxelseg.pretrain.methods.reconstruction import RestoringMasked

TOKEN_STD = 0.02
"""Standard deviation of the first values of the token, as in SimMIM's code."""


class SimMIMConfig(BaseModel):
    """How cubes are masked; the share is SimMIM's, whose squares of 32 pixels are cubes of half that side here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    cube: Sides | None = None
    """Side of the cubes in voxels, or one for each of D, H, W. None: 16, or along an axis of less than 64 voxels the
    largest of 8, 4 and 2 of which four fit."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of the cubes that is masked."""


class SimMIM(RestoringMasked):
    """A network, the token that masked voxels become, and the head that restores them."""

    def __init__(self, backbone: Network, *, num_channels: int) -> None:
        super().__init__(backbone, num_channels=num_channels, norm="l1")
        self.token = nn.Parameter(TOKEN_STD * torch.randn(num_channels, 1, 1, 1))

    def restored(self, batch: Sample) -> Tensor:
        """The whole crops (B, C, D, H, W) from their visible voxels."""
        image = torch.where(batch["mask"], self.token, batch["image"])
        restored: Tensor = self.head(self.backbone.features(image))
        return restored


def prepare(settings: SimMIMConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError if all of a crop's cubes would be masked."""
    drawer = masked_blocks("simmim", "cube", settings.cube, settings.share, surroundings.crop_size)
    return Prepared(
        drawer=drawer,
        build=partial(SimMIM, num_channels=surroundings.num_channels),
        record={"trained": "all", "cube": list(drawer.block_size)},
    )


METHOD = Method(
    settings=SimMIMConfig,
    prepare=prepare,
    summary="restore masked cubes of the crop from the visible ones",
    source="Xie et al., CVPR 2022, arXiv:2111.09886",
)
