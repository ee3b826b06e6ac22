"""ULKANet, the U-shaped network of large-kernel attention inside LoGoNet (Karimi Monsefi et al., KDD 2024).

B batch, C channels, D H W depth, height, width in voxels, K classes, F features (as many as classes), n stages (4).
The mathematics is the first author's public code (github.com/7Amin/SSL_VAN, commit 3d705fc), to which the golden files
hold it; parameter counts equal those in its logs to the digit. Paper and code differ in

- the residuals of a block. Algorithm 3 of the paper replaces the input by its batch norm and adds to that:
  `residual="algorithm3"`, the default, since the paper prints no other. The code overwrites the input before it adds,
  so that nothing skips a block and the sums merely double: `"released"`. The paper's tables were made with it, and
  official weights need it. `"prenorm"` is the block of VAN (Guo et al. 2022), from which the attention comes: norms on
  the branches only. The three have the same parameters and cost. At the start a released block's output has nothing of
  its input but what the attention's own shortcut carries, at magnitudes near 1e-3 that the next norm makes up for;
- the MLP. Algorithm 4 has a GELU on either side of its depthwise convolution, the code only the second:
  `mlp_pre_gelu=True` for both;
- the attention, in Eq. 2 and 3 the gate alone. The code has pointwise convolutions around it, a GELU, a shortcut, and a
  batch norm before the gate, without which the paper's parameter counts cannot be met;
- the decoder, in the text three convolutions per level. The code has four, and two on each skip connection: those
  counts again.

Unlike the code: strides and kernels are per level and axis, the width of the last layers need not be the number of
classes (`feature_channels`), and attention maps stay volumes instead of turning into tokens and back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from voxelseg.errors import ConfigError
from voxelseg.nets.network import (
    Levels,
    Network,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_switches,
    per_level,
    planned_kernels,
    planned_steps,
    positive_integers,
)
from voxelseg.ops.concat import conv_of_concat
from voxelseg.ops.dense import dense_conv
from voxelseg.ops.depthwise import depthwise_conv
from voxelseg.ops.dilated import dilated_depthwise_conv
from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import layer_norm
from voxelseg.ops.pointwise import pointwise_conv, pointwise_head

NEGATIVE_SLOPE = 0.01
LOCAL_KERNEL, LONG_KERNEL, DILATION = 5, 7, 3  # of the attention: together they reach over 23 voxels per axis
MLP_KERNEL = 3
INITIAL_SCALE = 1e-2
RESIDUALS = ("algorithm3", "prenorm", "released")


@dataclass(frozen=True, kw_only=True)
class ULKANetConfig:
    """Options of a ULKANet; the defaults are the "Normal" size of the paper's Table 12."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    dims: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each encoder stage; the first is even: the decoder goes on to half of it."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Attention blocks of each stage."""
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
    """Hidden channels of the MLPs of each stage, as a multiple of its channels."""
    residual: Literal["algorithm3", "prenorm", "released"] = "algorithm3"
    """Form of the blocks' residuals; see the head of this file."""
    mlp_pre_gelu: bool = False
    """Whether the MLPs have a GELU before their depthwise convolution too."""
    feature_channels: int | None = None
    """Channels of the features that the last pointwise convolution turns into logits; None: as many as classes."""
    strides: tuple[tuple[int, ...], ...] | int = 2
    """Downsampling steps per axis, from full resolution on, one more than stages: the first stage takes two at once.
    One number stands for all."""
    kernels: tuple[tuple[int, ...], ...] | int = 3
    """Kernel of the decoder's convolutions per axis, odd, at full resolution and after each step. Where it is 1, the
    depthwise convolutions of the stage are flat too. One number stands for all."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes")
        check_switches(self, "mlp_pre_gelu")
        object.__setattr__(self, "dims", positive_integers("dims", self.dims))
        for name in ("depths", "mlp_ratios"):
            object.__setattr__(self, name, positive_integers(name, getattr(self, name), number=len(self.dims)))
        if self.dims[0] % 2:
            raise ConfigError(f"dims = {self.dims}: expected an even first number, which the decoder halves.")
        check_choice(self, "residual", *RESIDUALS)
        if self.feature_channels is not None:
            check_counts(self, "feature_channels")
        object.__setattr__(self, "strides", _levels("strides", self.strides, len(self.dims) + 1))
        object.__setattr__(self, "kernels", _levels("kernels", self.kernels, len(self.dims) + 2))
        if any(size % 2 == 0 for level in _as_levels(self.kernels) for size in level):
            raise ConfigError(f"kernels = {self.kernels}: expected odd sizes.")

    @property
    def features(self) -> int:
        """Channels of what the last pointwise convolution sees."""
        return self.num_classes if self.feature_channels is None else self.feature_channels

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Strides as published, and kernels of one voxel, along thick or few slices as the plan has them."""
        stages = len(options.get("dims", cls.dims))
        size = options.get("kernels", 3)
        return {
            "strides": planned_steps(strides, stages + 1),
            "kernels": planned_kernels(kernels, stages + 2, size if isinstance(size, int) else 3),
        }


def _levels(name: str, value: Any, number: int) -> Levels:
    levels = per_level(name, (value,) * number if isinstance(value, int) else value)
    if len(levels) != number:
        raise ConfigError(f"{name} = {value!r}: expected one number, or {number} entries, full resolution first.")
    return levels


def _as_levels(value: Levels | int) -> Levels:
    assert not isinstance(value, int), "the config has spread numbers over the levels"
    return value


class ConvUnit(nn.Module):
    """Convolution, batch norm, leaky ReLU: `Conv` of Fig. 4."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=[size // 2 for size in kernel])  # type: ignore[arg-type]
        self.norm: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, C_out, D, H, W) from one tensor, or from several as if concatenated."""
        y = conv_of_concat(parts, self.conv.weight, self.conv.bias, padding=_centred(self.conv))
        return F.leaky_relu(self.norm(y), NEGATIVE_SLOPE)

    def fuse(self) -> None:
        """The batch norm folded into the convolution."""
        if isinstance(self.norm, nn.BatchNorm3d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


def _centred(conv: nn.Conv3d) -> list[int]:
    """Padding that puts the middle of the kernel on the voxel."""
    return [size // 2 for size in conv.kernel_size]


class ConvPair(nn.Module):
    """Two convolution units, through `middle` channels."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.first = ConvUnit(in_channels, middle, kernel=kernel)
        self.second = ConvUnit(middle, out_channels, kernel=kernel)

    def forward(self, *parts: Tensor) -> Tensor:
        """(B, C_out, D, H, W) from one tensor, or from several as if concatenated."""
        y: Tensor = self.second(self.first(*parts))
        return y


def _depthwise(channels: int, size: int, kernel: tuple[int, ...], *, dilation: int = 1) -> nn.Conv3d:
    """Weights of a depthwise convolution of `size` along the axes on which `kernel` is not flat."""
    sizes = tuple(1 if one == 1 else size for one in kernel)
    return nn.Conv3d(channels, channels, sizes, groups=channels, dilation=dilation)  # type: ignore[arg-type]


class LargeKernelAttention(nn.Module):
    """Features times a gate of two depthwise convolutions, the second dilated (Eq. 2, 3), between pointwise ones."""

    def __init__(self, channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.project_in = nn.Conv3d(channels, channels, 1)
        self.norm = nn.BatchNorm3d(channels)
        self.local = _depthwise(channels, LOCAL_KERNEL, kernel)
        self.long = _depthwise(channels, LONG_KERNEL, kernel, dilation=DILATION)
        self.gate = nn.Conv3d(channels, channels, 1)
        self.project_out = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W), without the shortcut around it."""
        x = F.gelu(pointwise_conv(x, self.project_in.weight, self.project_in.bias))
        gate = depthwise_conv(self.norm(x), self.local.weight, self.local.bias)
        gate = dilated_depthwise_conv(gate, self.long.weight, self.long.bias, dilation=DILATION)
        gate = pointwise_conv(gate, self.gate.weight, self.gate.bias)
        return pointwise_conv(x * gate, self.project_out.weight, self.project_out.bias)


class MLP(nn.Module):
    """Expansion, depthwise convolution, GELU, compression (Algorithm 4)."""

    def __init__(self, channels: int, *, ratio: int, kernel: tuple[int, ...], pre_gelu: bool) -> None:
        super().__init__()
        self.expand = nn.Conv3d(channels, ratio * channels, 1)
        self.depthwise = _depthwise(ratio * channels, MLP_KERNEL, kernel)
        self.compress = nn.Conv3d(ratio * channels, channels, 1)
        self.pre_gelu = pre_gelu

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        x = pointwise_conv(x, self.expand.weight, self.expand.bias)  # (B, R*C, D, H, W)
        x = depthwise_conv(F.gelu(x) if self.pre_gelu else x, self.depthwise.weight, self.depthwise.bias)
        return pointwise_conv(F.gelu(x), self.compress.weight, self.compress.bias)


class AttentionBlock(nn.Module):
    """Large-kernel attention, then an MLP, each with a batch norm and a scale per channel (Algorithm 3)."""

    def __init__(self, channels: int, *, ratio: int, kernel: tuple[int, ...], config: ULKANetConfig) -> None:
        super().__init__()
        self.norm1: nn.Module = nn.BatchNorm3d(channels)
        self.attention = LargeKernelAttention(channels, kernel=kernel)
        self.scale1 = nn.Parameter(torch.full((channels,), INITIAL_SCALE))
        self.norm2: nn.Module = nn.BatchNorm3d(channels)
        self.mlp = MLP(channels, ratio=ratio, kernel=kernel, pre_gelu=config.mlp_pre_gelu)
        self.scale2 = nn.Parameter(torch.full((channels,), INITIAL_SCALE))
        self.residual = config.residual
        self.scales_folded = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        if self.residual == "prenorm":
            x = x + self._attention(self.norm1(x))
            return x + self._mlp(self.norm2(x))
        if self.residual == "algorithm3":
            x = self.norm1(x)
            x = x + self._attention(x)
            x = self.norm2(x)
            return x + self._mlp(x)
        x = 2 * self._attention(self.norm1(x))  # what should have been the input is the branch itself
        return 2 * self._mlp(self.norm2(x))

    def _attention(self, x: Tensor) -> Tensor:
        scale, y = self.scale1.view(-1, 1, 1, 1), self.attention(x)
        return torch.addcmul(y, x, scale) if self.scales_folded else scale * (x + y)

    def _mlp(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(x)
        return y if self.scales_folded else self.scale2.view(-1, 1, 1, 1) * y

    def fuse(self) -> None:
        """Scales folded into the layers before them, and the second norm into the MLP where nothing else needs it."""
        if self.scales_folded:
            return
        for layer, scale in ((self.attention.project_out, self.scale1), (self.mlp.compress, self.scale2)):
            _scale_outputs(layer, scale)
        self.scales_folded = True
        if self.residual != "algorithm3" and isinstance(self.norm2, nn.BatchNorm3d):
            _fold_into_next(self.norm2, self.mlp.expand)
            self.norm2 = nn.Identity()


def _scale_outputs(layer: nn.Conv3d, scale: Tensor) -> None:
    assert layer.bias is not None
    layer.weight *= scale.view(-1, 1, 1, 1, 1)
    layer.bias *= scale


def _fold_into_next(norm: nn.BatchNorm3d, layer: nn.Conv3d) -> None:
    """`norm` becomes part of the pointwise convolution that follows it; one with padding would see its shift there."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert layer.bias is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    layer.bias += layer.weight.flatten(1) @ shift
    layer.weight *= scale.view(1, -1, 1, 1, 1)


class Stage(nn.Module):
    """Patch embedding (Eq. 1, Algorithm 2), attention blocks, layer norm."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        depth: int,
        ratio: int,
        stride: tuple[int, ...],
        kernel: tuple[int, ...],
        config: ULKANetConfig,
    ) -> None:
        super().__init__()
        # Kernel 7 for stride 4 and 3 for 2, as published; 1 along an axis that is not downsampled.
        reach = [2 * step - 1 for step in stride]
        self.embed = nn.Conv3d(in_channels, channels, reach, stride, [size // 2 for size in reach])  # type: ignore[arg-type]
        self.embed_norm: nn.Module = nn.BatchNorm3d(channels)
        self.blocks = nn.ModuleList(
            AttentionBlock(channels, ratio=ratio, kernel=kernel, config=config) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels)
        self.blocks_norm_first = config.residual != "prenorm"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D / stride, H / stride, W / stride)."""
        embed = self.embed
        x = dense_conv(x, embed.weight, embed.bias, stride=embed.stride, padding=_centred(embed))
        x = self.embed_norm(x)
        for block in self.blocks:
            x = block(x)
        return layer_norm(x, self.norm.weight, self.norm.bias, eps=self.norm.eps)

    def fuse(self) -> None:
        """The embedding's norm folded into it, and the first block's where the block starts from its norm."""
        if isinstance(self.embed_norm, nn.BatchNorm3d):
            self.embed, self.embed_norm = fuse_conv_bn_eval(self.embed, self.embed_norm), nn.Identity()
        first: Any = self.blocks[0]
        if self.blocks_norm_first and isinstance(first.norm1, nn.BatchNorm3d):
            self.embed, first.norm1 = fuse_conv_bn_eval(self.embed, first.norm1), nn.Identity()


class ULKAUNet(nn.Module):
    """Encoder and decoder of `stages` stages, up to `config.features` channels at full resolution (Fig. 1b, 4).

    `width` channels are brought up from half resolution.
    """

    def __init__(self, config: ULKANetConfig, *, stages: int, width: int) -> None:
        super().__init__()
        steps, kernels = _as_levels(config.strides), _as_levels(config.kernels)
        dims = config.dims[:stages]
        self.steps = steps[: stages + 1]
        strides = [tuple(a * b for a, b in zip(*steps[:2], strict=True)), *steps[2:]]
        self.stages = nn.ModuleList(
            Stage(
                dims[stage - 1] if stage else config.in_channels,
                dims[stage],
                depth=config.depths[stage],
                ratio=config.mlp_ratios[stage],
                stride=strides[stage],
                kernel=kernels[stage + 2],
                config=config,
            )
            for stage in range(stages)
        )
        # The decoder, in order; lists have an entry per skip connection, from the lowest resolution up.
        *widths, narrowest = [*reversed(dims), dims[0] // 2]
        narrower = [*widths[1:], narrowest]
        levels = [(widths[i], narrower[i], kernels[stages + 1 - i]) for i in range(1, stages)]
        self.first_up = ConvPair(widths[0], narrower[0], narrower[0], kernel=kernels[stages + 1])
        self.skips = nn.ModuleList(ConvPair(c, c, c, kernel=kernel) for c, _, kernel in levels)
        self.merges = nn.ModuleList(ConvPair(2 * c, c, c, kernel=kernel) for c, _, kernel in levels)
        self.ups = nn.ModuleList(ConvPair(c, half, half, kernel=kernel) for c, half, kernel in levels)
        self.refine = ConvPair(narrowest, width, width, kernel=kernels[1])
        self.last_up = ConvPair(width, width, width, kernel=kernels[1])
        self.stem = ConvPair(config.in_channels, narrowest, dims[0], kernel=kernels[0])
        self.fusion = ConvPair(dims[0] + width, config.features, config.features, kernel=kernels[0])

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of each stage, (B, dims[i], D / 2^(i+2), ...) as published, high to low resolution."""
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, D, H, W)."""
        out: Tensor = self.fusion(*self.parts(x))  # (B, F, D, H, W)
        return out

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the last two convolutions see: the stem's (B, dims[0], D, H, W), the decoder's (B, width, D, H, W)."""
        *skips, y = self.encode(x)  # (B, C, D / 2^(n+1), H / 2^(n+1), W / 2^(n+1)), C the last of dims
        first, *others, last = reversed(self.steps)
        y = _upsampled(self.first_up(y), first)  # (B, C / 2, D / 2^n, H / 2^n, W / 2^n)
        for skip, merge, up, step in zip(self.skips, self.merges, self.ups, others, strict=True):
            y = merge(y, skip(skips.pop()))
            y = _upsampled(up(y), step)  # (B, C / 4, D / 2^(n-1), H / 2^(n-1), W / 2^(n-1)), and so on
        y = _upsampled(self.last_up(self.refine(y)), last)  # (B, width, D, H, W)
        return self.stem(x), y

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stem and the stages."""
        return chain(self.stem.parameters(), self.stages.parameters())

    def fuse(self) -> None:
        """See `Network.fuse`."""
        for module in self.modules():
            if isinstance(module, ConvUnit | Stage | AttentionBlock):
                module.fuse()


def _upsampled(y: Tensor, step: tuple[int, ...]) -> Tensor:
    if prod(step) == 1:
        return y
    return F.interpolate(y, scale_factor=step, mode="trilinear", align_corners=False)


class ULKANet(Network):
    """ULKANet on its own, with a pointwise convolution to the classes."""

    def __init__(self, config: ULKANetConfig) -> None:
        steps = _as_levels(config.strides)
        super().__init__(
            [(1, 1, 1)],
            divisor=tuple(map(prod, zip(*steps, strict=True))),
            in_channels=config.in_channels,
            feature_channels=config.dims[0] + config.features,
        )
        self.config = config
        self.body = ULKAUNet(config, stages=len(config.dims), width=config.features)
        self.classifier = nn.Conv3d(config.features, config.num_classes, 1)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stem and the stages."""
        return self.body.encoder_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W)."""
        return self.classify(*self._parts(x))

    def features(self, x: Tensor) -> Tensor:
        """What the last convolutions and the classifier see (B, dims[0] + F, D, H, W), the stem's channels first."""
        return torch.cat(self._parts(x), dim=1)

    def classify(self, *parts: Tensor) -> Tensor:
        """Logits (B, K, D, H, W) from the features, or from their parts as if concatenated."""
        y = self.body.fusion(*parts)
        return pointwise_head(y, self.classifier.weight, self.classifier.bias)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of the last stage (B, dims[-1], D / 32, H / 32, W / 32) as published."""
        return self.body.encode(self._prepared(x))[-1:]

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body.parts(self._prepared(x))

    def _prepared(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return channels_last_on_cpu(x, self.classifier.weight)

    def fuse(self) -> None:
        """Batch norms folded into convolutions, and scales into the layers before them."""
        self.body.fuse()

    def _fitting_size(self, x: Tensor) -> tuple[int, ...]:
        return super()._fitting_size(x) if self.training and x.shape[0] == 1 else next_multiple(x, self.divisor)


def channels_last_on_cpu(x: Tensor, weight: Tensor) -> Tensor:
    """`x` in the layout that every fast operation then keeps; a copy, since one channel is contiguous in either."""
    return x.clone(memory_format=torch.channels_last_3d) if fast_on_cpu(x, weight) else x


def next_multiple(x: Tensor, divisor: tuple[int, ...]) -> tuple[int, ...]:
    """Size of `x` rounded up to multiples, though that be one voxel at the lowest resolution.

    That is enough for batch norm in evaluation mode, and in training if there are several samples.
    """
    return tuple(-(-size // step) * step for size, step in zip(x.shape[2:], divisor, strict=True))


SOURCE = "Karimi Monsefi et al., KDD 2024, doi 10.1145/3637528.3672069; github.com/7Amin/SSL_VAN at 3d705fc"

LARGE: dict[str, Any] = {"dims": (96, 192, 384, 768), "depths": (3, 3, 24, 3)}
"""Options of the large sizes (Table 12)."""

DRAFT_TABLE = "draft of Table 1 in the authors' repository"
COST_NOTE = (
    "theirs leaves out the batch norm inside the attention, 0.01 % of the operations; parameters by their tool, which "
    "misses the scales of the blocks"
)

ENTRIES = {
    "ulkanet": NetworkEntry(
        network=ULKANet,
        config=ULKANetConfig,
        source=SOURCE,
        summary="ULKANet: a U-shape whose encoder is large-kernel attention",
        printed=(PrintedCost(where=DRAFT_TABLE, parameters_m=40.2, gflops=109.94, convention="thop", note=COST_NOTE),),
    ),
    "ulkanet_l": NetworkEntry(
        network=ULKANet,
        config=ULKANetConfig,
        options=LARGE,
        source=SOURCE,
        summary="ULKANet large: wider, 24 blocks in the third stage",
        printed=(
            PrintedCost(where=DRAFT_TABLE, parameters_m=121.20, gflops=218.70, convention="thop", note=COST_NOTE),
        ),
    ),
}
