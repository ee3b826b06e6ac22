"""MedFormer: a data-scalable transformer for medical image segmentation (Gao et al. 2022, arXiv:2203.00131).

B batch, C channels, D H W depth, height, width in voxels, N = D H W, M tokens of a semantic map, R expansion ratio,
h heads of c channels, K classes. Convolutions on the two upper levels. On the three lower ones a semantic map, a few
tokens that are weighted means of the features; features and map attend to each other by the same scores, in linear time
(B-MHA). A transformer fuses the maps of all levels on their way to the decoder.

The paper describes the blocks; numbers are those of the authors' configuration for AMOS CT
(github.com/yhygao/CBIM-Medical-Image-Segmentation, config/amos_ct), with which E2ENet compares. As in the code:
- Instance norms have no weights. One follows squeeze and excitation and takes its scaling away, but for the norm's
  epsilon.
- The tokens of a map have no place among each other, so only their number counts.
- With deep supervision there is one more head, on the decoder's attention at stride 4. The code upsamples its logits to
  full resolution, we do not.
Unlike the code: no weights that no output depends on (76,096), most of which hand on a map that nobody reads any more.

Size at 128^3 with 1 channel and 16 classes: 39,542,512 parameters and 1167.8 G multiply-accumulates. E2ENet (Table 6,
columns swapped) prints 39.59 M, where the code has 39.62 M with the weights without effect, and 2332.75 G; by its
convention (two for each multiply-accumulate, none for products of attention) ours are 2328.6.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.transformer import TransformerLayer
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
from voxelseg.ops.norm import instance_norm

NUM_LEVELS = 5
FIRST_ATTENTION = 2
"""The first level with attention and a semantic map."""
SQUEEZE = 4
"""Ratio of channels to squeezed channels in squeeze and excitation."""
EPS, PREACTIVATION_EPS = 1e-5, 1e-4
"""Added to variances by norms alone, and by norms before an activation."""


@dataclass(frozen=True, kw_only=True)
class MedFormerConfig:
    """Options of a MedFormer; the defaults are the published network for abdominal CT (AMOS)."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 320)
    """Channels of the five levels, full resolution first."""
    convs: tuple[int, ...] = (2, 1, 0, 0)
    """Residual convolution blocks of the encoder's four levels below full resolution."""
    decoder_convs: tuple[int, ...] = (2, 2, 1, 0)
    """Residual convolution blocks of the decoder's four levels, full resolution first."""
    attentions: tuple[int, ...] = (1, 4, 6)
    """Attention blocks of the encoder's three lowest levels."""
    decoder_attentions: tuple[int, ...] = (1, 4)
    """Attention blocks of the decoder's two lowest levels, the third level first."""
    heads: tuple[int, ...] = (4, 8, 10)
    """Attention heads of the three lowest levels."""
    map_tokens: int = 64
    """M, tokens of a semantic map: 4 x 4 x 4 in the paper."""
    expansion: int = 4
    """Hidden channels of the attention blocks' MLPs over their channels."""
    fusion_width: int = 320
    """Channels in which the semantic maps are fused."""
    fusion_layers: int = 2
    """Transformer layers that fuse them."""
    fusion_heads: int = 10
    """Attention heads of these layers."""
    activation: Literal["relu", "gelu"] = "relu"
    """Activation of all convolution and attention blocks."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * (NUM_LEVELS - 1)
    """Stride per axis of each of the four steps between levels. One number stands for all axes."""
    kernels: tuple[tuple[int, ...], ...] = ((3, 3, 3),) * NUM_LEVELS
    """Kernel size of each of the five levels, odd. One number stands for all axes."""
    deep_supervision: bool = False
    """Whether the decoder's lowest level but one has a head as well."""

    def __post_init__(self) -> None:
        check_counts(
            self,
            "in_channels",
            "num_classes",
            "map_tokens",
            "expansion",
            "fusion_width",
            "fusion_layers",
            "fusion_heads",
        )
        check_switches(self, "deep_supervision")
        steps = NUM_LEVELS - 1
        for name, number, least in (
            ("widths", NUM_LEVELS, 1),
            ("convs", steps, 0),
            ("decoder_convs", steps, 0),
            ("attentions", NUM_LEVELS - FIRST_ATTENTION, 1),
            ("decoder_attentions", steps - FIRST_ATTENTION, 1),
            ("heads", NUM_LEVELS - FIRST_ATTENTION, 1),
        ):
            object.__setattr__(self, name, positive_integers(name, getattr(self, name), number=number, least=least))
        for name, number in (("strides", steps), ("kernels", NUM_LEVELS)):
            levels = per_level(name, getattr(self, name))
            if len(levels) != number:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {number} entries, full resolution first.")
            object.__setattr__(self, name, levels)
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ConfigError(f"kernels = {self.kernels}: expected odd sizes.")
        check_choice(self, "activation", "relu", "gelu")
        self._check_blocks()

    def _check_blocks(self) -> None:
        if 0 in self.decoder_convs[:FIRST_ATTENTION]:
            raise ConfigError(
                f"decoder_convs = {self.decoder_convs}: expected one or more on the {FIRST_ATTENTION} highest levels, "
                "which have no attention."
            )
        widths = self.widths[FIRST_ATTENTION:]
        if any(width % heads for width, heads in zip(widths, self.heads, strict=True)):
            raise ConfigError(f"heads = {self.heads}: expected divisors of the widths {widths}.")
        if self.fusion_width % self.fusion_heads:
            raise ConfigError(f"fusion_heads = {self.fusion_heads}: expected a divisor of {self.fusion_width}.")
        if self.map_tokens == 1:
            raise ConfigError("map_tokens = 1: expected 2 or more, since a single one has no variance to normalise by.")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published, but strides and kernels are the plan's along thick or few slices."""
        return {
            "strides": planned_steps(strides, NUM_LEVELS - 1),
            "kernels": planned_kernels(kernels, NUM_LEVELS, 3),
        }


def _conv(in_channels: int, out_channels: int, kernel: tuple[int, ...], *, groups: int = 1) -> nn.Conv3d:
    """Convolution without bias that keeps the size."""
    padding: Any = tuple(size // 2 for size in kernel)
    return nn.Conv3d(in_channels, out_channels, kernel, padding=padding, groups=groups, bias=False)  # type: ignore[arg-type]


class PreactivatedConv(nn.Module):
    """Instance norm, activation where there is one, and a convolution without bias that keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: tuple[int, ...] = (1, 1, 1),
        activation: str | None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = _conv(in_channels, out_channels, kernel, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        y = instance_norm(x, None, None, eps=PREACTIVATION_EPS)
        if self.activation is not None:
            y = F.relu(y) if self.activation == "relu" else F.gelu(y)
        out: Tensor = self.conv(y)
        return out


class ConvBlock(nn.Module):
    """Two convolutions around which the input is added; where channels change, through a convolution of its own."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.first = PreactivatedConv(in_channels, out_channels, kernel=kernel, activation=activation)
        self.second = PreactivatedConv(out_channels, out_channels, kernel=kernel, activation=activation)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = PreactivatedConv(in_channels, out_channels, kernel=kernel, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        out: Tensor = self.shortcut(x) + self.second(self.first(x))
        return out


class SeparableConv(nn.Module):
    """Depthwise and pointwise convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.depthwise = _conv(in_channels, in_channels, kernel, groups=in_channels)
        self.pointwise = nn.Conv3d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class SqueezeExcitation(nn.Module):
    """Channels scaled by a function of the means of all of them (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // SQUEEZE, 1)
        self.squeeze, self.excite = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        scale = self.excite(F.relu(self.squeeze(x.mean((2, 3, 4))))).sigmoid()
        scaled: Tensor = x * scale[:, :, None, None, None]
        return scaled


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, compression, plus the input (MBConv)."""

    def __init__(self, channels: int, *, expansion: int, kernel: tuple[int, ...], activation: str) -> None:
        super().__init__()
        hidden = expansion * channels
        self.expand = PreactivatedConv(channels, hidden, activation=activation)
        self.depthwise = PreactivatedConv(hidden, hidden, kernel=kernel, activation=activation, groups=hidden)
        self.excitation = SqueezeExcitation(hidden)
        self.compress = PreactivatedConv(hidden, channels, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        y = self.excitation(self.depthwise(self.expand(x)))  # (B, R*C, D, H, W)
        out: Tensor = x + self.compress(y)
        return out


def attend_both_ways(
    query: Tensor, value: Tensor | None, map_query: Tensor, map_value: Tensor
) -> tuple[Tensor, Tensor | None]:
    """What voxels see in the tokens of a map (B, h, N, c), and what these see in the voxels (B, h, M, c).

    Queries and values are (B, h, N, c) for the voxels and (B, h, M, c) for the map. Voxel i and token j have one score,
    the product of their queries over sqrt(c): a softmax over the tokens weights the map's values, a softmax over the
    voxels theirs. Without values of the voxels the map sees nothing: None.
    """
    scores = query @ (map_query * map_query.shape[-1] ** -0.5).transpose(2, 3)  # (B, h, N, M)
    seen = scores.softmax(3) @ map_value
    return seen, None if value is None else scores.softmax(2).transpose(2, 3) @ value


class BidirectionalAttention(nn.Module):
    """Projections around `attend_both_ways`; without `updates_map` only the voxels see."""

    def __init__(
        self, in_channels: int, channels: int, *, heads: int, kernel: tuple[int, ...], updates_map: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.project = SeparableConv(in_channels, (2 if updates_map else 1) * channels, kernel=kernel)
        self.out = SeparableConv(channels, channels, kernel=kernel)
        self.map_project = nn.Linear(channels, 2 * channels, bias=False)
        self.map_out = nn.Linear(channels, channels, bias=False) if updates_map else None

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Updates (B, C, D, H, W) of the voxels and (B, M, C) of the map."""
        query, *values = self._split(self.project(x).flatten(2).transpose(1, 2), 1 if self.map_out is None else 2)
        seen, gathered = attend_both_ways(
            query, values[0] if values else None, *self._split(self.map_project(tokens), 2)
        )
        update = self.out(seen.permute(0, 1, 3, 2).reshape(x.shape[0], -1, *x.shape[2:]))
        if self.map_out is None or gathered is None:
            return update, None
        return update, self.map_out(gathered.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor, parts: int) -> tuple[Tensor, ...]:
        """That many (B, heads, tokens, channels per head) from (B, tokens, parts * channels)."""
        split: Any = tokens.reshape(*tokens.shape[:2], parts, self.heads, -1)
        return split.permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Bidirectional attention after norms, and an inverted bottleneck as MLP, with residuals."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        heads: int,
        kernel: tuple[int, ...],
        config: MedFormerConfig,
        updates_map: bool = True,
    ) -> None:
        super().__init__()
        self.attention = BidirectionalAttention(
            in_channels, channels, heads=heads, kernel=kernel, updates_map=updates_map
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = PreactivatedConv(in_channels, channels, activation=config.activation)
        self.mlp = InvertedBottleneck(channels, expansion=config.expansion, kernel=kernel, activation=config.activation)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, D, H, W) and the map (B, M, C)."""
        normed_tokens = instance_norm(tokens.transpose(1, 2), None, None, eps=EPS).transpose(1, 2)
        seen, gathered = self.attention(instance_norm(x, None, None, eps=EPS), normed_tokens)
        y = self.mlp(self.shortcut(x) + seen)
        return y, tokens if gathered is None else tokens + gathered


class SemanticMap(nn.Module):
    """Tokens that are weighted means of features over space, each with learned weights."""

    def __init__(self, channels: int, num_tokens: int) -> None:
        super().__init__()
        self.features = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.weights = nn.Conv3d(channels, num_tokens, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, C)."""
        weights = self.weights(x).flatten(2).softmax(2)  # (B, M, D*H*W)
        tokens: Tensor = weights @ self.features(x).flatten(2).transpose(1, 2)
        return tokens


class MapFusion(nn.Module):
    """A transformer over the tokens of all semantic maps (semantic map fusion)."""

    def __init__(self, widths: tuple[int, ...], config: MedFormerConfig) -> None:
        super().__init__()
        fused = config.fusion_width
        self.project = nn.ModuleList(nn.Linear(width, fused, bias=False) for width in widths)
        self.layers = nn.ModuleList(
            TransformerLayer(
                fused,
                heads=config.fusion_heads,
                mlp_width=fused,
                eps=PREACTIVATION_EPS,
                bias=layer < config.fusion_layers - 1,  # the norms of the maps that follow take the last one away
            )
            for layer in range(config.fusion_layers)
        )
        self.out = nn.ModuleList(nn.Linear(fused, width, bias=False) for width in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the same shapes, (B, M, C) each."""
        tokens = torch.cat([project(tokens) for project, tokens in zip(self.project, maps, strict=True)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return [out(part) for out, part in zip(self.out, tokens.chunk(len(maps), dim=1), strict=True)]


class PatchMerging(nn.Module):
    """Every block of voxels becomes one with all their channels; norm, and a separable convolution."""

    def __init__(self, in_channels: int, channels: int, *, stride: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.reduce = SeparableConv(prod(stride) * in_channels, channels, kernel=kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D / stride, H / stride, W / stride)."""
        batch, channels, *size = x.shape
        split = [part for n, step in zip(size, self.stride, strict=True) for part in (n // step, step)]
        merged = x.reshape(batch, channels, *split).permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)
        out: Tensor = self.reduce(instance_norm(merged, None, None, eps=EPS))
        return out


class EncoderStage(nn.Module):
    """Patch merging and convolution blocks; on the lowest levels also a semantic map and attention blocks."""

    def __init__(self, level: int, config: MedFormerConfig) -> None:
        super().__init__()
        above, width = config.widths[level - 1 : level + 1]
        kernel = config.kernels[level]
        self.merge = PatchMerging(above, width, stride=config.strides[level - 1], kernel=kernel)
        self.convs = _conv_blocks(config.convs[level - 1], width, width, kernel=kernel, config=config)
        self.map: SemanticMap | None = None
        self.attentions = nn.ModuleList()
        if level >= FIRST_ATTENTION:
            heads = config.heads[level - FIRST_ATTENTION]
            self.map = SemanticMap(width, config.map_tokens)
            self.attentions.extend(
                AttentionBlock(width, width, heads=heads, kernel=kernel, config=config)
                for _ in range(config.attentions[level - FIRST_ATTENTION])
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, C, D / stride, H / stride, W / stride), and the semantic map (B, M, C)."""
        x = self.convs(self.merge(x))
        tokens = None if self.map is None else self.map(x)
        for block in self.attentions:
            x, tokens = block(x, tokens)
        return x, tokens


class AttentionDecoderStage(nn.Module):
    """Upsampled features beside the skip connection, two maps joined in one, attention and convolution blocks."""

    def __init__(self, level: int, config: MedFormerConfig) -> None:
        super().__init__()
        width, below = config.widths[level : level + 2]
        kernel, heads = config.kernels[level], config.heads[level - FIRST_ATTENTION]
        number = config.decoder_attentions[level - FIRST_ATTENTION]
        self.join_maps = nn.Linear(below + width, width, bias=False)
        self.attentions = nn.ModuleList(
            AttentionBlock(
                below + width if block == 0 else width,
                width,
                heads=heads,
                kernel=kernel,
                config=config,
                updates_map=level > FIRST_ATTENTION or block < number - 1,
            )
            for block in range(number)
        )
        self.convs = _conv_blocks(config.decoder_convs[level], width, width, kernel=kernel, config=config)

    def forward(self, x: Tensor, skip: Tensor, tokens: Tensor, skip_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, D, H, W) of the skip connection, and the map (B, M, C)."""
        x = torch.cat((_upsampled(x, skip), skip), dim=1)
        tokens = self.join_maps(torch.cat((tokens, skip_tokens), dim=2))
        for block in self.attentions:
            x, tokens = block(x, tokens)
        return self.convs(x), tokens


class ConvDecoderStage(nn.Module):
    """Upsampled features beside the skip connection, and convolution blocks."""

    def __init__(self, level: int, config: MedFormerConfig) -> None:
        super().__init__()
        width, below = config.widths[level : level + 2]
        self.convs = _conv_blocks(
            config.decoder_convs[level], below + width, width, kernel=config.kernels[level], config=config
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, D, H, W) of the skip connection."""
        out: Tensor = self.convs(torch.cat((_upsampled(x, skip), skip), dim=1))
        return out


def _conv_blocks(
    number: int, in_channels: int, channels: int, *, kernel: tuple[int, ...], config: MedFormerConfig
) -> nn.Sequential:
    return nn.Sequential(
        *(
            ConvBlock(in_channels if block == 0 else channels, channels, kernel=kernel, activation=config.activation)
            for block in range(number)
        )
    )


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=True)


class MedFormer(Network):
    """Convolutional stem, bidirectional attention on the lower levels, fused semantic maps, decoder (Fig. 2)."""

    def __init__(self, config: MedFormerConfig) -> None:
        levels = range(NUM_LEVELS)
        reach = [tuple(prod(step[axis] for step in config.strides[:level]) for axis in range(3)) for level in levels]
        head_levels = (0, FIRST_ATTENTION) if config.deep_supervision else (0,)
        super().__init__([reach[level] for level in head_levels], divisor=reach[-1], in_channels=config.in_channels)
        self.config = config
        width, kernel = config.widths[0], config.kernels[0]
        self.stem = nn.Sequential(
            _conv(config.in_channels, width, kernel),
            ConvBlock(width, width, kernel=kernel, activation=config.activation),
        )
        self.encoder = nn.ModuleList(EncoderStage(level, config) for level in levels[1:])
        self.fusion = MapFusion(config.widths[FIRST_ATTENTION:], config)
        self.attention_decoder = nn.ModuleList(
            AttentionDecoderStage(level, config) for level in reversed(levels[FIRST_ATTENTION:-1])
        )
        self.conv_decoder = nn.ModuleList(
            ConvDecoderStage(level, config) for level in reversed(levels[:FIRST_ATTENTION])
        )
        self.heads = nn.ModuleList(nn.Conv3d(config.widths[level], config.num_classes, 1) for level in head_levels)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the stem, the encoder's stages and the fusion of their maps."""
        return chain(self.stem.parameters(), self.encoder.parameters(), self.fusion.parameters())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision those and the ones of level 2, stride 4."""
        self.check_input(x)
        x = self.stem(x)
        skips, maps = [], []
        for stage in self.encoder:
            skips.append(x)
            x, tokens = stage(x)  # (B, C, D / 2^l, H / 2^l, W / 2^l) and, on the lower levels, (B, M, C)
            if tokens is not None:
                maps.append(tokens)
        *maps, tokens = self.fusion(maps)
        for stage in self.attention_decoder:
            x, tokens = stage(x, skips.pop(), tokens, maps.pop())
        deep = x
        for stage in self.conv_decoder:
            x = stage(x, skips.pop())
        logits: Tensor = self.heads[0](x)
        return [logits, self.heads[1](deep)] if self.deep_supervision else logits


ENTRIES = {
    "medformer": NetworkEntry(
        network=MedFormer,
        config=MedFormerConfig,
        source="Gao et al. 2022, arXiv:2203.00131; github.com/yhygao/CBIM-Medical-Image-Segmentation",
        summary="convolutions and attention to small semantic maps, both ways: a baseline of E2ENet",
        printed=(
            PrintedCost(
                where="Table 6 of E2ENet (columns swapped in print)",
                parameters_m=39.59,
                gflops=2332.75,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
            ),
        ),
    )
}
