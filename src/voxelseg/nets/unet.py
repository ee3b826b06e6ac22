"""Plain 3D U-Net as nnU-Net v2 trains it (Isensee et al., Nature Methods 2021; PlainConvUNet of MIC-DKFZ).

B batch, C channels, D H W depth, height, width in voxels, K classes.
Each stage is a few convolution - instance norm - leaky ReLU steps, the first of them strided; transposed convolutions
lead back up, and skips are concatenated. Strides and kernels are per level and axis, so anisotropic plans work.
nnU-Net derives them from each data set; the defaults here are five isotropic levels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.network import Levels, Network, NetworkEntry, check_counts, check_switches, per_level
from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import instance_norm_leaky_relu
from voxelseg.ops.pointwise import pointwise_head

NEGATIVE_SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Options of a U-Net; the defaults are nnU-Net's widths on five isotropic levels."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 32
    """Channels at full resolution; they double with each level."""
    max_width: int = 320
    """Upper bound of the channels."""
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride of each level per axis; one number stands for all axes, the first level has 1."""
    kernels: tuple[tuple[int, ...], ...] | int = 3
    """Kernel size of each level per axis, odd; one number stands for all."""
    convs_per_stage: int = 2
    """Convolutions of each encoder and decoder stage."""
    deep_supervision: bool = False
    """Whether every decoder stage has a head, not only the last."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "max_width", "convs_per_stage")
        check_switches(self, "deep_supervision")
        strides = per_level("strides", self.strides)
        if len(strides) < 2 or strides[0] != (1, 1, 1):
            raise ConfigError(f"strides = {self.strides}: expected at least two levels, the first with stride 1.")
        kernels = per_level(
            "kernels", (self.kernels,) * len(strides) if isinstance(self.kernels, int) else self.kernels
        )
        if len(kernels) != len(strides) or any(size % 2 == 0 for level in kernels for size in level):
            raise ConfigError(
                f"kernels = {self.kernels}: expected odd sizes, one per level ({len(strides)}) or one for all."
            )
        object.__setattr__(self, "strides", strides)
        object.__setattr__(self, "kernels", kernels)

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Levels, strides and kernels are those of the plan."""
        return {"strides": strides, "kernels": kernels}


class ConvNormReLU(nn.Module):
    """Convolution, instance norm, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)
    ) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        return instance_norm_leaky_relu(
            self.conv(x), self.norm.weight, self.norm.bias, eps=self.norm.eps, slope=NEGATIVE_SLOPE
        )


def _stage(
    in_channels: int, out_channels: int, *, num_convs: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)
) -> nn.Sequential:
    first = ConvNormReLU(in_channels, out_channels, kernel=kernel, stride=stride)
    others = (ConvNormReLU(out_channels, out_channels, kernel=kernel) for _ in range(num_convs - 1))
    return nn.Sequential(first, *others)


class UNet(Network):
    """Encoder, decoder with concatenated skips, and pointwise heads."""

    def __init__(self, config: UNetConfig) -> None:
        strides = config.strides
        assert not isinstance(config.kernels, int), "UNetConfig gives one kernel per level"
        kernels = config.kernels
        levels = range(len(strides))
        reach = [tuple(prod(stride[axis] for stride in strides[: level + 1]) for axis in range(3)) for level in levels]
        num_heads = len(strides) - 1 if config.deep_supervision else 1
        super().__init__(reach[:num_heads], divisor=reach[-1], in_channels=config.in_channels)
        self.config = config
        widths = [min(config.width * 2**level, config.max_width) for level in levels]
        self.encoder = nn.ModuleList(
            _stage(
                config.in_channels if level == 0 else widths[level - 1],
                widths[level],
                num_convs=config.convs_per_stage,
                kernel=kernels[level],
                stride=strides[level],
            )
            for level in levels
        )
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i
            nn.ConvTranspose3d(widths[level + 1], widths[level], strides[level + 1], strides[level + 1])  # type: ignore[arg-type]
            for level in levels[:-1]
        )
        self.decoder = nn.ModuleList(
            _stage(2 * widths[level], widths[level], num_convs=config.convs_per_stage, kernel=kernels[level])
            for level in levels[:-1]
        )
        self.heads = nn.ModuleList(nn.Conv3d(widths[level], config.num_classes, 1) for level in range(num_heads))
        self.apply(_kaiming)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder stages."""
        return chain(self.encoder.parameters())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision the list of all decoder stages, full resolution first."""
        self.check_input(x)
        if fast_on_cpu(x, self.heads[0].weight):  # type: ignore[arg-type]
            # Every convolution then keeps this layout. A clone, since one channel is contiguous in either as it is.
            x = x.clone(memory_format=torch.channels_last_3d)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](torch.cat((self.up[level](x), skips.pop()), dim=1))
            if level == 0 or self.deep_supervision:
                head = self.heads[level]
                outputs.append(pointwise_head(x, head.weight, head.bias))  # type: ignore[arg-type]
        return outputs[::-1] if self.deep_supervision else outputs[0]


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


SIZES: dict[str, dict[str, Any]] = {
    "unet": {},
    "unet_s": {"width": 16, "strides": (1, 2, 2, 2)},  # ours, for CPUs
}
"""Options of each named size."""

_SUMMARIES = {
    "unet": "plain 3D U-Net, width 32 to 320, five levels: the baseline",
    "unet_s": "plain 3D U-Net, width 16, four levels: for training on a CPU",
}

ENTRIES = {
    name: NetworkEntry(
        network=UNet,
        config=UNetConfig,
        options=options,
        source="Isensee et al., Nature Methods 2021; PlainConvUNet of nnU-Net v2",
        summary=_SUMMARIES[name],
    )
    for name, options in SIZES.items()
}
