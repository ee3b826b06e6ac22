"""Residual-encoder U-Net of nnU-Net (Isensee et al., nnU-Net Revisited, MICCAI 2024, arXiv:2404.09556).

B batch, C channels, D H W depth, height, width in voxels, K classes.
The U-Net of `voxelseg.nets.unet` with an encoder of residual blocks, 1, 3, 4, 6, 6, 6, ... of them from full resolution
down after one convolution as a stem, and one convolution for each decoder stage. As in ResidualEncoderUNet of nnU-Net
v2, a strided block averages its input for the shortcut, and the last norm of each block starts at zero.

nnU-Net's presets M, L and XL are this one network, planned for 9 to 11, 24 and 40 GB of GPU memory: what differs is the
patch, from which the levels follow. So the three names here differ in nothing but the summary. The 102.4 million
parameters that the authors print for L are those of the six levels of most plans, the default here: 102,348,622 for one
channel and 14 classes, and 102,359,430 with the heads of deep supervision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.network import NetworkEntry, PrintedCost, check_switches
from voxelseg.nets.unet import NEGATIVE_SLOPE, ConvNormReLU, UNet, UNetConfig
from voxelseg.ops.norm import instance_norm_leaky_relu
from voxelseg.ops.pointwise import pointwise_conv


@dataclass(frozen=True, kw_only=True)
class ResEncUNetConfig(UNetConfig):
    """Options of a residual-encoder U-Net; the defaults are six isotropic levels."""

    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride of each level per axis; one number stands for all axes, the first level has 1."""
    convs_per_stage: int = 1
    """Convolutions of each decoder stage."""
    blocks: tuple[int, ...] = (1, 3, 4, 6)
    """Residual blocks of each encoder level, full resolution first; the last number stands for all deeper levels."""
    zero_residuals: bool = True
    """Whether the last norm of each residual block starts at zero, so that at first every block passes its input on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_switches(self, "zero_residuals")
        blocks: Any = self.blocks
        if not isinstance(blocks, list | tuple) or not blocks or any(type(n) is not int or n < 1 for n in blocks):
            raise ConfigError(f"blocks = {blocks!r}: expected a list of positive integers, one for each level.")
        object.__setattr__(self, "blocks", tuple(blocks))

    def num_blocks(self, level: int) -> int:
        """Residual blocks of that encoder level."""
        return self.blocks[min(level, len(self.blocks) - 1)]


class ResidualBlock(nn.Module):
    """Two convolutions with norms and a shortcut, which is averaged and projected where the shape changes."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.stride = stride
        self.first = ConvNormReLU(in_channels, out_channels, kernel=kernel, stride=stride)
        self.second = ConvNorm(out_channels, out_channels, kernel=kernel)
        self.shortcut = Projection(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        y = self.second(self.first(x))
        if max(self.stride) > 1:
            x = F.avg_pool3d(x, self.stride, self.stride)
        return F.leaky_relu(y + self.shortcut(x), NEGATIVE_SLOPE)


class ConvNorm(ConvNormReLU):
    """Convolution and instance norm."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        return _instance_norm(self.convolved(x), self.norm)


class Projection(nn.Module):
    """Pointwise convolution without bias, and instance norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        return _instance_norm(pointwise_conv(x, self.conv.weight, None), self.norm)


def _instance_norm(x: Tensor, norm: nn.InstanceNorm3d) -> Tensor:
    """Through the operation that is fast for channels-last volumes; a slope of 1 makes its ReLU the identity."""
    return instance_norm_leaky_relu(x, norm.weight, norm.bias, eps=norm.eps, slope=1.0)


class ResEncUNet(UNet):
    """U-Net whose encoder stages are residual blocks, the first after a stem."""

    config: ResEncUNetConfig

    def __init__(self, config: ResEncUNetConfig) -> None:
        super().__init__(config)
        if config.zero_residuals:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    nn.init.zeros_(module.second.norm.weight)

    def encoder_stage(self, level: int, in_channels: int, out_channels: int) -> nn.Module:
        """The residual blocks of one level, the first of them strided, and the stem before those of level 0."""
        kernel, stride = self.config.kernels[level], self.config.strides[level]  # type: ignore[index]
        stem = [ConvNormReLU(in_channels, out_channels, kernel=kernel)] if level == 0 else []
        first = ResidualBlock(out_channels if stem else in_channels, out_channels, kernel=kernel, stride=stride)
        others = range(self.config.num_blocks(level) - 1)
        return nn.Sequential(*stem, first, *(ResidualBlock(out_channels, out_channels, kernel=kernel) for _ in others))


SIZES: dict[str, Mapping[str, Any]] = {"resenc_unet_m": {}, "resenc_unet_l": {}, "resenc_unet_xl": {}}
"""Options of each named size: the presets are one network for patches of different sizes."""

_MEMORY = {"resenc_unet_m": "9 to 11", "resenc_unet_l": "24", "resenc_unet_xl": "40"}

_PRINTED = PrintedCost(
    where="comparison of presets in nnU-Net's documentation",
    parameters_m=102.4,
    gflops=None,
    convention="macs",
    options={"deep_supervision": True},
)

ENTRIES = {
    name: NetworkEntry(
        network=ResEncUNet,
        config=ResEncUNetConfig,
        options=options,
        source="Isensee et al., MICCAI 2024, arXiv:2404.09556; ResidualEncoderUNet of nnU-Net v2",
        summary=f"U-Net with residual encoder, the network of nnU-Net's preset for GPUs of {_MEMORY[name]} GB",
        printed=(_PRINTED,) if name == "resenc_unet_l" else (),
    )
    for name, options in SIZES.items()
}
