"""DeepLabv3 in three dimensions (Chen et al. 2017, arXiv:1706.05587).

B batch, C channels, D H W depth, height, width in voxels, K classes.
A residual network (He et al., CVPR 2016) whose late stages are dilated instead of strided, atrous spatial pyramid
pooling (ASPP: parallel convolutions of several dilation rates, and the mean over space), and trilinear upsampling of
the logits. The paper is about 2-D images; E2ENet (Table 6) compares with a 3-D one and leaves it open. Our reading:
- ResNet-34, the only depth with the printed 74.68 M parameters (18: 44.4 M, 50: 90.0 M, 101: 129.1 M).
- Output stride 8, the most expensive one of the paper: with 1 channel and 16 classes 74,683,472 parameters and 330.0 G
  multiply-accumulates at 128^3, so 659.9 G operations. The printed 1546.25 is 2.34 times that. No output stride gives
  it (16: 154.5, 32: 109.5), nor does any of 432 combinations of strides per step, D apart from H and W, come within
  0.4 %.
- Dilation rates 6, 12, 18, as public 3-D versions have them. The paper doubles them at output stride 8, which suits its
  513 pixels; a patch of 128 voxels has 16 per axis there, and taps further away than that see only zero padding.
- No multi-grid: one dilation per stage.
Unlike the paper: with one patch per batch the image-level branch normalises by its running statistics in training too,
since a single value per channel has no variance.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

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
    check_counts,
    check_switches,
    per_level,
    planned_steps,
    positive_integers,
)

NUM_STAGES = 4
MAX_STEPS = NUM_STAGES + 1  # stem, pooling, and stages two to four


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config:
    """Options of a DeepLabv3; the defaults are ResNet-34 at output stride 8."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 64
    """Channels of the stem and the first stage; they double with each stage."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of the four stages."""
    bottleneck: bool = False
    """Whether blocks are bottlenecks with four times as many output channels, as in ResNet-50 and deeper."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * 3
    """Stride per axis of stem, pooling, and as many of stages two to four as are strided; the others are dilated
    instead. Their product is the output stride. One number stands for all axes."""
    aspp_width: int = 256
    """Channels of each branch of the pyramid."""
    rates: tuple[int, ...] = (6, 12, 18)
    """Dilation of each 3x3x3 branch of the pyramid."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "aspp_width")
        check_switches(self, "bottleneck")
        strides = per_level("strides", self.strides)
        if not 2 <= len(strides) <= MAX_STEPS:
            raise ConfigError(f"strides = {self.strides}: expected two to {MAX_STEPS} steps (stem, pooling, stages).")
        object.__setattr__(self, "strides", strides)
        object.__setattr__(self, "blocks", positive_integers("blocks", self.blocks, number=NUM_STAGES))
        object.__setattr__(self, "rates", positive_integers("rates", self.rates))

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published, but thick or few slices are strided as the plan has it."""
        return {"strides": planned_steps(strides, 3)}


class ConvNorm(nn.Module):
    """Convolution without bias that keeps the size (up to its stride), then batch norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: tuple[int, ...] = (1, 1, 1),
        dilation: int = 1,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)  # type: ignore[arg-type]
        self.norm: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out

    def fuse(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm3d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions, or a bottleneck (1, 3, 1), around which the input is added (He et al., Fig. 5)."""

    def __init__(
        self, in_channels: int, width: int, *, stride: tuple[int, ...], dilation: int, bottleneck: bool
    ) -> None:
        super().__init__()
        out_channels = _out_channels(width, bottleneck)
        if bottleneck:
            layers = [
                ConvNorm(in_channels, width, 1),
                ConvNorm(width, width, 3, stride=stride, dilation=dilation),
                ConvNorm(width, out_channels, 1),
            ]
        else:
            layers = [
                ConvNorm(in_channels, width, 3, stride=stride, dilation=dilation),
                ConvNorm(width, out_channels, 3, dilation=dilation),
            ]
        self.layers = nn.ModuleList(layers)
        changes = in_channels != out_channels or prod(stride) > 1
        self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        y = x
        for layer in self.layers[:-1]:
            y = F.relu(layer(y))
        return F.relu(self.layers[-1](y) + self.shortcut(x))


def _out_channels(width: int, bottleneck: bool) -> int:
    return 4 * width if bottleneck else width


class ResNet(nn.Module):
    """Residual network whose stages beyond the given strides are dilated."""

    def __init__(self, config: DeepLabV3Config) -> None:
        super().__init__()
        stem_stride, pool_stride, *stage_strides = config.strides
        self.pool_stride = pool_stride
        self.stem = ConvNorm(config.in_channels, config.width, 7, stride=stem_stride)
        strides = [(1, 1, 1), *stage_strides, *[(1, 1, 1)] * NUM_STAGES][:NUM_STAGES]
        self.stages = nn.ModuleList()
        in_channels, dilation = config.width, 1
        for stage, (number, stride) in enumerate(zip(config.blocks, strides, strict=True)):
            width = config.width * 2**stage
            dilation *= 2 if stage > len(stage_strides) else 1  # in place of the stride that the stage does not have
            out_channels = _out_channels(width, config.bottleneck)
            self.stages.append(
                nn.Sequential(
                    *(
                        ResidualBlock(
                            in_channels if block == 0 else out_channels,
                            width,
                            stride=stride if block == 0 else (1, 1, 1),
                            dilation=dilation,
                            bottleneck=config.bottleneck,
                        )
                        for block in range(number)
                    )
                )
            )
            in_channels = out_channels
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / s, H / s, W / s) for output stride s."""
        x = F.relu(self.stem(x))
        x = F.max_pool3d(x, 3, self.pool_stride, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (Sec. 3.3, Fig. 5)."""

    def __init__(self, in_channels: int, width: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.pointwise = ConvNorm(in_channels, width, 1)
        self.atrous = nn.ModuleList(ConvNorm(in_channels, width, 3, dilation=rate) for rate in rates)
        self.image = ConvNorm(in_channels, width, 1)
        self.project = ConvNorm((2 + len(rates)) * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        branches = [F.relu(self.pointwise(x)), *(F.relu(branch(x)) for branch in self.atrous)]
        whole = self.image_level(x.mean((2, 3, 4), keepdim=True)).expand_as(branches[0])
        return F.relu(self.project(torch.cat((*branches, whole), dim=1)))

    def image_level(self, mean: Tensor) -> Tensor:
        """(B, C_out, 1, 1, 1) from the mean over space."""
        norm = self.image.norm
        if self.training and mean.shape[0] == 1 and isinstance(norm, nn.BatchNorm3d):
            y = self.image.conv(mean)
            return F.relu(F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))
        return F.relu(self.image(mean))


class DeepLabV3(Network):
    """Dilated residual network, pyramid pooling, pointwise head, upsampling."""

    def __init__(self, config: DeepLabV3Config) -> None:
        divisor = tuple(prod(stride[axis] for stride in config.strides) for axis in range(3))
        super().__init__([(1, 1, 1)], divisor=divisor, in_channels=config.in_channels)
        self.config = config
        self.backbone = ResNet(config)
        self.pyramid = PyramidPooling(self.backbone.out_channels, config.aspp_width, config.rates)
        self.apply(_kaiming)  # not the head: few outputs would make its weights, and the first loss, large
        self.head = nn.Conv3d(config.aspp_width, config.num_classes, 1)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the residual network."""
        return self.backbone.parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W)."""
        self.check_input(x)
        y = self.pyramid(self.backbone(x))  # (B, C, D / s, H / s, W / s)
        return F.interpolate(self.head(y), size=x.shape[2:], mode="trilinear", align_corners=False)

    def fuse(self) -> None:
        """Fold every batch norm into its convolution."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fuse()


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


ENTRIES = {
    "deeplabv3": NetworkEntry(
        network=DeepLabV3,
        config=DeepLabV3Config,
        source="Chen et al. 2017, arXiv:1706.05587; in 3-D with ResNet-34 as its size in E2ENet's Table 6 implies",
        summary="dilated 3D ResNet-34 with atrous spatial pyramid pooling: a baseline of E2ENet",
        printed=(
            PrintedCost(
                where="Table 6 of E2ENet (columns swapped in print)",
                parameters_m=74.68,
                gflops=1546.25,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
                note="the dearest of the paper's output strides, 8, gives 659.9; no reading found that gives 1546.25",
            ),
        ),
    )
}
