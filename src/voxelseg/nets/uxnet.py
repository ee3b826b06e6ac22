"""3D UX-Net (Lee et al., ICLR 2023, arXiv:2209.15076).

B batch, C channels, D H W depth, height, width in voxels, K classes, R = 4 the widening inside a block.
The mathematics is the authors' code (github.com/MASILab/3DUX-Net, commit 14ea46b), to which the golden files hold it
and for which there are weights. The paper differs from it in

- the block: two norms and two residuals (Eq. 1), where the code follows ConvNeXt with one of each; a subtle difference,
  says its first author (issue 42 there): `block="paper"`;
- layer scale, which the paper does not mention: `layer_scale=None` (the code takes an initial value and uses 1e-6);
- the layer norm before each downsampling convolution, which it does not mention: `transition_norm=False`;
- the layer norm on what each stage hands to the decoder, which it does not mention: `output_norm=False`;
- the number of stages: four down to 1/16 in its text as in the code, and a fifth at 1/32 in its Fig. 2: as many as
  `features`, `depths` and `strides` have;
- the softmax, which is left to the loss: forward returns logits.

Beyond the code, the head takes `features[0]` channels (theirs always 48), and strides and kernels are per level and
axis. Deep supervision is in a later version of the paper (Table 6: within nnU-Net, from the stages' intermediate
outputs), without code. As in nnU-Net, it is a pointwise head on the output of every decoder stage, at 1/2, 1/4 and 1/8,
beside the one at full resolution.

That version also has an optimised network, without the bottleneck block and with eight blocks in stage 3, of 32.1 M
parameters and 536.1 G operations. It was not released, and no reading gives both numbers. `uxnet_optimized` is the
nearest in parameters, 32.04 M: 384 channels at the lowest level, and one convolution there in place of the block. With
nothing there it has 28.06 M (`bottleneck="none"`), and 32.94 M with MLP scaling besides. Counted as the paper does,
these take 625 to 636 G: the blocks at full resolution, untouched by the change, take 59 % of the network's operations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite, prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.multiscale import MultiscaleNetwork, See
from voxelseg.nets.network import (
    Levels,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_shares,
    check_switches,
    per_level,
    planned_kernels,
    planned_steps,
    positive_integers,
)
from voxelseg.ops.block_upsample import block_upsample
from voxelseg.ops.channelwise import channelwise_scaling
from voxelseg.ops.depthwise import depthwise_conv
from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import instance_norm_add_leaky_relu, instance_norm_leaky_relu, layer_norm
from voxelseg.ops.pointwise import pointwise_conv
from voxelseg.ops.winograd import winograd_conv

WIDENING = 4  # R; fixed in paper and code
LAYER_NORM_EPS = 1e-6
INSTANCE_NORM_EPS = 1e-5
NEGATIVE_SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class UXNetConfig:
    """Options of a 3D UX-Net; the defaults are the released network."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    features: tuple[int, ...] = (48, 96, 192, 384)
    """Channels of each encoder stage; the first is also that of full resolution."""
    hidden: int | None = None
    """Channels at the lowest resolution (768 as published). None: twice the last of `features`, or, without a
    bottleneck, the last itself, the only possible value then."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Blocks of each encoder stage."""
    kernel_size: tuple[tuple[int, ...], ...] | int = 7
    """Kernel of the blocks of each stage per axis, odd; one number stands for all."""
    stem_kernel: tuple[int, ...] | int = 7
    """Kernel of the first convolution per axis, odd; it stays 7 in the paper's study of kernels."""
    residual_kernel: tuple[tuple[int, ...], ...] | int = 3
    """Kernel of the decoder's residual blocks per axis, odd, at full resolution and at that of each stage."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride per axis of the first convolution and of each transition between stages."""
    block: Literal["released", "paper"] = "released"
    """Convolution, norm, scaling and one residual, or the paper's Eq. 1: a norm before and a residual after both."""
    scaling: Literal["dcs", "mlp", "none"] = "dcs"
    """What widens each block: every channel on its own (depthwise convolutional scaling), all together, nothing."""
    depthwise: bool = True
    """Whether the blocks' large kernels are depthwise; dense otherwise."""
    layer_scale: float | None = 1e-6
    """Initial value of the factors per channel on each residual branch; None for no such factors."""
    drop_path: float = 0.0
    """Chance with which the last block's residual branches are left out for a sample in training; rises linearly from 0
    in the first block."""
    transition_norm: bool = True
    """Whether a layer norm stands before each downsampling convolution but the first."""
    output_norm: bool = True
    """Whether each stage's output passes a layer norm on its way to the decoder."""
    bottleneck: Literal["residual", "conv", "none"] = "residual"
    """At the lowest resolution: a residual block as at all others, one convolution with its norm, or nothing."""
    deep_supervision: bool = False
    """Whether the decoder stages below full resolution have heads."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes")
        check_switches(self, "depthwise", "transition_norm", "output_norm", "deep_supervision")
        object.__setattr__(self, "features", positive_integers("features", self.features))
        stages = len(self.features)
        object.__setattr__(self, "depths", positive_integers("depths", self.depths, number=stages))
        object.__setattr__(self, "strides", per_level("strides", self.strides))
        if len(self.strides) != stages:
            raise ConfigError(f"strides = {self.strides}: expected one per stage, as features ({stages}).")
        object.__setattr__(self, "kernel_size", _kernels("kernel_size", self.kernel_size, stages))
        object.__setattr__(self, "residual_kernel", _kernels("residual_kernel", self.residual_kernel, stages + 1))
        object.__setattr__(self, "stem_kernel", _kernels("stem_kernel", (self.stem_kernel,), 1)[0])
        check_choice(self, "block", "released", "paper")
        check_choice(self, "scaling", "dcs", "mlp", "none")
        check_choice(self, "bottleneck", "residual", "conv", "none")
        check_shares(self, "drop_path")
        if self.layer_scale is not None and (
            type(self.layer_scale) not in (int, float) or not isfinite(self.layer_scale)
        ):
            raise ConfigError(f"layer_scale = {self.layer_scale!r}: expected a number, or None for no layer scale.")
        self._settle_hidden()

    def _settle_hidden(self) -> None:
        last = self.features[-1]
        if self.hidden is None:
            object.__setattr__(self, "hidden", last if self.bottleneck == "none" else 2 * last)
        check_counts(self, "hidden")
        if self.bottleneck == "none" and self.hidden != last:
            raise ConfigError(
                f"hidden = {self.hidden}: without a bottleneck the lowest resolution has the {last} channels of the "
                "last stage. Leave out hidden, or choose another bottleneck."
            )

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Strides as published, and kernels of one voxel, along thick or few slices as the plan has them."""
        stages = len(positive_integers("features", options.get("features", cls.features)))
        adapted: dict[str, Any] = {"strides": planned_steps(strides, stages)}
        levels: dict[str, Any] = {"stem_kernel": 0, "kernel_size": slice(1, None), "residual_kernel": slice(None)}
        for name, which in levels.items():
            size = options.get(name, getattr(cls, name))
            if isinstance(size, int):
                adapted[name] = planned_kernels(kernels, stages + 1, size)[which]
        return adapted


def _kernels(name: str, value: object, number: int) -> Levels:
    levels = per_level(name, (value,) * number if isinstance(value, int) else value)
    if len(levels) != number or any(size % 2 == 0 for level in levels for size in level):
        raise ConfigError(f"{name} = {value!r}: expected odd sizes, one for all or one per level ({number}).")
    return levels


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, D, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


class UXBlock(nn.Module):
    """Large-kernel convolution and channel scaling, in one residual branch ("released") or in one each ("paper")."""

    def __init__(self, channels: int, *, kernel: tuple[int, ...], drop_path: float, config: UXNetConfig) -> None:
        super().__init__()
        two_branches = config.block == "paper"
        self.drop_path = drop_path
        self.conv = nn.Conv3d(
            channels,
            channels,
            kernel,  # type: ignore[arg-type]
            padding=_half(kernel),
            groups=channels if config.depthwise else 1,
        )
        self.conv_norm = LayerNorm(channels) if two_branches else None
        self.conv_scale = _layer_scale(channels, config) if two_branches else None
        self.norm = LayerNorm(channels) if config.scaling != "none" or not two_branches else None
        self.layer_scale = _layer_scale(channels, config) if self.norm is not None else None
        self.expand: nn.Conv3d | None = None
        self.compress: nn.Conv3d | None = None
        if config.scaling != "none":
            groups = channels if config.scaling == "dcs" else 1
            self.expand = nn.Conv3d(channels, WIDENING * channels, 1, groups=groups)
            self.compress = nn.Conv3d(WIDENING * channels, channels, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        if self.conv_norm is None:
            return x + self._dropped(self._scaled(self._convolved(x)))
        x = x + self._dropped(_times(self._convolved(self.conv_norm(x)), self.conv_scale))
        return x if self.norm is None else x + self._dropped(self._scaled(x))

    def fuse(self) -> None:
        """Multiply the layer scales into the last weights of their branches."""
        last = self.norm if self.compress is None else self.compress
        for layer, scale in ((last, self.layer_scale), (self.conv, self.conv_scale)):
            if layer is not None and scale is not None:
                assert layer.bias is not None
                layer.weight.mul_(scale.view(-1, *(1,) * (layer.weight.ndim - 1)))
                layer.bias.mul_(scale)
        self.layer_scale = self.conv_scale = None

    def _convolved(self, x: Tensor) -> Tensor:
        if self.conv.groups == 1:
            y: Tensor = self.conv(x)
            return y
        return depthwise_conv(x, self.conv.weight, self.conv.bias)

    def _scaled(self, x: Tensor) -> Tensor:
        """Norm, scaling and layer scale."""
        assert self.norm is not None
        y: Tensor = self.norm(x)
        if self.expand is None or self.compress is None:
            return _times(y, self.layer_scale)
        assert self.expand.bias is not None
        assert self.compress.bias is not None
        if self.expand.groups > 1:
            return channelwise_scaling(
                y, self.expand.weight, self.expand.bias, self.compress.weight, self.compress.bias, self.layer_scale
            )
        y = F.gelu(pointwise_conv(y, self.expand.weight, self.expand.bias))  # (B, R*C, D, H, W)
        return _times(pointwise_conv(y, self.compress.weight, self.compress.bias), self.layer_scale)

    def _dropped(self, branch: Tensor) -> Tensor:
        """The branch, left out for some samples in training and made up for in the others (Huang et al. 2016)."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * (kept / (1 - self.drop_path))


def _half(kernel: tuple[int, ...]) -> Any:
    return tuple(size // 2 for size in kernel)


def _layer_scale(channels: int, config: UXNetConfig) -> nn.Parameter | None:
    return None if config.layer_scale is None else nn.Parameter(torch.full((channels,), float(config.layer_scale)))


def _times(x: Tensor, layer_scale: Tensor | None) -> Tensor:
    return x if layer_scale is None else x * layer_scale.view(-1, 1, 1, 1)


class Transition(nn.Module):
    """Layer norm and a convolution whose kernel is its stride: fewer voxels, more channels, and these are mixed."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        self.norm = LayerNorm(in_channels) if norm else None
        self.conv = nn.Conv3d(in_channels, out_channels, stride, stride)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        y: Tensor = self.conv(x if self.norm is None else self.norm(x))
        return y


class Stem(nn.Module):
    """The large-kernel convolution that takes the image to the first stage, and its layer norm."""

    def __init__(self, config: UXNetConfig) -> None:
        super().__init__()
        kernel: Any = config.stem_kernel
        channels = config.features[0]
        self.conv = nn.Conv3d(config.in_channels, channels, kernel, config.strides[0], _half(kernel))  # type: ignore[arg-type]
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D / stride, H / stride, W / stride)."""
        y: Tensor = self.norm(self.conv(x))
        return y


class ConvBlock(nn.Module):
    """Convolution, instance norm without weights, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        y = winograd_conv(x, self.conv1.weight)
        return instance_norm_leaky_relu(y, None, None, eps=INSTANCE_NORM_EPS, slope=NEGATIVE_SLOPE)


class ResidualBlock(ConvBlock):
    """Two such convolutions beside a shortcut, and the second leaky ReLU after their sum (Sec. 4.2).

    The shortcut is a pointwise convolution with norm where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__(in_channels, out_channels, kernel=kernel)
        self.conv2 = _conv(out_channels, out_channels, kernel)
        self.shortcut = _conv(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        return instance_norm_add_leaky_relu(
            winograd_conv(super().forward(x), self.conv2.weight),
            x if self.shortcut is None else pointwise_conv(x, self.shortcut.weight, None),
            norm_residual=self.shortcut is not None,
            eps=INSTANCE_NORM_EPS,
            slope=NEGATIVE_SLOPE,
        )


def _conv(in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel, padding=_half(kernel), bias=False)  # type: ignore[arg-type]


class UXNet(MultiscaleNetwork):
    """Depthwise-convolution encoder, residual blocks on every skip connection and in the decoder (Fig. 2)."""

    def __init__(self, config: UXNetConfig) -> None:
        features, stages = config.features, range(len(config.features))
        reach = [tuple(prod(step[axis] for step in config.strides[:level]) for axis in range(3)) for level in stages]
        lowest = tuple(last * step for last, step in zip(reach[-1], config.strides[-1], strict=True))
        num_heads = len(features) if config.deep_supervision else 1
        super().__init__(
            reach[:num_heads], divisor=lowest, in_channels=config.in_channels, feature_channels=features[0]
        )
        assert config.hidden is not None
        assert not isinstance(config.kernel_size, int)
        assert not isinstance(config.residual_kernel, int)
        self.config = config
        kernels = config.residual_kernel
        widths = [*features, config.hidden]  # of the decoder: at full resolution and at that of each stage

        self.stem = Stem(config)
        self.transitions = nn.ModuleList(  # transitions[i] leads from stage i to i + 1
            Transition(features[i], features[i + 1], stride=config.strides[i + 1], norm=config.transition_norm)
            for i in stages[:-1]
        )
        rates = iter(_drop_path_rates(config))
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    UXBlock(features[i], kernel=config.kernel_size[i], drop_path=next(rates), config=config)
                    for _ in range(config.depths[i])
                )
            )
            for i in stages
        )
        self.output_norms = nn.ModuleList(
            LayerNorm(channels) if config.output_norm else nn.Identity() for channels in features
        )
        inputs = [config.in_channels, *features]
        self.skips = nn.ModuleList(
            ResidualBlock(inputs[level], widths[level], kernel=kernels[level]) for level in stages
        )
        self.bottleneck = _bottleneck(config, features[-1], config.hidden, kernels[-1])
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i, as does decoder[i]
            nn.ConvTranspose3d(widths[i + 1], widths[i], config.strides[i], config.strides[i], bias=False)  # type: ignore[arg-type]
            for i in stages
        )
        self.decoder = nn.ModuleList(ResidualBlock(2 * widths[i], widths[i], kernel=kernels[i]) for i in stages)
        self.refine = ResidualBlock(features[0], features[0], kernel=kernels[0])
        self.heads = nn.ModuleList(nn.Conv3d(widths[level], config.num_classes, 1) for level in range(num_heads))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the backbone: stem, stages, transitions and the norms of the stages' outputs."""
        parts = (self.stem, self.transitions, self.stages, self.output_norms)
        return chain.from_iterable(part.parameters() for part in parts)

    def _decode(self, x: Tensor, num_levels: int, see: See) -> list[Tensor]:
        """See `MultiscaleNetwork`; of the decoder's stages, the last one with its residual block."""
        images = self._encode(x)
        seen: list[Tensor] = []
        x = self.bottleneck(images.pop())
        for level in reversed(range(len(images))):
            skip = self.skips[level](images.pop())
            x = block_upsample(x, self.up[level].weight)  # type: ignore[arg-type]
            x = self.decoder[level](torch.cat((x, skip), dim=1))  # (B, features[level], D / 2^level, ...)
            if level == 0:
                x = self.refine(x)
            if level < num_levels:
                seen.append(see(level, x))
        return seen[::-1]

    def fuse(self) -> None:
        """Multiply the layer scales into the weights before them."""
        for block in self.stages.modules():
            if isinstance(block, UXBlock):
                block.fuse()

    def _encode(self, x: Tensor) -> list[Tensor]:
        """The image of each level: the input, then the outputs of the stages."""
        self.check_input(x)
        if fast_on_cpu(x, self.stem.conv.weight):
            # Every convolution then keeps this layout. A clone, since one channel is contiguous in either as it is.
            x = x.clone(memory_format=torch.channels_last_3d)
        outputs = [x]
        for i, stage in enumerate(self.stages):
            x = stage(self.stem(x) if i == 0 else self.transitions[i - 1](x))  # (B, features[i], D / 2^(i+1), ...)
            outputs.append(self.output_norms[i](x))
        return outputs


def _drop_path_rates(config: UXNetConfig) -> list[float]:
    number = sum(config.depths)
    return [config.drop_path * block / max(number - 1, 1) for block in range(number)]


def _bottleneck(config: UXNetConfig, in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> nn.Module:
    if config.bottleneck == "none":
        return nn.Identity()
    block = ResidualBlock if config.bottleneck == "residual" else ConvBlock
    return block(in_channels, out_channels, kernel=kernel)


SIZES: dict[str, dict[str, Any]] = {
    "uxnet": {},
    "uxnet_optimized": {"hidden": 384, "depths": (2, 2, 8, 2), "bottleneck": "conv"},
}
"""Options of each named size."""

_SUMMARIES = {
    "uxnet": "3D UX-Net as released: 7 x 7 x 7 depthwise encoder, heavy decoder",
    "uxnet_optimized": "3D UX-Net with a slim lowest level and a deeper third stage, after the paper's later version",
}


def _ablation(parameters_m: float, *, note: str = "", **options: Any) -> PrintedCost:
    return PrintedCost(
        where="Table 3 of 3D UX-Net",
        parameters_m=parameters_m,
        gflops=None,
        convention="ptflops",
        num_classes=5,
        options=options,
        note=note,
    )


_PRINTED = {
    "uxnet": (
        PrintedCost(
            where="Table 1 of 3D UX-Net",
            parameters_m=53.0,
            gflops=639.4,
            convention="ptflops",
            num_classes=5,
            note="The printed operations are those of MLP scaling (639.3), the parameters those of DCS.",
        ),
        _ablation(186.9, depthwise=False),
        _ablation(53.6, kernel_size=9),
        _ablation(54.4, kernel_size=11),
        _ablation(55.7, kernel_size=13),
        _ablation(56.3, scaling="mlp"),
        _ablation(
            51.1,
            scaling="none",
            note="Leaving out the scaling takes away 0.02 M; no reading takes away the printed 1.9 M.",
        ),
    ),
    "uxnet_optimized": (
        PrintedCost(
            where="Table 7 of 3D UX-Net, later version",
            parameters_m=32.1,
            gflops=536.1,
            convention="ptflops",
            num_classes=5,
            note="Not released. No reading of the text saves the printed operations: the bottleneck has 1 % of them.",
        ),
    ),
}

ENTRIES = {
    name: NetworkEntry(
        network=UXNet,
        config=UXNetConfig,
        options=options,
        source="Lee et al., ICLR 2023, arXiv:2209.15076; github.com/MASILab/3DUX-Net at 14ea46b",
        summary=_SUMMARIES[name],
        printed=_PRINTED[name],
    )
    for name, options in SIZES.items()
}
