"""RAP-Net: coarse-to-fine segmentation with a single random anatomical prior (Lee et al., ISBI 2021, PMC8522467).

B batch, C channels, D H W depth, height, width in voxels, K classes, k one class other than background.
The published scheme has two stages; sizes are those of the released code (github.com/MASILab/coarse_to_fine_prior_seg).
A coarse 3D U-Net segments all organs in the whole scan, resampled to 2 x 2 x 6 mm. Its labels go back to 1 x 1 x 2 mm,
where a single fine U-Net refines one organ at a time: patches of 128 x 128 x 48 voxels are drawn around voxels of a
random organ, the organ's binary mask (the prior) is concatenated to the image as a channel, and the outputs are that
organ and everything else. At test time overlapping patches of each organ are fused into one label map.

What is a network here: both stages on one patch, so that the scheme has the interface of all networks and the sliding
window does the fusion. The coarse stage sees the patch averaged to 1 / coarse_strides of its resolution; the fine stage
runs once for each class k with the mask of k, and the logit of k is the difference of its two outputs (background: 0,
so with two classes this is the published softmax). Masks are binary as published; gradients pass as if they were the
coarse probabilities (straight-through), so both stages learn from one loss. With deep supervision the coarse logits are
an output too and get a loss of their own, which is closest to the published separate training. In training each step
sees every class instead of a random one. `prior="all"` gives all masks at once to one fine pass with K outputs, as the
released code also has it (14 input and 14 output channels): K - 1 times cheaper.

Both U-Nets are those of the released code: four levels, width 32 to 512, batch norm in the encoder only. Unlike it: no
ReLU on the logits, no biases that batch norm takes away again, the decoder's 3x3x3 convolutions are plain instead of
transposed ones of stride 1 (the same family), and testing uses running statistics, where the code stays in training
mode.

Size: with 1 channel and 5 classes 38,142,055 parameters; 3D UX-Net (Table 1) prints 38.2 M, so it adds up both U-Nets.
Multiply-accumulates at 96^3: 68.7 G of the coarse stage and 825.1 G of each of the four fine passes, 3368.9 G in all
(`prior="all"`: 896.2 G). The printed 101.2 G cannot be met by a network that works at 96^3; one of the U-Nets on 48^3
voxels comes near it with 103.1 G.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from voxelseg.errors import ConfigError
from voxelseg.nets.network import (
    Levels,
    Network,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_switches,
    per_axis,
    per_level,
    planned_steps,
)

PUBLISHED_RATIO = (3, 2, 2)
"""Coarse over fine voxel size: 6 / 2 mm between slices, 2 / 1 mm within."""


@dataclass(frozen=True, kw_only=True)
class RAPNetConfig:
    """Options of a RAP-Net; the defaults are the released code's."""

    in_channels: int
    """Channels of the input, the prior not counted."""
    num_classes: int
    """Output channels, background included; at least two."""
    width: int = 32
    """Channels of the first convolution of both U-Nets; each level ends with twice as many as it begins with."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * 3
    """Pooling per axis between the levels of both U-Nets, one entry per step. One number stands for all axes."""
    coarse_strides: tuple[int, ...] | int = PUBLISHED_RATIO
    """Voxel size of the coarse stage over that of the fine stage, per axis (D, H, W)."""
    prior: Literal["single", "all"] = "single"
    """One fine pass per class with its mask ("single", as published), or one pass with the masks of all classes."""
    deep_supervision: bool = False
    """Whether the coarse logits are an output."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width")
        check_switches(self, "deep_supervision")
        object.__setattr__(self, "strides", per_level("strides", self.strides))
        object.__setattr__(self, "coarse_strides", per_axis("coarse_strides", self.coarse_strides))
        if not self.strides:
            raise ConfigError("strides = (): expected at least one step.")
        if self.num_classes < 2:
            raise ConfigError(f"num_classes = {self.num_classes}: a prior needs a class besides the background.")
        check_choice(self, "prior", "single", "all")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published, but thick or few slices are pooled as the plan has it, and thick ones not coarsened."""
        steps = planned_steps(strides, 3)
        coarse = tuple(ratio if step > 1 else 1 for ratio, step in zip(PUBLISHED_RATIO, steps[0], strict=True))
        return {"strides": steps, "coarse_strides": coarse}


class ConvNormReLU(nn.Module):
    """3x3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        return F.relu(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm3d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class StageUNet(nn.Module):
    """3D U-Net (Cicek et al., MICCAI 2016) with max pooling and transposed convolutions: either stage."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, strides: Levels) -> None:
        super().__init__()
        self.strides = strides
        widths = [2 * width * 2**level for level in range(len(strides) + 1)]  # at the end of each level
        self.encoder = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(widths[level - 1] if level else in_channels, wide // 2), ConvNormReLU(wide // 2, wide)
            )
            for level, wide in enumerate(widths)
        )
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i
            nn.ConvTranspose3d(wide, wide, stride, stride)  # type: ignore[arg-type]
            for wide, stride in zip(widths[1:], strides, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(wide + widths[level + 1], wide, 3, padding=1),
                nn.ReLU(),
                nn.Conv3d(wide, wide, 3, padding=1),
                nn.ReLU(),
            )
            for level, wide in enumerate(widths[:-1])
        )
        self.head = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W)."""
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else F.max_pool3d(x, self.strides[level - 1]))
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](torch.cat((F.relu(self.up[level](x)), skips.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits


class RAPNet(Network):
    """Coarse U-Net, masks of its classes, fine U-Net with the masks as priors."""

    def __init__(self, config: RAPNetConfig) -> None:
        coarse_strides = config.coarse_strides
        assert not isinstance(coarse_strides, int), "RAPNetConfig spreads it over the axes"
        reach = (prod(stride[axis] for stride in config.strides) for axis in range(3))
        super().__init__(
            [(1, 1, 1), coarse_strides] if config.deep_supervision else [(1, 1, 1)],
            divisor=tuple(size * ratio for size, ratio in zip(reach, coarse_strides, strict=True)),
            in_channels=config.in_channels,
        )
        self.config = config
        self.coarse_strides = coarse_strides
        one, classes = config.prior == "single", config.num_classes
        priors, outputs = (1, 2) if one else (classes - 1, classes)
        self.coarse = StageUNet(config.in_channels, classes, width=config.width, strides=config.strides)
        self.fine = StageUNet(config.in_channels + priors, outputs, width=config.width, strides=config.strides)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoders of both stages."""
        return chain(self.coarse.encoder.parameters(), self.fine.encoder.parameters())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision those and the coarse stage's."""
        self.check_input(x)
        coarse = self.coarse(F.avg_pool3d(x, self.coarse_strides))  # (B, K, D / s, H / s, W / s)
        masks = _masks(coarse, x.shape[2:])[:, 1:]  # (B, K - 1, D, H, W)
        fine = self.refine_each(x, masks) if self.config.prior == "single" else self.fine(torch.cat((x, masks), dim=1))
        return [fine, coarse] if self.deep_supervision else fine

    def refine_each(self, x: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, K, D, H, W) from a fine pass per class: its log-odds against the rest, and 0 for background."""
        pairs = [torch.cat((x, mask.unsqueeze(1)), dim=1) for mask in masks.unbind(1)]  # each (B, C + 1, D, H, W)
        # In training one batch, since the published batches mix organs and batch norm sees them together; in evaluation
        # samples do not depend on each other, and one class at a time needs less memory.
        outputs = self.fine(torch.cat(pairs)) if self.training else torch.cat([self.fine(pair) for pair in pairs])
        logits = (outputs[:, 1] - outputs[:, 0]).unflatten(0, (len(pairs), -1)).transpose(0, 1)  # (B, K - 1, D, H, W)
        return torch.cat((torch.zeros_like(logits[:, :1]), logits), dim=1)

    def fuse(self) -> None:
        """Fold every batch norm into its convolution."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNormReLU):
                module.fuse()


def _masks(coarse: Tensor, size: torch.Size) -> Tensor:
    """Binary mask of each class at full resolution from coarse logits, with the gradient of the probabilities."""
    probabilities = F.interpolate(coarse.softmax(dim=1), size=size, mode="trilinear", align_corners=False)
    labels = probabilities.argmax(dim=1)
    masks = F.one_hot(labels, coarse.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    return masks + (probabilities - probabilities.detach())


ENTRIES = {
    "rapnet": NetworkEntry(
        network=RAPNet,
        config=RAPNetConfig,
        source="Lee et al., ISBI 2021, PMC8522467; github.com/MASILab/coarse_to_fine_prior_seg at 8d33c69",
        summary="coarse U-Net whose organ masks are priors of a fine U-Net: a baseline of 3D UX-Net",
        exclusive=True,
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net",
                parameters_m=38.2,
                gflops=101.2,
                convention="ptflops",
                num_classes=5,
                note="a fine pass at 96^3 alone is 825 GMAC; near the print is one of the two U-Nets at 48^3, 103 GMAC",
            ),
        ),
    )
}
