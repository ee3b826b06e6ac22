"""nnFormer: volumetric medical image segmentation via a 3D transformer (Zhou et al., IEEE TIP 2023, arXiv:2109.03201).

B batch, C channels, D H W depth, height, width in voxels or tokens, K classes; in attention M heads, V local volumes of
N tokens. An encoder and a decoder of transformer blocks on four levels with convolutions to, between and from them.
Attention runs within local volumes (LV-MSA), which every second block moves by half their size (SLV-MSA), and at the
lowest level over the whole volume (GV-MSA); in the decoder the upsampled features ask and the encoder's answer (skip
attention). The defaults are the network for Synapse: patches of 64 x 128 x 128 voxels have 4 x 4 x 4 tokens at the
lowest level, which is the window there. With larger inputs that window, too, is a local one that moves; set
`windows` to have a global one.

Left open by the paper, as in the authors' code (github.com/282857341/nnFormer): GELU before the norm of the
downsampling layers, queries of skip attention without a projection, and a layer norm on each level's way to the
decoder. Unlike the code:
- Each offset between tokens has its own position bias. The code's index has 3 where 2 is meant, so offsets share some.
- Windows shrink, move and are padded per axis, so any multiple of the divisor works. The code's are cubes that are cut
  and stay where they are on all axes if the shortest axis is no longer. No token sees padding; in the code they do.
- The decoder has as many heads as the encoder, as in the comparisons below; in a later state of the code twice as many.

Size: at 96^3 with 8 classes 149,501,216 parameters and 177.4 G multiply-accumulates; 3D UX-Net (Table 1) prints 149.3 M
(windows cut to fit 96^3 have fewer position biases) and 240.2 G, which is what we get as it counts. At 128^3 with 16
classes 149,550,376 parameters, with the heads of deep supervision 150,140,232, and 424.5 G; E2ENet (Table 1) prints
150.14 M and 1343.65 G. By its convention (two for each multiply-accumulate, full kernels of transposed convolutions,
no products of attention) ours are 1344.1 without the heads of deep supervision and 1473.0 with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.network import (
    Levels,
    Network,
    NetworkEntry,
    PrintedCost,
    check_counts,
    check_shares,
    check_switches,
    per_axis,
    per_level,
    planned_steps,
    positive_integers,
)

NUM_LEVELS = 4
MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class NNFormerConfig:
    """Options of an nnFormer; the defaults are the published network for abdominal CT (Synapse)."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 192
    """C, channels of the first level, an even number; they double with each of the three levels below."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Transformer blocks of each level: of the encoder, and, but for the lowest, of the decoder as well."""
    heads: tuple[int, ...] = (6, 12, 24, 48)
    """Attention heads of the encoder's levels."""
    decoder_heads: tuple[int, ...] = (6, 12, 24)
    """Attention heads of the decoder's levels, first level first."""
    patch_size: tuple[int, ...] | int = (2, 4, 4)
    """Voxels per axis that a token of the first level covers: 1, 2 or 4."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * (NUM_LEVELS - 1)
    """Stride per axis of each of the three steps between levels. One number stands for all axes."""
    windows: tuple[tuple[int, ...], ...] = ((4, 4, 4), (4, 4, 4), (8, 8, 8), (4, 4, 4))
    """Tokens per axis of the local volumes of each level. One number stands for all axes."""
    drop_path: float = 0.2
    """Chance with which the last block's residual branches are left out for a sample in training; rises linearly from 0
    in the first block, in the encoder and from the lowest level up in the decoder."""
    deep_supervision: bool = False
    """Whether each of the decoder's three levels has a head, not only the first."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width")
        check_switches(self, "deep_supervision")
        for name, number in (("depths", NUM_LEVELS), ("heads", NUM_LEVELS), ("decoder_heads", NUM_LEVELS - 1)):
            object.__setattr__(self, name, positive_integers(name, getattr(self, name), number=number))
        for name, number in (("strides", NUM_LEVELS - 1), ("windows", NUM_LEVELS)):
            levels = per_level(name, getattr(self, name))
            if len(levels) != number:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {number} entries, one for each level.")
            object.__setattr__(self, name, levels)
        object.__setattr__(self, "patch_size", per_axis("patch_size", self.patch_size))
        if any(size not in (1, 2, 4) for size in per_axis("patch_size", self.patch_size)):
            raise ConfigError(f"patch_size = {self.patch_size}: expected 1, 2 or 4 voxels per axis.")
        check_shares(self, "drop_path")
        self._check_heads()

    def _check_heads(self) -> None:
        if self.width % 2:
            raise ConfigError(f"width = {self.width}: expected an even number, since the first convolutions have half.")
        for name in ("heads", "decoder_heads"):
            counts = getattr(self, name)
            if any(self.width * 2**level % number for level, number in enumerate(counts)):
                raise ConfigError(f"{name} = {counts}: expected divisors of the channels of their levels.")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published (patches of two voxels along D), but thick or few slices are strided as the plan has it."""
        first, second, *steps = planned_steps(strides, NUM_LEVELS + 1)
        patch_size = (min(first[0] * second[0], 2), *(a * b for a, b in zip(first[1:], second[1:], strict=True)))
        return {"patch_size": patch_size, "strides": tuple(steps)}


def into_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """Tokens (B, D, H, W, C) as (B, V, N, C): V local volumes of N tokens each, both in the order of D, H, W."""
    batch, *size, channels = x.shape
    split = [part for n, length in zip(size, window, strict=True) for part in (n // length, length)]
    return x.view(batch, *split, channels).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, prod(window), channels)


def from_windows(x: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """Inverse of `into_windows`: (B, D, H, W, C) of that `size` from (B, V, N, C)."""
    counts = [n // length for n, length in zip(size, window, strict=True)]
    volumes = x.view(x.shape[0], *counts, *window, x.shape[-1])
    return volumes.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], *size, x.shape[-1])


def window_mask(size: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device) -> Tensor:
    """Which tokens (V, N, N) of a local volume see which: true where both come from the same part of the grid.

    For a grid of `size` tokens that is padded at its ends to multiples of the window and then rolled backwards by
    `shift`. Padding is a part of its own, and so is what was rolled past the start of an axis.
    """
    parts = torch.zeros((), dtype=torch.long, device=device)
    for length, block, step in zip(size, window, shift, strict=True):
        padded = -(-length // block) * block
        position = torch.arange(padded, device=device) + step
        part = (position >= padded) + 2 * ((position % padded) >= length)  # 0 to 3: rolled around, padding
        parts = 4 * parts.unsqueeze(-1) + part
    volumes = into_windows(parts[None, ..., None], window).squeeze(0).squeeze(-1)  # (V, N)
    return volumes.unsqueeze(2) == volumes.unsqueeze(1)


def relative_bias(table: Tensor, window: Sequence[int]) -> Tensor:
    """Bias (M, N, N) from query to key by their offset, of a window of N tokens.

    `table` (M, 2 d - 1, 2 h - 1, 2 w - 1) has one entry for each head and offset of a window of up to (d, h, w) tokens,
    offset 0 in the middle.
    """
    offsets = []
    for length, entries in zip(window, table.shape[1:], strict=True):
        position = torch.arange(length, device=table.device)
        offsets.append(position.unsqueeze(1) - position + entries // 2)  # (query, key)
    along_d, along_h, along_w = offsets
    index = (
        along_d.view(window[0], 1, 1, window[0], 1, 1) * table.shape[2] + along_h.view(1, window[1], 1, 1, window[1], 1)
    ) * table.shape[3] + along_w.view(1, 1, window[2], 1, 1, window[2])
    return table.flatten(1)[:, index.flatten()].view(-1, prod(window), prod(window))


class WindowAttention(nn.Module):
    """Multi-head attention within local volumes (LV-MSA), which are moved by half their size in every other block.

    With `skip`, queries are given and only keys and values are projected: skip attention.
    """

    def __init__(self, width: int, *, heads: int, window: tuple[int, ...], shifted: bool, skip: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.project = nn.Linear(width, (2 if skip else 3) * width)
        self.table = nn.Parameter(torch.zeros(heads, *(2 * length - 1 for length in window)))
        self.out = nn.Linear(width, width)
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        """(B, D, H, W, C)."""
        size = x.shape[1:4]
        window = [min(length, n) for length, n in zip(self.window, size, strict=True)]
        shift = [length // 2 if self.shifted and length < n else 0 for length, n in zip(window, size, strict=True)]
        lack = [-n % length for length, n in zip(window, size, strict=True)]
        parts = self.project(x) if query is None else torch.cat((query, self.project(x)), dim=-1)  # (B, D, H, W, 3C)
        volumes = into_windows(_rolled(_padded(parts, lack), [-step for step in shift]), window)  # (B, V, N, 3C)
        bias = relative_bias(self.table, window).unsqueeze(0)  # (1, M, N, N)
        if any(shift) or any(lack):
            mask = window_mask(size, window, shift, x.device).unsqueeze(1)  # (V, 1, N, N)
            bias = bias.masked_fill(~mask, float("-inf")).repeat(x.shape[0], 1, 1, 1)  # (B*V, M, N, N)
        q, k, v = volumes.flatten(0, 1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # type: ignore[no-untyped-call]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B*V, M, N, C / M)
        # How attention lays out its result depends on the backend, so heads cannot be merged in place when exported.
        per_token = attended.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        tokens = per_token.view(*volumes.shape[:3], -1)  # (B, V, N, C)
        padded = [n + missing for n, missing in zip(size, lack, strict=True)]
        y = _rolled(from_windows(tokens, window, padded), shift)[:, : size[0], : size[1], : size[2]]
        mixed: Tensor = self.out(y)
        return mixed


def _padded(x: Tensor, lack: Sequence[int]) -> Tensor:
    """(B, D, H, W, C) with as many zeros at the end of each axis."""
    return F.pad(x, [pad for axis_lack in (0, *reversed(lack)) for pad in (0, axis_lack)]) if any(lack) else x


def _rolled(x: Tensor, shift: list[int]) -> Tensor:
    """(B, D, H, W, C) moved by as many tokens along each axis; those past its end go to its start."""
    return x.roll(shift, (1, 2, 3)) if any(shift) else x


class Block(nn.Module):
    """Attention within local volumes and MLP, each after layer norm and with a residual (Eq. 1 and 2).

    With `skip`, the upsampled features ask, and those of the skip connection answer; both are added as the residual.
    """

    def __init__(
        self, width: int, *, heads: int, window: tuple[int, ...], shifted: bool, drop_path: float, skip: bool = False
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads=heads, window=window, shifted=shifted, skip=skip)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, D, H, W, C)."""
        if skip is None:
            x = x + self._dropped(self.attention(self.norm(x)))
        else:
            x = x + skip + self._dropped(self.attention(self.norm(skip), query=self.norm(x)))
        out: Tensor = x + self._dropped(self.mlp(self.mlp_norm(x)))
        return out

    def _dropped(self, branch: Tensor) -> Tensor:
        """The branch, left out for some samples in training and made up for in the others (Huang et al. 2016)."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * (kept / (1 - self.drop_path))


class Embedding(nn.Module):
    """Four convolutions, the first and third strided, each with layer norm, all but the last with GELU (Fig. 3a)."""

    def __init__(self, in_channels: int, width: int, *, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        first = tuple(min(size, 2) for size in patch_size)
        second = tuple(size // step for size, step in zip(patch_size, first, strict=True))
        channels = (in_channels, width // 2, width // 2, width, width)
        strides = (first, (1, 1, 1), second, (1, 1, 1))
        self.convs = nn.ModuleList(
            nn.Conv3d(channels[i], channels[i + 1], 3, stride, padding=1)  # type: ignore[arg-type]
            for i, stride in enumerate(strides)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, D / patch, H / patch, W / patch, C)."""
        *others, last = zip(self.convs, self.norms, strict=True)
        for conv, norm in others:
            x = norm(F.gelu(conv(x)).movedim(1, -1)).movedim(-1, 1)
        conv, norm = last
        tokens: Tensor = norm(conv(x).movedim(1, -1))
        return tokens


class Down(nn.Module):
    """GELU, layer norm and a strided convolution to twice the channels."""

    def __init__(self, width: int, *, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv3d(width, 2 * width, 3, stride, padding=1)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D / stride, H / stride, W / stride, 2C)."""
        y: Tensor = self.conv(self.norm(F.gelu(x)).movedim(-1, 1))
        return y.movedim(1, -1)


class Up(nn.Module):
    """Layer norm and a strided transposed convolution to half the channels."""

    def __init__(self, width: int, *, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.ConvTranspose3d(width, width // 2, stride, stride)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, D * stride, H * stride, W * stride, C / 2)."""
        y: Tensor = self.conv(self.norm(x).movedim(-1, 1))
        return y.movedim(1, -1)


class NNFormer(Network):
    """Encoder and decoder of transformer blocks within local volumes, interleaved with convolutions (Fig. 2)."""

    def __init__(self, config: NNFormerConfig) -> None:
        patch_size = per_axis("patch_size", config.patch_size)
        levels, upper_levels = range(NUM_LEVELS), range(NUM_LEVELS - 1)
        reach = [tuple(prod(step[axis] for step in config.strides[:level]) for axis in range(3)) for level in levels]
        num_heads = len(upper_levels) if config.deep_supervision else 1
        super().__init__(
            reach[:num_heads],
            divisor=tuple(size * step for size, step in zip(patch_size, reach[-1], strict=True)),
            in_channels=config.in_channels,
        )
        self.config = config
        widths = [config.width * 2**level for level in levels]

        def stage(level: int, heads: int, rates: Iterator[float], *, decodes: bool) -> nn.ModuleList:
            return nn.ModuleList(
                Block(
                    widths[level],
                    heads=heads,
                    window=config.windows[level],
                    shifted=number % 2 == 1,
                    drop_path=next(rates),
                    skip=decodes and number == 0,
                )
                for number in range(config.depths[level])
            )

        self.embedding = Embedding(config.in_channels, config.width, patch_size=patch_size)
        rates = _rising(config.drop_path, sum(config.depths))
        self.encoder = nn.ModuleList(stage(level, config.heads[level], rates, decodes=False) for level in levels)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.down = nn.ModuleList(Down(widths[level], stride=config.strides[level]) for level in upper_levels)
        rates = _rising(config.drop_path, sum(config.depths[:-1]))
        lowest_first = [
            stage(level, config.decoder_heads[level], rates, decodes=True) for level in reversed(upper_levels)
        ]
        self.decoder = nn.ModuleList(reversed(lowest_first))
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i
            Up(widths[level + 1], stride=config.strides[level]) for level in upper_levels
        )
        self.heads = nn.ModuleList(
            nn.ConvTranspose3d(widths[level], config.num_classes, patch_size, patch_size)  # type: ignore[arg-type]
            for level in range(num_heads)
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the embedding and the encoder down to the lowest level."""
        modules = (self.embedding, self.encoder, self.norms, self.down)
        return chain(*(module.parameters() for module in modules))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision the list of the decoder's three levels, strides 1, 2, 4."""
        self.check_input(x)
        x = self.embedding(x)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            for block in stage.children():
                x = block(x)  # (B, D', H', W', 2^l C), D' = D / (2 * 2^l), H' = H / (4 * 2^l), ...
            skips.append(self.norms[level](x))
            if level < len(self.down):
                x = self.down[level](x)
        x = skips.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            first, *others = self.decoder[level].children()
            x = first(self.up[level](x), skip=skips.pop())
            for block in others:
                x = block(x)
            if level == 0 or self.deep_supervision:
                outputs.append(self.heads[level](x.movedim(-1, 1)))
        return outputs[::-1] if self.deep_supervision else outputs[0]


def _rising(last: float, number: int) -> Iterator[float]:
    """`number` rates that rise linearly from 0 to `last`."""
    return (last * block / max(number - 1, 1) for block in range(number))


ENTRIES = {
    "nnformer": NetworkEntry(
        network=NNFormer,
        config=NNFormerConfig,
        source="Zhou et al., IEEE TIP 2023, arXiv:2109.03201; github.com/282857341/nnFormer",
        summary="transformer within local volumes, convolutions between: a baseline of MedNeXt, 3D UX-Net and E2ENet",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net", parameters_m=149.3, gflops=240.2, convention="ptflops", num_classes=8
            ),
            PrintedCost(
                where="Table 1 of E2ENet",
                parameters_m=150.14,
                gflops=1343.65,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
            ),
        ),
    )
}
