"""MedNeXt (Roy et al., MICCAI 2023, arXiv:2303.09975), version 1.

B batch, C channels, D H W depth, height, width in voxels, R expansion ratio, k kernel size, K classes.
The mathematics is the authors' code (github.com/MIC-DKFZ/MedNeXt, commit 0b78ed8), to which the golden files hold it.
Where paper and code differ the code is followed: a fifth deep-supervision head sits on the bottleneck, and the up block
leaves plane 0 of each axis to the skip connection alone. Unlike the code: no `dummy_tensor` parameter (checkpointing is
non-reentrant and runs only in training), global response normalisation reaches every block (theirs misses the first
down block), both norms work in two dimensions, and kernels and strides may differ per level and axis for thick slices.

`resampling="standard"` is the paper's ablation with standard up- and downsampling (Table 1), for which no code was
released. Sec. 2.2 takes it from the original ConvNeXt: separate layers of standard strided convolutions downwards, of
standard strided transposed convolutions upwards. Read here as one dense convolution with bias in place of each
resampling block, kernel = stride = 2 as in ConvNeXt, channels C to 2C down and 2C to C up, and nothing around it: no
activation, no residual, no norm (ConvNeXt has one before the convolution; the paper names none).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import mul
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from voxelseg.errors import ConfigError
from voxelseg.nets.multiscale import MultiscaleNetwork, See
from voxelseg.nets.network import (
    Levels,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_switches,
    per_axis,
    per_level,
    planned_kernels,
    planned_steps,
)
from voxelseg.ops.bottleneck import inverted_bottleneck
from voxelseg.ops.depthwise import depthwise_conv, depthwise_conv_transpose
from voxelseg.ops.norm import global_response_norm, instance_norm, layer_norm
from voxelseg.ops.pointwise import pointwise_conv, pointwise_head
from voxelseg.ops.upsample import add_upsampled

NUM_LEVELS = 5
NUM_STAGES = 2 * NUM_LEVELS - 1
PUBLISHED_KERNEL = 3  # the paper's other, 5, starts from a network trained with this one


@dataclass(frozen=True, kw_only=True)
class MedNeXtConfig:
    """Options of a MedNeXt; the defaults are size S of the paper."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 32
    """C, channels at full resolution; they double with each of the four levels below."""
    expansion: tuple[int, ...] = (2,) * NUM_STAGES
    """R of the nine stages: four encoder stages, bottleneck, four decoder stages. One number stands for all."""
    blocks: tuple[int, ...] = (2,) * NUM_STAGES
    """Blocks of the nine stages. One number stands for all."""
    kernel_size: int | Levels = PUBLISHED_KERNEL
    """k of the depthwise convolutions, odd: one number for all, or one entry (a number or D, H, W) for each of the five
    levels, full resolution first. Resampling blocks have the kernel of the lower of their two levels."""
    strides: int | Levels = 2
    """Steps between the five levels, each 1 or 2: one number for all, or four entries (a number or D, H, W)."""
    deep_supervision: bool = False
    """Whether there are heads on the three lower decoder stages and the bottleneck."""
    residual: bool = True
    """Whether blocks add their input."""
    resampling: Literal["inverted", "standard"] = "inverted"
    """Down and up blocks that are inverted bottlenecks, or plain strided convolutions (the ablation of Table 1)."""
    residual_resampling: bool | None = None
    """Whether inverted down and up blocks add a strided pointwise convolution of their input; not set, they do."""
    norm: Literal["group", "layer"] = "group"
    """Per channel over space ("group", as in the paper), or over channels ("layer")."""
    grn: bool = False
    """Global response normalisation between GELU and compression."""
    spatial_dims: int = 3
    """3, or 2 for slices (B, C, H, W)."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass of training: less memory, more time, the same numbers."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "spatial_dims")
        check_switches(self, "deep_supervision", "residual", "grn", "checkpointing")
        for name in ("expansion", "blocks"):
            object.__setattr__(self, name, _per_stage(name, getattr(self, name)))
        check_choice(self, "norm", "group", "layer")
        if self.spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims = {self.spatial_dims}: expected 2 or 3.")
        self._check_resampling()
        for name, number in (("kernel_size", NUM_LEVELS), ("strides", NUM_LEVELS - 1)):
            object.__setattr__(self, name, _for_levels(name, getattr(self, name), number, self.spatial_dims))
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ConfigError(f"kernel_size = {self.kernel_size}: expected odd numbers such as 3, 5 or 7.")
        if any(step > 2 for steps in self.steps for step in steps):
            raise ConfigError(f"strides = {self.strides}: expected steps of 1 or 2.")

    def _check_resampling(self) -> None:
        check_choice(self, "resampling", "inverted", "standard")
        if self.residual_resampling is None:
            object.__setattr__(self, "residual_resampling", self.resampling == "inverted")
        check_switches(self, "residual_resampling")
        if self.resampling == "standard" and self.residual_resampling:
            raise ConfigError(
                "residual_resampling = True needs inverted bottlenecks: a strided convolution has no residual. "
                "Leave it out, or set resampling = 'inverted'."
            )

    @property
    def kernels(self) -> Levels:
        """Kernel size of each of the five levels per axis."""
        return _spread(self.kernel_size, NUM_LEVELS, self.spatial_dims)

    @property
    def steps(self) -> Levels:
        """Stride between each level and the next per axis."""
        return _spread(self.strides, NUM_LEVELS - 1, self.spatial_dims)

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Strides and kernels adapted to thick or few slices.

        Nothing for plans that halve all axes alike, whose network is the published one.
        """
        if options.get("spatial_dims", 3) != 3:
            return {}
        size = options.get("kernel_size", PUBLISHED_KERNEL)
        planned: dict[str, Any] = {"strides": planned_steps(strides, NUM_LEVELS - 1)}
        if isinstance(size, int):
            planned["kernel_size"] = planned_kernels(kernels, NUM_LEVELS, size)
        return {name: levels for name, levels in planned.items() if any(min(level) == 1 for level in levels)}


def _for_levels(name: str, value: Any, number: int, dims: int) -> int | Levels:
    """`value` checked; a number stays one, a list has an entry (D, H, W) per level afterwards."""
    if not isinstance(value, list | tuple):
        return per_axis(name, value, dims)[0]
    levels = per_level(name, value, dims)
    if len(levels) != number:
        raise ConfigError(f"{name} = {value!r}: expected one number, or {number} entries (full resolution first).")
    return levels


def _spread(value: int | Levels, number: int, dims: int) -> Levels:
    return ((value,) * dims,) * number if isinstance(value, int) else value


def _per_stage(name: str, value: Any) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,) * NUM_STAGES
    if len(numbers) != NUM_STAGES or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers):
        raise ConfigError(
            f"{name} = {value!r}: expected one positive integer, or {NUM_STAGES} of them "
            "(four encoder stages, bottleneck, four decoder stages)."
        )
    return numbers


class MedNeXtBlock(nn.Module):
    """Depthwise convolution, norm, expansion, GELU, compression, plus a residual (Sec. 2.1).

    `change` selects the resampling forms of Sec. 2.2: "same", "down" (strided) or "up" (transposed, strided).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        kernel: tuple[int, ...],
        config: MedNeXtConfig,
        change: Literal["same", "down", "up"] = "same",
        stride: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        conv, transposed = _convolutions(config.spatial_dims)
        resample = transposed if change == "up" else conv
        hidden = expansion * in_channels
        self.change = change
        self.stride = stride or (1,) * config.spatial_dims
        self.depthwise = resample(
            in_channels,
            in_channels,
            kernel,
            stride=self.stride,
            padding=tuple(size // 2 for size in kernel),
            groups=in_channels,
        )
        self.norm_kind = config.norm
        self.norm = nn.GroupNorm(in_channels, in_channels)  # holds weight and bias of either norm
        self.expand = conv(in_channels, hidden, 1)
        self.grn_weight: nn.Parameter | None = None
        self.grn_bias: nn.Parameter | None = None
        if config.grn:
            shape = (1, hidden, *(1,) * config.spatial_dims)
            self.grn_weight, self.grn_bias = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.compress = conv(hidden, out_channels, 1)
        self.residual: _ConvNd | None = None
        self.adds_input = change == "same" and config.residual
        if change != "same" and config.residual_resampling:
            self.residual = resample(in_channels, out_channels, 1, stride=self.stride)

    def branch(self, x: Tensor, residual: Tensor | None = None, extra_bias: Tensor | None = None) -> Tensor:
        """Depthwise convolution to compression, plus `residual` of that shape and `extra_bias` (C_out,)."""
        resample = depthwise_conv_transpose if self.change == "up" else depthwise_conv
        # The norm over space removes the depthwise bias; the norm over channels does not.
        bias_counts = self.norm_kind != "group"
        weight, bias = self.depthwise.weight, self.depthwise.bias
        y = resample(x, weight, bias, stride=self.stride, bias_counts=bias_counts)  # (B, C, D', H', W'); up: 2D-1, ...
        bias = self.compress.bias if extra_bias is None else self.compress.bias + extra_bias
        if self.norm_kind == "group" and self.grn_weight is None:  # the paper's block: norm to residual in one
            return inverted_bottleneck(
                y,
                self.norm.weight,
                self.norm.bias,
                self.expand.weight,
                self.expand.bias,
                self.compress.weight,
                bias,
                residual,
                eps=self.norm.eps,
            )
        norm = instance_norm if self.norm_kind == "group" else layer_norm
        y = norm(y, self.norm.weight, self.norm.bias, eps=self.norm.eps)
        y = F.gelu(pointwise_conv(y, self.expand.weight, self.expand.bias))  # (B, R*C, D', H', W')
        if self.grn_weight is not None and self.grn_bias is not None:
            y = global_response_norm(y, self.grn_weight, self.grn_bias)
        y = pointwise_conv(y, self.compress.weight, bias)  # (B, C_out, D', H', W')
        return y if residual is None else residual + y

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, C_out, D', H', W'); an up block adds `skip`, the encoder's output at the target level."""
        if self.change == "up":
            assert skip is not None, "an up block joins the skip connection"
            if self.residual is None:
                return add_upsampled(skip, self.branch(x), None, stride=self.stride)
            # The authors pad branch and residual by one plane at the front of each axis and add the skip; adding in
            # place of that is the same sum, and the residual's bias lands wherever the branch does.
            weight = self.residual.weight.transpose(0, 1)  # stored as a transposed convolution
            branch = self.branch(x, extra_bias=self.residual.bias)
            return add_upsampled(skip, branch, pointwise_conv(x, weight, None), stride=self.stride)
        if self.residual is not None:
            every_step: tuple[Any, ...] = (..., *(slice(None, None, step) for step in self.stride))
            coarse = x[every_step]
            return self.branch(x, pointwise_conv(coarse, self.residual.weight, self.residual.bias))
        return self.branch(x, x if self.adds_input else None)


class StandardResampling(nn.Module):
    """A strided convolution down, or a transposed one up that joins the skip; kernel = stride (ablation of Table 1)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, config: MedNeXtConfig, up: bool, stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        conv, transposed = _convolutions(config.spatial_dims)
        self.conv = (transposed if up else conv)(in_channels, out_channels, stride, stride=stride)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, C_out, D', H', W'), plus `skip` of that shape, the encoder's output at the target level."""
        y: Tensor = self.conv(x)
        return y if skip is None else skip + y


def _convolutions(dims: int) -> tuple[Any, Any]:
    """Classes of the convolution and the transposed convolution."""
    return (nn.Conv3d, nn.ConvTranspose3d) if dims == 3 else (nn.Conv2d, nn.ConvTranspose2d)


class MedNeXt(MultiscaleNetwork):
    """MedNeXt: a five-level U-shape with additive skip connections (Fig. 1a)."""

    def __init__(self, config: MedNeXtConfig) -> None:
        levels = range(NUM_LEVELS)
        num_heads = NUM_LEVELS if config.deep_supervision else 1
        reach = list(zip(*(accumulate((1, *axis), mul) for axis in zip(*config.steps, strict=True)), strict=True))
        super().__init__(
            reach[:num_heads], divisor=reach[-1], in_channels=config.in_channels, feature_channels=config.width
        )
        self.config = config
        self.checkpointing = config.checkpointing
        conv, transposed = _convolutions(config.spatial_dims)
        widths = [config.width * 2**level for level in levels]

        def stage(index: int, level: int) -> nn.ModuleList:
            return nn.ModuleList(
                MedNeXtBlock(
                    widths[level],
                    widths[level],
                    expansion=config.expansion[index],
                    kernel=config.kernels[level],
                    config=config,
                )
                for _ in range(config.blocks[index])
            )

        def resampling(index: int, level: int, change: Literal["down", "up"]) -> nn.Module:
            """Between `level` and the one below, with the expansion of stage `index`, to which it leads."""
            channels = (widths[level], widths[level + 1]) if change == "down" else (widths[level + 1], widths[level])
            stride = config.steps[level]
            if config.resampling == "standard":
                return StandardResampling(*channels, config=config, up=change == "up", stride=stride)
            return MedNeXtBlock(
                *channels,
                expansion=config.expansion[index],
                kernel=config.kernels[level + 1],
                config=config,
                change=change,
                stride=stride,
            )

        def decoder_index(level: int) -> int:
            return NUM_STAGES - 1 - level

        self.stem = conv(config.in_channels, config.width, 1)
        self.encoder = nn.ModuleList(stage(level, level) for level in levels)  # the last one is the bottleneck
        self.down = nn.ModuleList(resampling(level + 1, level, "down") for level in levels[:-1])
        self.up = nn.ModuleList(resampling(decoder_index(level), level, "up") for level in levels[:-1])
        self.decoder = nn.ModuleList(stage(decoder_index(level), level) for level in levels[:-1])
        # Transposed convolutions of kernel 1, as the authors have it: a linear map with another initial spread.
        self.heads = nn.ModuleList(transposed(widths[level], config.num_classes, 1) for level in range(num_heads))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stem, the encoder with the bottleneck, and the down blocks."""
        return chain(self.stem.parameters(), self.encoder.parameters(), self.down.parameters())

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Outputs of the five encoder stages, the bottleneck last."""
        self.check_input(x)
        x = pointwise_conv(x, self.stem.weight, self.stem.bias)
        outputs: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = self._run(stage, x)  # (B, 2^l C, D / 2^l, H / 2^l, W / 2^l) at level l
            outputs.append(x)
            if level < len(self.down):
                x = self._call(self.down[level], x)
        return outputs

    def _decode(self, x: Tensor, num_levels: int, see: See) -> list[Tensor]:
        """See `MultiscaleNetwork`; of five levels, strides 1, 2, 4, 8, 16."""
        *skips, x = self._encode(x)
        seen = [see(NUM_LEVELS - 1, x)] if num_levels == NUM_LEVELS else []
        for level in reversed(range(len(self.up))):
            x = self._run(self.decoder[level], self._call(self.up[level], x, skips.pop()))
            if level < num_levels:
                seen.append(see(level, x))
        return seen[::-1]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage.children():
            x = self._call(block, x)
        return x

    def _head(self, level: int, x: Tensor) -> Tensor:
        head = self.heads[level]
        assert isinstance(head, _ConvNd)
        assert head.bias is not None
        return pointwise_head(x, head.weight.transpose(0, 1), head.bias)


_EXPANSION_BM = (2, 3, 4, 4, 4, 4, 4, 3, 2)
_STAGES_L = (3, 4, 8, 8, 8, 8, 8, 4, 3)

SIZES: dict[str, dict[str, Any]] = {
    "mednext_xs": {"width": 16, "expansion": 2, "blocks": (1, 1, 1, 2, 2, 2, 1, 1, 1)},  # ours, for CPUs
    "mednext_s": {"width": 32, "expansion": 2, "blocks": 2},
    "mednext_b": {"width": 32, "expansion": _EXPANSION_BM, "blocks": 2},
    "mednext_m": {"width": 32, "expansion": _EXPANSION_BM, "blocks": (3, 4, 4, 4, 4, 4, 4, 4, 3)},
    "mednext_l": {"width": 32, "expansion": _STAGES_L, "blocks": _STAGES_L},
}
"""Options of each named size; S, B, M and L are Table 3 of the paper."""

_SUMMARIES = {
    "mednext_xs": "width 16, few blocks: ours, for demos and training on a CPU",
    "mednext_s": "MedNeXt-S of the paper, the smallest published size",
    "mednext_b": "MedNeXt-B: larger expansion ratios",
    "mednext_m": "MedNeXt-M: expansion ratios of B, more blocks",
    "mednext_l": "MedNeXt-L: most blocks and largest expansion ratios, most accurate in the paper",
}

_PRINTED = {  # Table 3 of the supplement: kernel size -> 10^6 parameters, 10^9 operations
    "mednext_s": {3: (5.6, 130), 5: (5.9, 169)},
    "mednext_b": {3: (10.5, 170), 5: (11.0, 208)},
    "mednext_m": {3: (17.6, 248), 5: (18.3, 308)},
    "mednext_l": {3: (61.8, 500), 5: (63.0, 564)},
}


def _printed(name: str) -> tuple[PrintedCost, ...]:
    return tuple(
        PrintedCost(
            where=f"Table 3 of MedNeXt's supplement, kernel {kernel_size}",
            parameters_m=parameters,
            gflops=gflops,
            convention="fvcore",  # with 14 classes and all heads, which the paper does not state but its numbers need
            size=(128, 128, 128),
            options={"kernel_size": kernel_size, "deep_supervision": True},
        )
        for kernel_size, (parameters, gflops) in _PRINTED.get(name, {}).items()
    )


ENTRIES = {
    name: NetworkEntry(
        network=MedNeXt,
        config=MedNeXtConfig,
        options=options,
        source="Roy et al., MICCAI 2023, arXiv:2303.09975; github.com/MIC-DKFZ/MedNeXt at 0b78ed8",
        summary=_SUMMARIES[name],
        printed=_printed(name),
    )
    for name, options in SIZES.items()
}
