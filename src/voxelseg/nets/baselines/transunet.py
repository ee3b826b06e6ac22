"""TransUNet: transformers make strong encoders for medical image segmentation (Chen et al. 2021, arXiv:2102.04306).

For slices: B batch, C channels, H W height, width in pixels, E embedding, N = H W / 256 tokens, K classes.
The paper's R50-ViT-B/16: a ResNet-50 up to stride 16, a vision transformer (ViT-B) on its pixels, and a cascaded
upsampler that concatenates the residual network's features at strides 8, 4 and 2. The authors' code
(github.com/Beckschen/TransUNet at 26de0c4) is followed where the paper is silent: convolutions of the residual network
have standardised weights and group norm (as pretrained by Kolesnikov et al., ECCV 2020), the pooling after the stem has
no padding, so features at strides 4 and 8 lack their last row and column, which zeros replace where they are a skip
connection (stride 4; at stride 8 the strided convolution has made up for it), and upsampling aligns corners.
Unlike the code: the stem takes the input's own channels, where theirs repeats a single channel three times to fit its
pretrained weights; there are no pretrained weights here, on which the paper's numbers rest; and position embeddings
are learned for `image_size`, resized bilinearly for other inputs, so any multiple of 16 works.

Size: with 3 channels and 9 classes 105,277,081 parameters, and 29.2 G multiply-accumulates at 224 x 224. MedNeXt, which
compares with it (Table 2), prints neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from voxelseg.errors import ConfigError
from voxelseg.nets.network import Network, NetworkEntry, check_counts, check_shares, per_axis, positive_integers

PATCH = 16
"""Stride of the residual network, so of the tokens."""
NUM_GROUPS = 32
NUM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class TransUNetConfig:
    """Options of a TransUNet; the defaults are the published R50-ViT-B/16."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    image_size: tuple[int, ...] | int = (224, 224)
    """Input size (H, W) in pixels for which position embeddings are learned; multiples of 16."""
    width: int = 64
    """Channels of the stem; bottlenecks have 1, 2, 4 times as many inside and 4, 8, 16 times as many outside."""
    blocks: tuple[int, ...] = (3, 4, 9)
    """Bottlenecks of the three stages of the residual network."""
    embedding: int = 768
    """E, channels of the transformer."""
    layers: int = 12
    """Transformer layers."""
    heads: int = 12
    """Attention heads."""
    mlp_width: int = 3072
    """Hidden channels of the transformer's MLPs."""
    dropout: float = 0.1
    """Share of values dropped in training after the embedding and within the MLPs."""
    bridge: int = 512
    """Channels to which the transformer's output is reduced before upsampling."""
    decoder: tuple[int, ...] = (256, 128, 64, 16)
    """Channels of the four upsampling steps."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "embedding", "layers", "heads", "mlp_width", "bridge")
        check_shares(self, "dropout")
        object.__setattr__(self, "image_size", per_axis("image_size", self.image_size, dims=2))
        object.__setattr__(self, "blocks", positive_integers("blocks", self.blocks, number=3))
        object.__setattr__(self, "decoder", positive_integers("decoder", self.decoder, number=NUM_STEPS))
        if any(size % PATCH for size in per_axis("image_size", self.image_size, dims=2)):
            raise ConfigError(f"image_size = {self.image_size}: expected multiples of {PATCH}.")
        if self.embedding % self.heads:
            raise ConfigError(f"embedding = {self.embedding}: expected a multiple of heads = {self.heads}.")


class StandardizedConv(nn.Conv2d):
    """Convolution without bias whose filters have mean 0 and variance 1 (Qiao et al. 2019, arXiv:1903.10520)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.standardized = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, H / stride, W / stride)."""
        weight = self.weight if self.standardized else self.standardize()
        return F.conv2d(x, weight, None, self.stride, self.padding)

    def standardize(self) -> Tensor:
        """The filters that are applied."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) / torch.sqrt(variance + 1e-5)

    def fuse(self) -> None:
        """Keep the standardised filters."""
        if not self.standardized:
            self.weight, self.standardized = nn.Parameter(self.standardize().detach()), True


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(NUM_GROUPS, channels), channels, eps=1e-6)


class Bottleneck(nn.Module):
    """Pointwise, 3x3 and pointwise convolution, each with group norm, around which the input is added."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.reduce, self.reduce_norm = StandardizedConv(in_channels, width, 1), _group_norm(width)
        self.conv, self.conv_norm = StandardizedConv(width, width, 3, stride), _group_norm(width)
        self.expand, self.expand_norm = StandardizedConv(width, out_channels, 1), _group_norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            projection = StandardizedConv(in_channels, out_channels, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.GroupNorm(out_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 width, H / stride, W / stride)."""
        y = F.relu(self.reduce_norm(self.reduce(x)))
        y = F.relu(self.conv_norm(self.conv(y)))
        y = self.expand_norm(self.expand(y))
        return F.relu(self.shortcut(x) + y)


class ResNet(nn.Module):
    """ResNet-50 without its last stage."""

    def __init__(self, in_channels: int, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem, self.norm = StandardizedConv(in_channels, width, 7, stride=2), _group_norm(width)
        self.stages = nn.ModuleList()
        channels = width
        for stage, number in enumerate(blocks):
            inner = width * 2**stage
            first = Bottleneck(channels, inner, stride=1 if stage == 0 else 2)
            channels = 4 * inner
            self.stages.append(
                nn.Sequential(first, *(Bottleneck(channels, inner, stride=1) for _ in range(number - 1)))
            )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features at stride 16, and those at strides 2, 4 and 8."""
        x = F.relu(self.norm(self.stem(x)))  # (B, C, H/2, W/2)
        skips = [x]
        x = F.max_pool2d(x, 3, 2)  # (B, C, H/4 - 1, W/4 - 1)
        *shallow, deepest = self.stages
        for level, stage in enumerate(shallow):
            x = stage(x)
            skips.append(F.pad(x, (0, 1, 0, 1)) if level == 0 else x)
        return deepest(x), skips


class TransformerLayer(nn.Module):
    """Self-attention and MLP, each after layer norm and with a residual (Eq. 2 and 3)."""

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__()
        width = config.embedding
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_width, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E)."""
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, E / heads)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.mlp(self.mlp_norm(x))
        return mixed


class ConvNormReLU(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_out, H, W)."""
        return F.relu(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class TransUNet(Network):
    """Residual network, transformer, cascaded upsampler (Fig. 1)."""

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__([(1, 1)], divisor=(PATCH, PATCH), in_channels=config.in_channels)
        self.config = config
        self.resnet = ResNet(config.in_channels, config.width, config.blocks)
        self.embed = nn.Conv2d(16 * config.width, config.embedding, 1)
        grid = [size // PATCH for size in per_axis("image_size", config.image_size, dims=2)]
        self.position = nn.Parameter(torch.zeros(1, config.embedding, *grid))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.embedding, eps=1e-6)
        self.bridge = ConvNormReLU(config.embedding, config.bridge)
        skips = (8 * config.width, 4 * config.width, config.width, 0)
        widths = (config.bridge, *config.decoder)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(widths[step] + skips[step], widths[step + 1]),
                ConvNormReLU(widths[step + 1], widths[step + 1]),
            )
            for step in range(NUM_STEPS)
        )
        self.head = nn.Conv2d(config.decoder[-1], config.num_classes, 3, padding=1)
        self.layers.apply(_xavier)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the residual network, the embeddings and the transformer."""
        modules = (self.resnet, self.embed, self.layers, self.norm)
        return chain(*(module.parameters() for module in modules), [self.position])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        self.check_input(x)
        x, skips = self.resnet(x)  # (B, 16 C, H/16, W/16)
        x = self.bridge(self.transform(self.embed(x)))
        for stage in self.decoder:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = stage(torch.cat((x, skips.pop()), dim=1) if skips else x)
        logits: Tensor = self.head(x)
        return logits

    def transform(self, x: Tensor) -> Tensor:
        """Transformer over the pixels of (B, E, H/16, W/16), in the same shape."""
        grid = x.shape[2:]
        position: Tensor = self.position
        if position.shape[2:] != grid:
            position = F.interpolate(position, size=grid, mode="bilinear", align_corners=False)
        tokens = self.dropout(x + position).flatten(2).transpose(1, 2)  # (B, N, E)
        for layer in self.layers:
            tokens = layer(tokens)
        pixels: Tensor = self.norm(tokens).transpose(1, 2).unflatten(2, grid)
        return pixels

    def fuse(self) -> None:
        """Fold batch norms into their convolutions, and keep standardised filters."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNormReLU | StandardizedConv):
                module.fuse()


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


ENTRIES = {
    "transunet": NetworkEntry(
        network=TransUNet,
        config=TransUNetConfig,
        source="Chen et al. 2021, arXiv:2102.04306; github.com/Beckschen/TransUNet at 26de0c4",
        summary="2-D, for slices: ResNet-50 and ViT-B encoder with a U-shaped decoder: a baseline of MedNeXt",
    )
}
