"""CoTr: efficiently bridging CNN and transformer for 3D segmentation (Xie et al., MICCAI 2021, arXiv:2103.03024).

B batch, C channels, D H W depth, height, width in voxels, K classes; in the transformer N tokens, Q queries (= N),
M heads, L resolution levels, P sampling points per head and level.
A convolutional encoder of four levels, a deformable transformer (DeTrans) on the two lowest of them at once, and a
decoder that adds the transformer's and the encoder's features level by level. A deformable layer attends from each
token to P positions per head and level only, given as offsets from the token's own position. Each decoder stage has a
deep-supervision head; that of the first stage sees the same features as the output, before upsampling.

Paper and authors' code (github.com/YtongXie/CoTr at 9d454dc) agree on widths 64, 192, 384, 384, first stride (1, 2, 2),
6 layers, 6 heads, 4 points. Where they differ the paper is followed:
- Sampling is around the token itself. The code orders positions D, W, H but grid_sample reads W, H, D, so that its
  tokens look at permuted positions.
- Sine and cosine of one frequency come in pairs, 10000^(-2 i / n); the code has other exponents.
Left open by the paper: position encodings scale each axis to 2 pi, as in the code; initial offsets point along the six
axis directions, one per head (the code: along a curve), 1 to P voxels far; initial attention is almost uniform.
Unlike both: any input size that is a multiple of the strides (theirs is fixed to 48 x 192 x 192), any number of
channels, and the output head comes before the upsampling, which gives the same logits for less.

Size, with the deep-supervision heads: 41,873,920 parameters and 666.0 G multiply-accumulates at 128^3 with 16 classes,
280.9 G at 96^3 with 14. E2ENet (Tables 1 and 2) prints 41.87 M, 1510.53 and 636.94 G: by its convention (two for each
multiply-accumulate, transposed convolutions at eight times their cost) these are 1506.8 and 635.6, and 1510.1 and 636.7
with the output head after the upsampling.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import pi, prod
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
    per_level,
    planned_steps,
)

NEGATIVE_SLOPE = 0.01
BLOCKS = (3, 3, 2)
"""Residual blocks of the encoder's stages after the stem."""
WIDTH_RATIOS = (1, 3, 6, 6)
"""Channels of stem and stages over the width."""
NUM_ATTENDED = 2
"""L, the lowest levels, which the transformer sees."""


@dataclass(frozen=True, kw_only=True)
class CoTrConfig:
    """Options of a CoTr; the defaults are the published network."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 64
    """Channels of the stem; the stages have 3, 6 and 6 times as many, and so has the transformer."""
    strides: tuple[tuple[int, ...], ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Stride per axis of the stem and the three stages. One number stands for all axes."""
    layers: int = 6
    """Transformer layers."""
    heads: int = 6
    """M, attention heads."""
    points: int = 4
    """P, sampling points per head and level."""
    mlp_ratio: int = 4
    """Hidden channels of the transformer's MLPs over its width."""
    dropout: float = 0.1
    """Share of values dropped in training after attention and within the MLPs."""
    deep_supervision: bool = False
    """Whether the three decoder stages have a head."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "layers", "heads", "points", "mlp_ratio")
        check_switches(self, "deep_supervision")
        check_shares(self, "dropout")
        strides = per_level("strides", self.strides)
        if len(strides) != len(WIDTH_RATIOS):
            raise ConfigError(f"strides = {self.strides}: expected {len(WIDTH_RATIOS)} steps (stem and three stages).")
        object.__setattr__(self, "strides", strides)
        if (WIDTH_RATIOS[-1] * self.width) % self.heads:
            raise ConfigError(f"heads = {self.heads}: expected a divisor of 6 * width = {6 * self.width}.")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published (the stem leaves D as it is), but thick or few slices are strided as the plan has it."""
        stem, *stages = planned_steps(strides, len(WIDTH_RATIOS))
        return {"strides": ((1, *stem[1:]), *stages)}


class ConvNorm(nn.Module):
    """Convolution without bias that keeps the size (up to its stride), then instance norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: tuple[int, ...] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class EncoderBlock(nn.Module):
    """One convolution around which the input is added, before the leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: tuple[int, ...] = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels, 3, stride=stride)
        changes = in_channels != out_channels or prod(stride) > 1
        self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        return F.leaky_relu(self.conv(x) + self.shortcut(x), NEGATIVE_SLOPE)


class DecoderBlock(nn.Module):
    """Two convolutions, each with leaky ReLU, around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        y = F.leaky_relu(self.first(x), NEGATIVE_SLOPE)
        return x + F.leaky_relu(self.second(y), NEGATIVE_SLOPE)


def deformable_attention(values: list[Tensor], positions: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (B, Q, M * C) of values sampled at positions: multi-scale deformable attention (Eq. 2).

    `values`: per level (B, M, C, D, H, W). `positions` (B, Q, M, L, P, 3) along D, H, W, where 0 and 1 are the outer
    faces of the volume; values are interpolated trilinearly between voxel centres and 0 outside. `weights`
    (B, Q, M, L, P).
    """
    batch, _, heads = weights.shape[:3]
    grids = (2 * positions - 1).flip(-1).movedim(2, 1).flatten(0, 1)  # (B*M, Q, L, P, 3), W first as grid_sample has it
    per_head = weights.movedim(2, 1).flatten(0, 1)  # (B*M, Q, L, P)
    total = None
    for level, volume in enumerate(values):
        grid = grids[:, :, level].unsqueeze(1)  # (B*M, 1, Q, P, 3)
        sampled = F.grid_sample(volume.flatten(0, 1), grid, align_corners=False).squeeze(2)  # (B*M, C, Q, P)
        summed = (sampled * per_head[:, :, level].unsqueeze(1)).sum(-1)  # (B*M, C, Q)
        total = summed if total is None else total + summed
    assert total is not None, "there is at least one level"
    return total.view(batch, heads, *total.shape[1:]).permute(0, 3, 1, 2).flatten(2)


class DeformableAttention(nn.Module):
    """Projections around `deformable_attention`: values from tokens, positions and weights from queries."""

    def __init__(self, width: int, *, heads: int, points: int) -> None:
        super().__init__()
        self.shape = (heads, NUM_ATTENDED, points)
        self.offsets = nn.Linear(width, 3 * prod(self.shape))
        self.weights = nn.Linear(width, prod(self.shape))
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Almost equal weights, and offsets that do not depend on the query: 1 to P voxels along an axis per head."""
        heads, levels, points = self.shape
        axes = torch.eye(3)
        directions = torch.cat((axes, -axes)).repeat(-(-heads // 6), 1)[:heads]  # (M, 3)
        offsets = directions.view(heads, 1, 1, 3) * torch.arange(1, points + 1).view(1, 1, points, 1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.normal_(self.weights.weight, std=0.02)
        nn.init.xavier_uniform_(self.values.weight)
        nn.init.xavier_uniform_(self.out.weight)
        for linear in (self.weights, self.values, self.out):
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(heads, levels, points, 3).flatten())

    def forward(self, query: Tensor, tokens: Tensor, references: Tensor, sizes: list[torch.Size]) -> Tensor:
        """(B, N, C) from queries and tokens of that shape; `references` (N, 3) are the positions of the tokens."""
        heads, levels, points = self.shape
        offsets = self.offsets(query).unflatten(-1, (heads, levels, points, 3))  # (B, Q, M, L, P, 3), in voxels
        extents = torch.tensor(sizes, dtype=references.dtype, device=references.device)  # (L, 3)
        positions = references.view(-1, 1, 1, 1, 3) + offsets / extents.view(levels, 1, 3)
        weights = self.weights(query).unflatten(-1, (heads, levels * points)).softmax(-1)
        values = self.values(tokens).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)  # (B, M, C, N)
        volumes = [
            volume.unflatten(-1, size)
            for volume, size in zip(values.split([prod(size) for size in sizes], dim=-1), sizes, strict=True)
        ]
        mixed: Tensor = self.out(deformable_attention(volumes, positions, weights.unflatten(-1, (levels, points))))
        return mixed


class DeformableLayer(nn.Module):
    """Deformable self-attention and MLP, each with a residual and then layer norm."""

    def __init__(self, width: int, config: CoTrConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, heads=config.heads, points=config.points)
        self.dropout = nn.Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_ratio * width, width),
            nn.Dropout(config.dropout),
        )
        self.mlp_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, encoding: Tensor, references: Tensor, sizes: list[torch.Size]) -> Tensor:
        """(B, N, C)."""
        attended = self.attention(x + encoding, x, references, sizes)
        x = self.attention_norm(x + self.dropout(attended))
        out: Tensor = self.mlp_norm(x + self.mlp(x))
        return out


class DeTrans(nn.Module):
    """Deformable transformer on the features of several levels (Sec. 2.2)."""

    def __init__(self, width: int, config: CoTrConfig) -> None:
        super().__init__()
        self.level_encoding = nn.Parameter(torch.randn(NUM_ATTENDED, width))
        self.layers = nn.ModuleList(DeformableLayer(width, config) for _ in range(config.layers))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of the same shapes, (B, C, D, H, W) each."""
        sizes = [feature.shape[2:] for feature in features]
        tokens = torch.cat([feature.flatten(2) for feature in features], dim=2).transpose(1, 2)  # (B, N, C)
        width, like = tokens.shape[2], self.level_encoding
        centres = [_voxel_centres(size, like) for size in sizes]  # (N_l, 3) each
        encoding = torch.cat(
            [_sine_encoding(points, width) + level for points, level in zip(centres, like, strict=True)]
        )  # (N, C)
        references = torch.cat(centres)  # (N, 3)
        for layer in self.layers:
            tokens = layer(tokens, encoding, references, sizes)
        pieces = tokens.transpose(1, 2).split_with_sizes([prod(size) for size in sizes], dim=2)
        return [piece.reshape(*piece.shape[:2], *size) for piece, size in zip(pieces, sizes, strict=True)]


def _voxel_centres(size: torch.Size, like: Tensor) -> Tensor:
    """Positions (D * H * W, 3) of the voxels along D, H, W, where 0 and 1 are the outer faces of the volume."""
    axes = [(torch.arange(length, dtype=like.dtype, device=like.device) + 0.5) / length for length in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def _sine_encoding(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines (N, width) of positions (N, 3): a third of the channels for each axis."""
    number = width // 3
    steps = torch.arange(number // 2, dtype=positions.dtype, device=positions.device)
    angles = 2 * pi * positions.unsqueeze(-1) * 10_000 ** (-2 * steps / number)  # (N, 3, number / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class CoTr(Network):
    """Convolutional encoder, deformable transformer, additive decoder (Fig. 2)."""

    def __init__(self, config: CoTrConfig) -> None:
        reach = [
            tuple(prod(stride[axis] for stride in config.strides[: level + 1]) for axis in range(3))
            for level in range(len(config.strides))
        ]
        head_strides = [(1, 1, 1), *(reach[:-1] if config.deep_supervision else [])]
        super().__init__(head_strides, divisor=reach[-1], in_channels=config.in_channels)
        self.config = config
        widths = [ratio * config.width for ratio in WIDTH_RATIOS]
        stem_stride, *strides = config.strides
        self.stem = ConvNorm(config.in_channels, config.width, 7, stride=stem_stride)
        self.encoder = nn.ModuleList(
            nn.Sequential(
                EncoderBlock(widths[stage], widths[stage + 1], stride=stride),
                *(EncoderBlock(widths[stage + 1], widths[stage + 1]) for _ in range(number - 1)),
            )
            for stage, (number, stride) in enumerate(zip(BLOCKS, strides, strict=True))
        )
        self.up = nn.ModuleList(  # up[i] leads from level i + 1 to i
            nn.ConvTranspose3d(widths[level + 1], widths[level], stride, stride, bias=False)  # type: ignore[arg-type]
            for level, stride in enumerate(strides)
        )
        self.decoder = nn.ModuleList(DecoderBlock(channels) for channels in widths[:-1])
        self.apply(_kaiming)  # not the heads: few outputs would make their weights, and the first loss, large
        self.head = nn.Conv3d(config.width, config.num_classes, 1)
        self.deep_heads = nn.ModuleList(
            nn.Conv3d(channels, config.num_classes, 1) for channels in (widths[:-1] if config.deep_supervision else [])
        )
        self.transformer = DeTrans(widths[-1], config)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the convolutional encoder and the transformer."""
        return chain(self.stem.parameters(), self.encoder.parameters(), self.transformer.parameters())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision those and one of each decoder stage."""
        self.check_input(x)
        size = x.shape[2:]
        features = [F.leaky_relu(self.stem(x), NEGATIVE_SLOPE)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        features[-NUM_ATTENDED:] = self.transformer(features[-NUM_ATTENDED:])
        x = features.pop()
        deep: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](self.up[level](x) + features.pop())
            if self.deep_supervision:
                deep.append(self.deep_heads[level](x))
        logits = F.interpolate(self.head(x), size=size, mode="trilinear", align_corners=False)
        return [logits, *deep[::-1]] if self.deep_supervision else logits


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")


ENTRIES = {
    "cotr": NetworkEntry(
        network=CoTr,
        config=CoTrConfig,
        source="Xie et al., MICCAI 2021, arXiv:2103.03024; github.com/YtongXie/CoTr at 9d454dc",
        summary="convolutional encoder, deformable transformer on two levels, additive decoder: a baseline of E2ENet",
        printed=(
            PrintedCost(
                where="Table 1 of E2ENet",
                parameters_m=41.87,
                gflops=1510.53,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
                options={"deep_supervision": True},
            ),
            PrintedCost(
                where="Table 2 of E2ENet",
                parameters_m=41.87,
                gflops=636.94,
                convention="e2enet",
                options={"deep_supervision": True},
            ),
        ),
    )
}
