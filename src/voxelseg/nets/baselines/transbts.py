"""TransBTS: multimodal brain tumour segmentation using transformer (Wang et al., MICCAI 2021, arXiv:2103.04430).

B batch, C channels, D H W depth, height, width in voxels, E embedding, N = D H W / 512 tokens, K classes.
Residual convolution blocks down to stride 8, a transformer over all voxels there with learned position embeddings, for
which the network is built for one input size, and a convolutional decoder with concatenated skips.

The paper gives the levels, E = 512 and four transformer layers; the authors' code (github.com/Rubics-Xuan/TransBTS) the
rest: group norm of eight groups before the convolutions of the encoder, batch norm after those of the decoder, 1, 2, 2
and 4 encoder blocks, MLPs of 4096 channels, dropout. Unlike the code: channels of the stem are dropped in training only
(theirs in evaluation too), one dropout after attention in place of two in a row, and no weights that no output depends
on: its linear embedding, its last layer norm (the decoder reads the tokens before it), and biases that a batch norm
takes away.

Size at 96^3 with 1 channel and 8 classes: 31,509,400 parameters and 119.4 G multiply-accumulates. 3D UX-Net (Table 1)
prints 31.6 M, which are these and the 67,936 without effect, and 110.4 G: 110.4 as it counts, without the products of
attention.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.transformer import TransformerLayer
from voxelseg.nets.network import (
    Levels,
    Network,
    NetworkEntry,
    PrintedCost,
    check_counts,
    check_shares,
    per_axis,
    per_level,
    planned_steps,
    positive_integers,
)

NUM_STEPS = 3
NUM_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class TransBTSConfig:
    """Options of a TransBTS; the defaults are the published network."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    image_size: tuple[int, ...] | int = (128, 128, 128)
    """The only input size (D, H, W) in voxels that the network takes: multiples of the product of the strides."""
    width: int = 16
    """Channels at full resolution; they double with each of the three levels below. A multiple of 8."""
    blocks: tuple[int, ...] = (1, 2, 2, 4)
    """Residual blocks of the four encoder levels."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * NUM_STEPS
    """Stride per axis of each of the three steps down. One number stands for all axes."""
    embedding: int = 512
    """E, channels of the transformer."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 8
    """Attention heads."""
    mlp_width: int = 4096
    """Hidden channels of the transformer's MLPs."""
    dropout: float = 0.1
    """Share of values dropped in training: embedded tokens, attention weights, after attention, within the MLPs."""
    stem_dropout: float = 0.2
    """Share of channels dropped in training after the first convolution."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "embedding", "layers", "heads", "mlp_width")
        object.__setattr__(self, "image_size", per_axis("image_size", self.image_size))
        object.__setattr__(self, "blocks", positive_integers("blocks", self.blocks, number=NUM_STEPS + 1))
        strides = per_level("strides", self.strides)
        if len(strides) != NUM_STEPS:
            raise ConfigError(f"strides = {self.strides}: expected {NUM_STEPS} steps.")
        object.__setattr__(self, "strides", strides)
        if self.width % NUM_GROUPS:
            raise ConfigError(f"width = {self.width}: expected a multiple of {NUM_GROUPS}, the groups of the norms.")
        if self.embedding % self.heads:
            raise ConfigError(f"embedding = {self.embedding}: expected a multiple of heads = {self.heads}.")
        check_shares(self, "dropout", "stem_dropout")
        self._check_size()

    def _check_size(self) -> None:
        size, steps = per_axis("image_size", self.image_size), self.reach
        if any(n % step for n, step in zip(size, steps, strict=True)) or self.num_tokens == 1:
            raise ConfigError(
                f"image_size = {size}: expected multiples of {steps}, the product of the strides, and more than one."
            )

    @property
    def reach(self) -> tuple[int, ...]:
        """Voxels per axis that one token covers."""
        return tuple(prod(axis) for axis in zip(*self.strides, strict=True))

    @property
    def num_tokens(self) -> int:
        """N, tokens of an input."""
        return prod(per_axis("image_size", self.image_size)) // prod(self.reach)

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """As published, but thick or few slices are strided as the plan has it."""
        return {"strides": planned_steps(strides, NUM_STEPS)}


class EncoderBlock(nn.Module):
    """Group norm, ReLU and convolution, twice, around which the input is added."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        """`bias` is that of the second convolution."""
        super().__init__()
        self.first_norm = nn.GroupNorm(NUM_GROUPS, channels)
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second_norm = nn.GroupNorm(NUM_GROUPS, channels)
        self.second = nn.Conv3d(channels, channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        y = self.first(F.relu(self.first_norm(x)))
        out: Tensor = x + self.second(F.relu(self.second_norm(y)))
        return out


class ConvNormReLU(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, D, H, W)."""
        out: Tensor = F.relu(self.norm(self.conv(x)))
        return out

    def fuse(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm3d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class DecoderBlock(nn.Module):
    """Two convolutions with batch norm and ReLU, around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNormReLU(channels, channels), ConvNormReLU(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        out: Tensor = x + self.layers(x)
        return out


class UpBlock(nn.Module):
    """Upsampling to the skip connection's size and channels, which are concatenated and merged; a residual block."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(in_channels, out_channels, 1)
        self.up = nn.ConvTranspose3d(out_channels, out_channels, stride, stride)  # type: ignore[arg-type]
        self.merge = nn.Conv3d(2 * out_channels, out_channels, 1)
        self.block = DecoderBlock(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C_out, D, H, W) of the skip connection."""
        y = self.up(self.reduce(x))
        out: Tensor = self.block(self.merge(torch.cat((skip, y), dim=1)))
        return out


class TransBTS(Network):
    """Convolutional encoder, transformer over its lowest level, convolutional decoder (Fig. 1)."""

    def __init__(self, config: TransBTSConfig) -> None:
        super().__init__(
            [(1, 1, 1)],
            divisor=config.reach,
            in_channels=config.in_channels,
            image_size=per_axis("image_size", config.image_size),
        )
        self.config = config
        widths = [config.width * 2**level for level in range(NUM_STEPS + 1)]
        self.stem = nn.Conv3d(config.in_channels, config.width, 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.Sequential(  # the last block of all has a batch norm behind it
                *(EncoderBlock(widths[level], bias=level < NUM_STEPS or block < number - 1) for block in range(number))
            )
            for level, number in enumerate(config.blocks)
        )
        self.down = nn.ModuleList(
            nn.Conv3d(widths[step], widths[step + 1], 3, stride, padding=1)  # type: ignore[arg-type]
            for step, stride in enumerate(config.strides)
        )
        self.embed_norm = nn.BatchNorm3d(widths[-1])
        self.embed = nn.Conv3d(widths[-1], config.embedding, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, config.num_tokens, config.embedding))
        self.layers = nn.ModuleList(
            TransformerLayer(config.embedding, heads=config.heads, mlp_width=config.mlp_width, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.map_back = nn.Sequential(
            ConvNormReLU(config.embedding, widths[-1]), ConvNormReLU(widths[-1], widths[-1]), DecoderBlock(widths[-1])
        )
        self.decoder = nn.ModuleList(  # decoder[i] leads from level i + 1 to i
            UpBlock(widths[step + 1], widths[step], stride=stride) for step, stride in enumerate(config.strides)
        )
        self.head = nn.Conv3d(config.width, config.num_classes, 1)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the convolutional encoder, the embeddings and the transformer."""
        modules = (self.stem, self.encoder, self.down, self.embed_norm, self.embed, self.layers)
        return chain(*(module.parameters() for module in modules), [self.position])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W)."""
        self.check_input(x)
        x = F.dropout3d(self.stem(x), self.config.stem_dropout, self.training)
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=False):
            skips.append(stage(x))
            x = down(skips[-1])
        x = self.transform(self.encoder[-1](x))  # (B, E, D/8, H/8, W/8)
        x = self.map_back(x)
        for stage in reversed(self.decoder):
            x = stage(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits

    def transform(self, x: Tensor) -> Tensor:
        """Transformer over the voxels of (B, 8C, D/8, H/8, W/8): (B, E, D/8, H/8, W/8)."""
        y = self.embed(F.relu(self.embed_norm(x)))
        tokens = y.flatten(2).transpose(1, 2) + self.position  # (B, N, E)
        tokens = F.dropout(tokens, self.config.dropout, self.training)
        for layer in self.layers:
            tokens = layer(tokens)
        voxels: Tensor = tokens.transpose(1, 2).unflatten(2, y.shape[2:])
        return voxels

    def fuse(self) -> None:
        """Fold the batch norms that follow a convolution into it."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNormReLU):
                module.fuse()


ENTRIES = {
    "transbts": NetworkEntry(
        network=TransBTS,
        config=TransBTSConfig,
        source="Wang et al., MICCAI 2021, arXiv:2103.04430; github.com/Rubics-Xuan/TransBTS",
        summary="convolutional U-shape with a transformer at stride 8: a baseline of 3D UX-Net and MedNeXt",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net",
                parameters_m=31.6,
                gflops=110.4,
                convention="ptflops",
                num_classes=8,
                options={"image_size": (96, 96, 96)},
            ),
        ),
    )
}
