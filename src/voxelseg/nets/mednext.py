"""MedNeXt (Roy et al., MICCAI 2023, arXiv:2303.09975), version 1.

B batch, C channels, D H W depth, height, width in voxels, R expansion ratio, k kernel size, K classes.
The mathematics is the authors' code (github.com/MIC-DKFZ/MedNeXt, commit 0b78ed8), to which the golden files hold it.
Where paper and code differ the code is followed: a fifth deep-supervision head sits on the bottleneck, and the up block
leaves plane 0 of each axis to the skip connection alone. Unlike the code: no `dummy_tensor` parameter (checkpointing is
non-reentrant and runs only in training), global response normalisation reaches every block (theirs misses the first
down block), and both norms work in two dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint

from voxelseg.errors import ConfigError
from voxelseg.nets.network import Network, NetworkEntry, check_counts, check_switches
from voxelseg.ops.bottleneck import inverted_bottleneck
from voxelseg.ops.depthwise import depthwise_conv, depthwise_conv_transpose
from voxelseg.ops.norm import global_response_norm, instance_norm, layer_norm
from voxelseg.ops.pointwise import pointwise_conv, pointwise_head
from voxelseg.ops.upsample import add_upsampled

NUM_LEVELS = 5
NUM_STAGES = 2 * NUM_LEVELS - 1


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
    kernel_size: int = 3
    """k of every depthwise convolution; odd."""
    deep_supervision: bool = False
    """Whether there are heads on the three lower decoder stages and the bottleneck."""
    residual: bool = True
    """Whether blocks add their input."""
    residual_resampling: bool = True
    """Whether down and up blocks add a strided pointwise convolution of their input."""
    norm: Literal["group", "layer"] = "group"
    """Per channel over space ("group", as in the paper), or over channels ("layer")."""
    grn: bool = False
    """Global response normalisation between GELU and compression."""
    spatial_dims: int = 3
    """3, or 2 for slices (B, C, H, W)."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass of training: less memory, more time, the same numbers."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "kernel_size")
        check_switches(self, "deep_supervision", "residual", "residual_resampling", "grn", "checkpointing")
        for name in ("expansion", "blocks"):
            object.__setattr__(self, name, _per_stage(name, getattr(self, name)))
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size = {self.kernel_size}: expected an odd number such as 3, 5 or 7.")
        if self.norm not in ("group", "layer"):
            raise ConfigError(f"norm = {self.norm!r}: expected 'group' or 'layer'.")
        if self.spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims = {self.spatial_dims}: expected 2 or 3.")


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

    `change` selects the resampling forms of Sec. 2.2: "same", "down" (stride 2) or "up" (transposed, stride 2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        config: MedNeXtConfig,
        change: Literal["same", "down", "up"] = "same",
    ) -> None:
        super().__init__()
        conv: Any = nn.Conv3d if config.spatial_dims == 3 else nn.Conv2d
        transposed: Any = nn.ConvTranspose3d if config.spatial_dims == 3 else nn.ConvTranspose2d
        stride = 1 if change == "same" else 2
        hidden = expansion * in_channels
        self.change = change
        self.depthwise = (transposed if change == "up" else conv)(
            in_channels,
            in_channels,
            config.kernel_size,
            stride=stride,
            padding=config.kernel_size // 2,
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
            self.residual = (transposed if change == "up" else conv)(in_channels, out_channels, 1, stride=2)

    def branch(self, x: Tensor, residual: Tensor | None = None, extra_bias: Tensor | None = None) -> Tensor:
        """Depthwise convolution to compression, plus `residual` of that shape and `extra_bias` (C_out,)."""
        if self.change == "up":
            y = depthwise_conv_transpose(x, self.depthwise.weight, self.depthwise.bias)  # (B, C, 2D-1, 2H-1, 2W-1)
        else:
            y = depthwise_conv(x, self.depthwise.weight, self.depthwise.bias, stride=self.depthwise.stride[0])
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
                return add_upsampled(skip, self.branch(x), None)
            # The authors pad branch and residual by one plane at the front of each axis and add the skip; adding in
            # place of that is the same sum, and the residual's bias lands wherever the branch does.
            weight = self.residual.weight.transpose(0, 1)  # stored as a transposed convolution
            return add_upsampled(skip, self.branch(x, extra_bias=self.residual.bias), pointwise_conv(x, weight, None))
        if self.residual is not None:
            coarse = x[..., ::2, ::2, ::2] if x.ndim == 5 else x[..., ::2, ::2]
            return self.branch(x, pointwise_conv(coarse, self.residual.weight, self.residual.bias))
        return self.branch(x, x if self.adds_input else None)


class MedNeXt(Network):
    """MedNeXt: a five-level U-shape with additive skip connections (Fig. 1a)."""

    def __init__(self, config: MedNeXtConfig) -> None:
        levels = range(NUM_LEVELS)
        num_heads = NUM_LEVELS if config.deep_supervision else 1
        super().__init__(
            [(2**level,) * config.spatial_dims for level in range(num_heads)],
            divisor=(2 ** (NUM_LEVELS - 1),) * config.spatial_dims,
            in_channels=config.in_channels,
        )
        self.config = config
        conv: Any = nn.Conv3d if config.spatial_dims == 3 else nn.Conv2d
        transposed: Any = nn.ConvTranspose3d if config.spatial_dims == 3 else nn.ConvTranspose2d
        widths = [config.width * 2**level for level in levels]

        def stage(index: int, level: int) -> nn.ModuleList:
            return nn.ModuleList(
                MedNeXtBlock(widths[level], widths[level], expansion=config.expansion[index], config=config)
                for _ in range(config.blocks[index])
            )

        def decoder_index(level: int) -> int:
            return NUM_STAGES - 1 - level

        self.stem = conv(config.in_channels, config.width, 1)
        self.encoder = nn.ModuleList(stage(level, level) for level in levels)  # the last one is the bottleneck
        self.down = nn.ModuleList(  # down[i] leads from level i to i + 1, with the expansion of level i + 1
            MedNeXtBlock(
                widths[level], widths[level + 1], expansion=config.expansion[level + 1], config=config, change="down"
            )
            for level in levels[:-1]
        )
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i, with the expansion of decoder stage i
            MedNeXtBlock(
                widths[level + 1],
                widths[level],
                expansion=config.expansion[decoder_index(level)],
                config=config,
                change="up",
            )
            for level in levels[:-1]
        )
        self.decoder = nn.ModuleList(stage(decoder_index(level), level) for level in levels[:-1])
        # Transposed convolutions of kernel 1, as the authors have it: a linear map with another initial spread.
        self.heads = nn.ModuleList(transposed(widths[level], config.num_classes, 1) for level in range(num_heads))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stem, the encoder with the bottleneck, and the down blocks."""
        return chain(self.stem.parameters(), self.encoder.parameters(), self.down.parameters())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision the list at strides 1, 2, 4, 8, 16."""
        self.check_input(x)
        x = pointwise_conv(x, self.stem.weight, self.stem.bias)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            x = self._run(stage, x)  # (B, 2^l C, D / 2^l, H / 2^l, W / 2^l)
            if level < len(self.down):
                skips.append(x)
                x = self._call(self.down[level], x)
        outputs = [self._head(NUM_LEVELS - 1, x)] if self.deep_supervision else []
        for level in reversed(range(len(self.up))):
            x = self._run(self.decoder[level], self._call(self.up[level], x, skips.pop()))
            if level == 0 or self.deep_supervision:
                outputs.append(self._head(level, x))
        return outputs[::-1] if self.deep_supervision else outputs[0]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage.children():
            x = self._call(block, x)
        return x

    def _call(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.config.checkpointing and self.training and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        else:
            result = block(*inputs)
        return result

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

ENTRIES = {
    name: NetworkEntry(
        network=MedNeXt,
        config=MedNeXtConfig,
        options=options,
        source="Roy et al., MICCAI 2023, arXiv:2303.09975; github.com/MIC-DKFZ/MedNeXt at 0b78ed8",
        summary=_SUMMARIES[name],
    )
    for name, options in SIZES.items()
}
