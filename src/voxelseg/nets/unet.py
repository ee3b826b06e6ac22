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
from voxelseg.nets.multiscale import MultiscaleNetwork, See
from voxelseg.nets.network import (
    Levels,
    NetworkEntry,
    PrintedCost,
    check_counts,
    check_switches,
    per_level,
    planned_kernels,
)
from voxelseg.ops.dead_bias import with_zero_gradient
from voxelseg.ops.dispatch import fast_on_cpu, plain_forms_wanted
from voxelseg.ops.norm import instance_norm_leaky_relu
from voxelseg.ops.winograd import winograd_conv

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
        """Levels, strides and kernels are those of the plan; a kernel size in `options` takes the place of its 3."""
        size = options.get("kernels", 3)
        return {
            "strides": strides,
            "kernels": planned_kernels(kernels, len(kernels), size) if isinstance(size, int) else size,
        }


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
            self.convolved(x), self.norm.weight, self.norm.bias, eps=self.norm.eps, slope=NEGATIVE_SLOPE
        )

    def convolved(self, x: Tensor) -> Tensor:
        """The convolution, in its fast forms without the bias: the norm removes it."""
        if plain_forms_wanted():
            y: Tensor = self.conv(x)
            return y
        assert self.conv.bias is not None
        return with_zero_gradient(winograd_conv(x, self.conv.weight, stride=self.conv.stride), self.conv.bias)


def _stage(
    in_channels: int, out_channels: int, *, num_convs: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)
) -> nn.Sequential:
    first = ConvNormReLU(in_channels, out_channels, kernel=kernel, stride=stride)
    others = (ConvNormReLU(out_channels, out_channels, kernel=kernel) for _ in range(num_convs - 1))
    return nn.Sequential(first, *others)


class UNet(MultiscaleNetwork):
    """Encoder, decoder with concatenated skips, and pointwise heads."""

    def __init__(self, config: UNetConfig) -> None:
        strides = config.strides
        assert not isinstance(config.kernels, int), "UNetConfig gives one kernel per level"
        kernels = config.kernels
        levels = range(len(strides))
        reach = [tuple(prod(stride[axis] for stride in strides[: level + 1]) for axis in range(3)) for level in levels]
        num_heads = len(strides) - 1 if config.deep_supervision else 1
        widths = [min(config.width * 2**level, config.max_width) for level in levels]
        super().__init__(
            reach[:num_heads], divisor=reach[-1], in_channels=config.in_channels, feature_channels=widths[0]
        )
        self.config = config
        self.encoder = nn.ModuleList(
            self.encoder_stage(level, config.in_channels if level == 0 else widths[level - 1], widths[level])
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

    def encoder_stage(self, level: int, in_channels: int, out_channels: int) -> nn.Module:
        """The layers of one level of the encoder, the first of them strided."""
        config = self.config
        return _stage(
            in_channels,
            out_channels,
            num_convs=config.convs_per_stage,
            kernel=config.kernels[level],  # type: ignore[index]
            stride=config.strides[level],
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder stages."""
        return chain(self.encoder.parameters())

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Outputs of the encoder's levels, full resolution first."""
        self.check_input(x)
        if fast_on_cpu(x, self.heads[0].weight):  # type: ignore[arg-type]
            # Every convolution then keeps this layout. A clone, since one channel is contiguous in either as it is.
            x = x.clone(memory_format=torch.channels_last_3d)
        outputs: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            outputs.append(x)
        return outputs

    def _decode(self, x: Tensor, num_levels: int, see: See) -> list[Tensor]:
        """See `MultiscaleNetwork`; of the decoder's stages."""
        *skips, x = self._encode(x)
        seen: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](torch.cat((self.up[level](x), skips.pop()), dim=1))
            if level < num_levels:
                seen.append(see(level, x))
        return seen[::-1]


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

_SIX_LEVELS = {"strides": (1, 2, 2, 2, 2, 2), "deep_supervision": True}

_PRINTED = (
    PrintedCost(
        where="Table 1 of 3D UX-Net (nn-UNet)",
        parameters_m=31.2,
        gflops=743.3,
        convention="ptflops",
        num_classes=5,
        options=_SIX_LEVELS,
        note="six levels on 96^3 take 225 by the same tool: the FLOPs are 3.3 times that, for a reason unknown",
    ),
    PrintedCost(
        where="Table 1 of E2ENet (nnUNet)",
        parameters_m=30.76,
        gflops=1067.89,
        convention="e2enet",
        num_classes=16,
        size=(128, 128, 128),
        options=_SIX_LEVELS,
    ),
    PrintedCost(
        where="Table 2 of E2ENet (nnUNet)",
        parameters_m=31.18,
        gflops=416.73,
        convention="e2enet",
        options={**_SIX_LEVELS, "kernels": ((1, 3, 3), 3, 3, 3, 3, 3)},
        note="nnU-Net v1 gives a decoder stage the kernel of the level below, so only the encoder is flat at full "
        "resolution: 416.66; here, as in v2, the decoder too",
    ),
    PrintedCost(
        where="Table 3 of E2ENet (nnUNet)",
        parameters_m=31.20,
        gflops=1076.62,
        convention="e2enet",
        in_channels=4,
        num_classes=4,
        size=(128, 128, 128),
        options=_SIX_LEVELS,
    ),
    PrintedCost(
        where="Table 1 of LoGoNet (nnUNet)",
        parameters_m=30.7,
        gflops=1250.65,
        convention="thop",
        options={"strides": (1, (1, 2, 2), 2, 2, 2, (1, 2, 2)), "kernels": ((1, 3, 3), 3, 3, 3, 3, 3)},
        note="the tool counts blocks of MONAI's DynUNet twice and transposed convolutions eightfold: in truth it takes "
        "286.0 * 10^9 multiply-accumulates, and 237.1 here, where the decoder is flat at full resolution too",
    ),
)

ENTRIES = {
    name: NetworkEntry(
        network=UNet,
        config=UNetConfig,
        options=options,
        source="Isensee et al., Nature Methods 2021; PlainConvUNet of nnU-Net v2",
        summary=_SUMMARIES[name],
        printed=_PRINTED if name == "unet" else (),
    )
    for name, options in SIZES.items()
}
