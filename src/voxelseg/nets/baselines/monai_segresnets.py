"""SegResNet (Myronenko, BrainLes 2018, arXiv:1810.11654) from MONAI, without and with its variational autoencoder.

B batch, D H W depth, height, width in voxels, K classes.
The authors' network is 32 channels wide and drops 0.2 of them; the papers that compare with it count MONAI's default, 8
channels and no dropout, which is the default here. The autoencoder reconstructs the input from the lowest features
while the network trains, and is not run otherwise; its loss is the network's `auxiliary_loss`. MONAI draws the latent
variables with a fixed standard deviation of 0.3 where the paper estimates one: `estimate_std` does that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.monai_network import MonaiNetwork, multiple_of
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


@dataclass(frozen=True, kw_only=True)
class SegResNetConfig:
    """Options of a SegResNet; the defaults are those of the papers' comparisons."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 8
    """Channels at full resolution; they double with each level below."""
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    """Residual blocks of each encoder level, full resolution first."""
    blocks_up: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of each decoder level, lowest resolution first: one level fewer."""
    groups: int = 8
    """Groups of the group norms; they divide the width."""
    upsampling: Literal["nontrainable", "deconv", "pixelshuffle"] = "nontrainable"
    """Trilinear interpolation as in the paper, transposed convolutions, or channels spread over voxels."""
    dropout: float = 0.0
    """Share of the channels that is dropped after the first convolution in training."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width", "groups")
        check_shares(self, "dropout")
        check_choice(self, "upsampling", "nontrainable", "deconv", "pixelshuffle")
        down = positive_integers("blocks_down", self.blocks_down)
        object.__setattr__(self, "blocks_down", down)
        object.__setattr__(self, "blocks_up", positive_integers("blocks_up", self.blocks_up, number=len(down) - 1))
        if self.width % self.groups:
            raise ConfigError(f"groups = {self.groups}: expected a divisor of the width, {self.width}.")

    def monai_options(self) -> dict[str, Any]:
        """The same as MONAI's constructors name it."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.num_classes,
            "init_filters": self.width,
            "blocks_down": self.blocks_down,
            "blocks_up": self.blocks_up,
            "norm": ("GROUP", {"num_groups": self.groups}),
            "upsample_mode": self.upsampling,
            "dropout_prob": self.dropout or None,
        }


class SegResNet(MonaiNetwork):
    """MONAI's SegResNet."""

    def __init__(self, config: SegResNetConfig) -> None:
        divisor = (2 ** len(config.blocks_up),) * 3
        super().__init__(config, lambda nets: nets.SegResNet(**config.monai_options()), divisor=divisor)

    def encoders(self) -> Iterable[nn.Module]:
        """The first convolution and the levels of the way down."""
        net: Any = self.network
        return net.convInit, net.down_layers


@dataclass(frozen=True, kw_only=True)
class SegResNetVAEConfig(SegResNetConfig):
    """Options of a SegResNet with variational autoencoder."""

    image_size: tuple[int, ...] = (96, 96, 96)
    """The input size that the network takes, along D, H, W; one number stands for all."""
    latent: int = 256
    """Latent variables of the autoencoder."""
    estimate_std: bool = False
    """Whether the standard deviation of the latent variables is estimated; if not, it is `default_std`."""
    default_std: float = 0.3
    """Standard deviation with which the latent variables are drawn."""
    vae_weight: float = 0.1
    """Factor of the autoencoder's loss, that of reconstruction and latent variables together (Eq. 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "latent")
        check_switches(self, "estimate_std")
        for name in ("default_std", "vae_weight"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < inf:
                raise ConfigError(f"{name} = {value!r}: expected 0 or a positive number.")
        if 16 % self.groups:
            raise ConfigError(f"groups = {self.groups}: expected a divisor of the 16 channels of the autoencoder.")
        size = multiple_of(per_axis("image_size", self.image_size), 2 ** len(self.blocks_down))
        object.__setattr__(self, "image_size", size)


class SegResNetVAE(MonaiNetwork):
    """MONAI's SegResNetVAE."""

    def __init__(self, config: SegResNetVAEConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.SegResNetVAE(
                input_image_size=list(config.image_size),
                vae_nz=config.latent,
                vae_estimate_std=config.estimate_std,
                vae_default_std=config.default_std,
                **config.monai_options(),
            ),
            divisor=(2 ** len(config.blocks_down),) * 3,
            image_size=config.image_size,
        )
        # MONAI has the layer in any case; a gradient that never comes would stop training on several devices.
        self.network.vae_fc2.requires_grad_(config.estimate_std)

    def encoders(self) -> Iterable[nn.Module]:
        """The first convolution and the levels of the way down."""
        net: Any = self.network
        return net.convInit, net.down_layers

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, D, H, W); in training the loss of the autoencoder goes to `auxiliary_loss`."""
        self.check_input(x)
        logits: Tensor
        logits, loss = self.network(x)
        self.auxiliary_loss = None if loss is None else self.config.vae_weight * loss
        return logits


ENTRIES = {
    "segresnet": NetworkEntry(
        network=SegResNet,
        config=SegResNetConfig,
        source="Myronenko, BrainLes 2018, arXiv:1810.11654; MONAI's SegResNet",
        summary="residual encoder with group norm and a light decoder, width 8: a baseline of 3D UX-Net",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net", parameters_m=1.18, gflops=15.6, convention="ptflops", num_classes=5
            ),
        ),
    ),
    "segresnet_vae": NetworkEntry(
        network=SegResNetVAE,
        config=SegResNetVAEConfig,
        source="Myronenko, BrainLes 2018, arXiv:1810.11654; MONAI's SegResNetVAE",
        summary="SegResNet that also learns to reconstruct its input, width 8: a baseline of LoGoNet",
        printed=(PrintedCost(where="Table 1 of LoGoNet", parameters_m=3.9, gflops=15.50, convention="thop"),),
    ),
}
