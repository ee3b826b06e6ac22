"""The U-Nets with transformer encoders that MONAI has: UNETR and Swin UNETR.

B batch, D H W depth, height, width in voxels, K classes.
UNETR (Hatamizadeh et al., WACV 2022, arXiv:2103.10504): a vision transformer on patches of 16 voxels, 12 layers, whose
features after layers 3, 6, 9 and 12 are decoded. Its position embedding fits one input size.
Swin UNETR (Hatamizadeh et al., BrainLes 2021, arXiv:2201.01266): a Swin transformer on patches of 2 voxels with four
stages; the papers count it 48 wide. MONAI's first patch merging, which its published weights have, takes some of the
eight neighbours twice and others not at all; `merging="mergingv2"` takes each once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.monai_network import MonaiNetwork, OnCpu, multiple_of
from voxelseg.nets.network import (
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_shares,
    check_switches,
    per_axis,
    positive_integers,
)

PATCH = 16
"""Voxels along each axis of a patch of UNETR."""


class _TransformerUNet(MonaiNetwork):
    """Run part by part as MONAI does, so that its features can be had without its logits."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W)."""
        return self.classify(self.features(x))

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        net: Any = self.network
        logits: Tensor = net.out(features)
        return logits


@dataclass(frozen=True, kw_only=True)
class UNETRConfig:
    """Options of a UNETR; the defaults are the authors'."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    image_size: tuple[int, ...] = (96, 96, 96)
    """The input size that the network takes, along D, H, W; one number stands for all."""
    feature_size: int = 16
    """Channels of the decoder at full resolution; they double with each level below."""
    hidden_size: int = 768
    """Channels of the transformer."""
    mlp_dim: int = 3072
    """Channels within the transformer's MLPs."""
    num_heads: int = 12
    """Attention heads; they divide the hidden size."""
    patch_embedding: Literal["conv", "perceptron"] = "conv"
    """Strided convolution, or linear layer: the same map, initialised differently."""
    dropout: float = 0.0
    """Share of the values that is dropped in training, in embedding, attention and MLPs."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "feature_size", "hidden_size", "mlp_dim", "num_heads")
        check_shares(self, "dropout")
        check_choice(self, "patch_embedding", "conv", "perceptron")
        object.__setattr__(self, "image_size", multiple_of(per_axis("image_size", self.image_size), PATCH))
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"num_heads = {self.num_heads}: expected a divisor of hidden_size, {self.hidden_size}.")


class UNETR(_TransformerUNet):
    """MONAI's UNETR."""

    def __init__(self, config: UNETRConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.UNETR(
                in_channels=config.in_channels,
                out_channels=config.num_classes,
                img_size=config.image_size,
                feature_size=config.feature_size,
                hidden_size=config.hidden_size,
                mlp_dim=config.mlp_dim,
                num_heads=config.num_heads,
                proj_type=config.patch_embedding,
                dropout_rate=config.dropout,
            ),
            divisor=(PATCH,) * 3,
            image_size=config.image_size,
            feature_channels=config.feature_size,
        )
        for name, module in self.network.named_modules():
            if name.endswith("norm_cross_attn"):
                # MONAI does not use it; a gradient that never comes would stop training on several devices.
                module.requires_grad_(False)

    def encoders(self) -> Iterable[nn.Module]:
        """The transformer, and the convolutions between it and the decoder."""
        net: Any = self.network
        return net.vit, net.encoder1, net.encoder2, net.encoder3, net.encoder4

    def features(self, x: Tensor) -> Tensor:
        """Output of the last decoder stage (B, C, D, H, W)."""
        self.check_input(x)
        net: Any = self.network
        tokens, layers = net.vit(x)
        skips = [net.encoder1(x)]
        for stage, after in ((net.encoder2, 3), (net.encoder3, 6), (net.encoder4, 9)):
            skips.append(stage(net.proj_feat(layers[after])))
        y: Tensor = net.proj_feat(tokens)
        for stage in (net.decoder5, net.decoder4, net.decoder3, net.decoder2):
            y = stage(y, skips.pop())
        return y

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of the transformer as a volume (B, hidden size, D / 16, H / 16, W / 16)."""
        self.check_input(x)
        net: Any = self.network
        tokens, _ = net.vit(x)
        return [net.proj_feat(tokens)]


@dataclass(frozen=True, kw_only=True)
class SwinUNETRConfig:
    """Options of a Swin UNETR; the defaults are those of the papers' comparisons."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    feature_size: int = 48
    """Channels at full resolution, a multiple of 12."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Transformer blocks of the four stages."""
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads of the four stages; they divide the channels, which double from stage to stage."""
    window_size: tuple[int, ...] = (7, 7, 7)
    """Tokens along D, H, W of an attention window; one number stands for all."""
    drop_path: float = 0.0
    """Share of the transformer blocks that is left out in training, for the last; it grows from block to block."""
    residual_conv: bool = False
    """Whether each stage begins with a residual block of convolutions: Swin UNETR-V2 (He et al., MICCAI 2023)."""
    merging: Literal["merging", "mergingv2"] = "merging"
    """MONAI's first patch merging, or the corrected one."""
    checkpointing: bool = False
    """Recompute transformer blocks in the backward pass of training: less memory, more time, the same numbers."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "feature_size")
        check_switches(self, "residual_conv", "checkpointing")
        check_shares(self, "drop_path")
        check_choice(self, "merging", "merging", "mergingv2")
        object.__setattr__(self, "depths", positive_integers("depths", self.depths, number=4))
        object.__setattr__(self, "num_heads", positive_integers("num_heads", self.num_heads, number=4))
        object.__setattr__(self, "window_size", per_axis("window_size", self.window_size))
        if self.feature_size % 12:
            raise ConfigError(f"feature_size = {self.feature_size}: expected a multiple of 12.")
        widths = [self.feature_size * 2**stage for stage in range(4)]
        if any(width % heads for width, heads in zip(widths, self.num_heads, strict=True)):
            raise ConfigError(
                f"num_heads = {self.num_heads}: expected divisors of the channels of the stages, {widths}."
            )


class SwinUNETR(_TransformerUNet):
    """MONAI's SwinUNETR."""

    def __init__(self, config: SwinUNETRConfig) -> None:
        with OnCpu(torch.linspace):  # the shares of `drop_path`
            super().__init__(
                config,
                lambda nets: nets.SwinUNETR(
                    in_channels=config.in_channels,
                    out_channels=config.num_classes,
                    feature_size=config.feature_size,
                    depths=config.depths,
                    num_heads=config.num_heads,
                    window_size=config.window_size,
                    dropout_path_rate=config.drop_path,
                    use_v2=config.residual_conv,
                    downsample=config.merging,
                    use_checkpoint=config.checkpointing,
                ),
                divisor=(32, 32, 32),
                feature_channels=config.feature_size,
            )

    def encoders(self) -> Iterable[nn.Module]:
        """The transformer, and the convolutions between it and the decoder."""
        net: Any = self.network
        return net.swinViT, net.encoder1, net.encoder2, net.encoder3, net.encoder4, net.encoder10

    def features(self, x: Tensor) -> Tensor:
        """Output of the last decoder stage (B, C, D, H, W)."""
        self.check_input(x)
        net: Any = self.network
        *stages, before_last, last = net.swinViT(x, net.normalize)
        skips = [net.encoder1(x)]
        for conv, stage in zip((net.encoder2, net.encoder3, net.encoder4), stages, strict=True):
            skips.append(conv(stage))
        skips.append(before_last)
        y: Tensor = net.encoder10(last)
        for stage in (net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1):
            y = stage(y, skips.pop())
        return y

    def encode(self, x: Tensor) -> list[Tensor]:
        """Last stage of the transformer, after its convolutions (B, 16 C, D / 32, H / 32, W / 32)."""
        self.check_input(x)
        net: Any = self.network
        *_, last = net.swinViT(x, net.normalize)
        return [net.encoder10(last)]


ENTRIES = {
    "unetr": NetworkEntry(
        network=UNETR,
        config=UNETRConfig,
        source="Hatamizadeh et al., WACV 2022, arXiv:2103.10504; MONAI's UNETR",
        summary="vision transformer with a convolutional decoder, for one input size: a baseline of all papers",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net", parameters_m=92.8, gflops=82.6, convention="ptflops", num_classes=8
            ),
            PrintedCost(
                where="Table 1 of E2ENet",
                parameters_m=93.02,
                gflops=391.03,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
                options={"image_size": (128, 128, 128)},
            ),
            PrintedCost(where="Table 2 of E2ENet", parameters_m=92.79, gflops=164.91, convention="e2enet"),
            PrintedCost(
                where="Table 1 of LoGoNet",
                parameters_m=101.7,
                gflops=264.59,
                convention="thop",
                options={"feature_size": 32},
            ),
        ),
    ),
    "swin_unetr": NetworkEntry(
        network=SwinUNETR,
        config=SwinUNETRConfig,
        source="Hatamizadeh et al., BrainLes 2021, arXiv:2201.01266; MONAI's SwinUNETR",
        summary="Swin transformer with a convolutional decoder, width 48: a baseline of all papers",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net", parameters_m=62.2, gflops=328.4, convention="ptflops", num_classes=8
            ),
            PrintedCost(
                where="Table 1 of E2ENet",
                parameters_m=62.83,
                gflops=1562.99,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
            ),
            PrintedCost(where="Table 1 of LoGoNet", parameters_m=62.2, gflops=329.84, convention="thop"),
        ),
    ),
}
