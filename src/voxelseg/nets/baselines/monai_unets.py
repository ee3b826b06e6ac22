"""The convolutional U-Nets that MONAI has: 3D U-Net, residual U-Net, Attention U-Net, UNet++ and V-Net.

B batch, D H W depth, height, width in voxels, K classes.
Each is MONAI's implementation with the widths that a paper's comparison counted. How they differ from their authors':

- 3D U-Net (Çiçek et al., MICCAI 2016, arXiv:1606.06650): MONAI's BasicUNet has instance norm and leaky ReLU in place of
  batch norm and ReLU, pads, and is narrower. MONAI's UNet is another network: residual units and strided convolutions.
- Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): strided convolutions instead of pooling, gates at the
  resolution of the skip connection.
- UNet++ (Zhou et al., DLMIA 2018, arXiv:1807.10165): instance norm and leaky ReLU.
- V-Net (Milletari et al., 3DV 2016, arXiv:1606.04797): batch norm after each convolution, ELU, dropout of whole
  channels. MONAI takes 1, 2, 4, 8 or 16 input channels; here any number: what the first stage adds to the 16 channels
  of its convolution are the input's channels in turn.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxelseg.errors import ConfigError
from voxelseg.nets.baselines.monai_network import MonaiUNet, steps_of_plan
from voxelseg.nets.network import (
    Levels,
    NetworkEntry,
    PrintedCost,
    check_choice,
    check_counts,
    check_shares,
    check_switches,
    per_level,
    positive_integers,
)


@dataclass(frozen=True, kw_only=True)
class UNet3DConfig:
    """Options of a 3D U-Net; the defaults are MONAI's."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    features: tuple[int, ...] = (32, 32, 64, 128, 256, 32)
    """Channels of the five levels, full resolution first, and of the last decoder stage."""
    dropout: float = 0.0
    """Share of the channels that is dropped after each norm in training."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes")
        check_shares(self, "dropout")
        object.__setattr__(self, "features", positive_integers("features", self.features, number=6, least=2))


class UNet3D(MonaiUNet):
    """MONAI's BasicUNet: max pooling, two convolutions per stage, transposed convolutions."""

    def __init__(self, config: UNet3DConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.BasicUNet(
                in_channels=config.in_channels,
                out_channels=config.num_classes,
                features=config.features,
                dropout=config.dropout,
            ),
            divisor=(16, 16, 16),
            feature_channels=config.features[-1],
        )

    def encoders(self) -> Iterable[nn.Module]:
        """The five stages of the contracting path."""
        net: Any = self.network
        return net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4

    def features(self, x: Tensor) -> Tensor:
        """Output of the last decoder stage."""
        net: Any = self.network
        *skips, x = self._encode(x)
        for stage in (net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1):
            x = stage(x, skips.pop())
        return x

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        net: Any = self.network
        logits: Tensor = net.final_conv(features)
        return logits


@dataclass(frozen=True, kw_only=True)
class ResidualUNet3DConfig:
    """Options of a U-Net with residual units; the defaults are those of MONAI's tutorials."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Channels of the levels, full resolution first."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * 4
    """Steps between the levels; one number stands for all axes."""
    residual_units: int = 2
    """Convolutions in the residual unit of each encoder stage; 0 for plain convolutions."""
    norm: Literal["instance", "batch"] = "instance"
    """Over each sample and channel without scale and shift, or over the batch with both."""
    dropout: float = 0.0
    """Share of the channels that is dropped after each norm in training."""

    def __post_init__(self) -> None:
        _check_steps(self)
        check_shares(self, "dropout")
        check_choice(self, "norm", "instance", "batch")
        if type(self.residual_units) is not int or self.residual_units != 0:
            check_counts(self, "residual_units")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Strides adapted to thick or few slices, unless the user has chosen them."""
        return steps_of_plan(options, strides, len(options.get("channels", cls.channels)) - 1)


class ResidualUNet3D(MonaiUNet):
    """MONAI's UNet: strided residual units down, transposed convolutions and one residual unit up.

    The last transposed convolution has as many channels as there are classes, and its output counts as the features: a
    residual unit follows, or nothing with `residual_units=0`.
    """

    def __init__(self, config: ResidualUNet3DConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.UNet(
                spatial_dims=3,
                in_channels=config.in_channels,
                out_channels=config.num_classes,
                channels=config.channels,
                strides=config.strides,
                num_res_units=config.residual_units,
                norm=config.norm,
                dropout=config.dropout,
            ),
            divisor=_reach(config.strides),
            feature_channels=config.num_classes,
        )

    def encoders(self) -> Iterator[nn.Module]:
        """The way down: the first part of each nested level, and the deepest."""
        level: Any = self.network.model
        for _ in self.config.strides:
            yield level[0]
            level = level[1].submodule
        yield level

    def features(self, x: Tensor) -> Tensor:
        """Output of the last transposed convolution, its norm and its activation if a residual unit follows."""
        self.check_input(x)
        down, connection, up = self.network.model  # type: ignore[misc]
        if self.config.residual_units:
            up = up[0]
        y: Tensor = up(connection(down(x)))
        return y

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        if not self.config.residual_units:
            return features
        _, unit = self.network.model[-1]  # type: ignore[index]
        logits: Tensor = unit(features)
        return logits


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig:
    """Options of an Attention U-Net; the defaults are the network that LoGoNet's Table 1 counts."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    channels: tuple[int, ...] = (256, 256, 512, 512)
    """Channels of the levels, full resolution first."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2, 2),) * 3
    """Steps between the levels; one number stands for all axes."""
    dropout: float = 0.0
    """Share of the channels that is dropped after each norm in training."""

    def __post_init__(self) -> None:
        _check_steps(self)
        check_shares(self, "dropout")

    @classmethod
    def plan_options(cls, options: Mapping[str, Any], strides: Levels, kernels: Levels) -> dict[str, Any]:
        """Strides adapted to thick or few slices, unless the user has chosen them."""
        return steps_of_plan(options, strides, len(options.get("channels", cls.channels)) - 1)


class AttentionUNet(MonaiUNet):
    """MONAI's AttentionUnet."""

    def __init__(self, config: AttentionUNetConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.AttentionUnet(
                spatial_dims=3,
                in_channels=config.in_channels,
                out_channels=config.num_classes,
                channels=config.channels,
                strides=config.strides,
                dropout=config.dropout,
            ),
            divisor=_reach(config.strides),
            feature_channels=config.channels[0],
        )

    def encoders(self) -> Iterator[nn.Module]:
        """The first stage and the strided ones below it."""
        head, level, _ = self.network.model  # type: ignore[misc]
        yield head
        for _ in self.config.strides[:-1]:
            stage, level = level.submodule
            yield stage
        yield level.submodule

    def features(self, x: Tensor) -> Tensor:
        """Output of the last attention level."""
        self.check_input(x)
        first, levels, _ = self.network.model  # type: ignore[misc]
        y: Tensor = levels(first(x))
        return y

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        *_, head = self.network.model  # type: ignore[misc]
        logits: Tensor = head(features)
        return logits


_NESTED = 4  # U-Nets in a UNet++


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusConfig:
    """Options of a UNet++; the default widths are the authors'."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    features: tuple[int, ...] = (32, 64, 128, 256, 512, 32)
    """Channels of the five levels, full resolution first, and of the last decoder stage."""
    dropout: float = 0.0
    """Share of the channels that is dropped after each norm in training."""
    deep_supervision: bool = False
    """Whether the three shallower of the nested U-Nets have heads too; all are at full resolution."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes")
        check_switches(self, "deep_supervision")
        check_shares(self, "dropout")
        object.__setattr__(self, "features", positive_integers("features", self.features, number=6, least=2))


class UNetPlusPlus(MonaiUNet):
    """MONAI's BasicUNetPlusPlus; without deep supervision, without the heads that nobody asks for."""

    def __init__(self, config: UNetPlusPlusConfig) -> None:
        super().__init__(
            config,
            lambda nets: nets.BasicUNetPlusPlus(
                in_channels=config.in_channels,
                out_channels=config.num_classes,
                features=config.features,
                dropout=config.dropout,
                deep_supervision=True,  # a list in any case: which output is wanted is decided in `forward`
            ),
            divisor=(16, 16, 16),
            num_heads=_NESTED if config.deep_supervision else 1,
            feature_channels=config.features[-1],
        )
        if not config.deep_supervision:
            self._drop_shallow_heads()

    def _drop_shallow_heads(self) -> None:
        for name in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
            setattr(self.network, name, nn.Identity())

    def encoders(self) -> Iterable[nn.Module]:
        """The five stages of the contracting path."""
        net: Any = self.network
        return net.conv_0_0, net.conv_1_0, net.conv_2_0, net.conv_3_0, net.conv_4_0

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision those of all four nested U-Nets, the deepest first."""
        if not self.deep_supervision:
            return self.classify(self.features(x))
        outputs = [self._head(depth, y) for depth, y in enumerate(self._nested(x), start=1)]
        return outputs[::-1]

    def features(self, x: Tensor) -> Tensor:
        """Output of the deepest U-Net's last stage."""
        return self._nested(x)[-1]

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W) of the deepest U-Net."""
        return self._head(_NESTED, features)

    def _head(self, depth: int, features: Tensor) -> Tensor:
        logits: Tensor = getattr(self.network, f"final_conv_0_{depth}")(features)
        return logits

    def _nested(self, x: Tensor) -> list[Tensor]:
        """Last outputs of the U-Nets of depths one to four, all at full resolution."""
        self.check_input(x)
        levels: list[list[Tensor]] = []
        for depth, stage in enumerate(self.encoders()):
            x = stage(x)
            levels.append([x])
            for column in range(1, depth + 1):  # the nodes that this level makes possible, from the lowest up
                level = depth - column
                skip, below = levels[level], levels[level + 1][column - 1]
                node = getattr(self.network, f"upcat_{level}_{column}")
                levels[level].append(node(below, torch.cat(skip, dim=1) if column > 1 else skip[0]))
        return levels[0][1:]

    def fuse(self) -> None:
        """Leave out the heads of the shallower U-Nets, besides what is folded."""
        super().fuse()
        self._drop_shallow_heads()


@dataclass(frozen=True, kw_only=True)
class VNetConfig:
    """Options of a V-Net."""

    in_channels: int
    """Channels of the input."""
    num_classes: int
    """Output channels, background included."""
    width: int = 16
    """Channels at full resolution; they double with each of the four levels below."""
    activation: Literal["elu", "prelu"] = "elu"
    """MONAI's default, or the authors' with one slope per channel."""
    dropout: float = 0.5
    """Share of the channels that is dropped in training: of the two lowest levels, and of all skip connections."""

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "num_classes", "width")
        check_shares(self, "dropout")
        check_choice(self, "activation", "elu", "prelu")


class VNet(MonaiUNet):
    """MONAI's VNet: kernels of five voxels, residual stages."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__(
            config, lambda nets: _vnet(nets, config), divisor=(16, 16, 16), feature_channels=2 * config.width
        )

    def encoders(self) -> Iterable[nn.Module]:
        """The five stages of the way down."""
        net: Any = self.network
        return net.in_tr, net.down_tr32, net.down_tr64, net.down_tr128, net.down_tr256

    def features(self, x: Tensor) -> Tensor:
        """Output of the last decoder stage."""
        net: Any = self.network
        *skips, x = self._encode(x)
        for stage in (net.up_tr256, net.up_tr128, net.up_tr64, net.up_tr32):
            x = stage(x, skips.pop())
        return x

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        net: Any = self.network
        logits: Tensor = net.out_tr(features)
        return logits


def _vnet(nets: Any, config: VNetConfig) -> nn.Module:
    """MONAI's VNet with its stages at the width of `config`: its own are 16 wide."""
    act = "prelu" if config.activation == "prelu" else ("elu", {"inplace": True})
    width, dropped = config.width, (config.dropout, config.dropout)
    with torch.device("meta"):
        net: nn.Module = nets.VNet()
    net.in_tr = _InputStage(nets.vnet.InputTransition(3, 1, width, act), config.in_channels)
    net.down_tr32 = nets.vnet.DownTransition(3, width, 1, act)
    net.down_tr64 = nets.vnet.DownTransition(3, 2 * width, 2, act)
    net.down_tr128 = nets.vnet.DownTransition(3, 4 * width, 3, act, dropout_prob=config.dropout)
    net.down_tr256 = nets.vnet.DownTransition(3, 8 * width, 2, act, dropout_prob=config.dropout)
    net.up_tr256 = nets.vnet.UpTransition(3, 16 * width, 16 * width, 2, act, dropout_prob=dropped)
    net.up_tr128 = nets.vnet.UpTransition(3, 16 * width, 8 * width, 2, act, dropout_prob=dropped)
    net.up_tr64 = nets.vnet.UpTransition(3, 8 * width, 4 * width, 1, act, dropout_prob=(None, config.dropout))
    net.up_tr32 = nets.vnet.UpTransition(3, 4 * width, 2 * width, 1, act, dropout_prob=(None, config.dropout))
    net.out_tr = nets.vnet.OutputTransition(3, 2 * width, config.num_classes, act)
    return net


class _InputStage(nn.Module):
    """MONAI's first stage of a V-Net, for any number of channels and the same for those that MONAI takes."""

    def __init__(self, stage: Any, in_channels: int) -> None:
        super().__init__()
        self.act_function = stage.act_function
        self.conv_block = stage.conv_block
        width = self.conv_block.conv.out_channels
        self.conv_block.conv = nn.Conv3d(in_channels, width, kernel_size=5, padding=2, bias=False)
        self.sources = [channel % in_channels for channel in range(width)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W)."""
        activated: Tensor = self.act_function(torch.add(self.conv_block(x), x[:, self.sources]))
        return activated


def _check_steps(config: Any) -> None:
    """`channels` and `strides` of a config as tuples; ConfigError unless they fit each other."""
    check_counts(config, "in_channels", "num_classes")
    object.__setattr__(config, "channels", positive_integers("channels", config.channels, least=2))
    object.__setattr__(config, "strides", per_level("strides", config.strides))
    if len(config.channels) < 2 or len(config.strides) != len(config.channels) - 1:
        raise ConfigError(
            f"strides = {config.strides}: expected one for each step between the {len(config.channels)} levels of "
            "channels, and at least two levels."
        )


def _reach(strides: Levels) -> tuple[int, ...]:
    """What `strides` multiply to along each axis."""
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


ENTRIES = {
    "unet3d": NetworkEntry(
        network=UNet3D,
        config=UNet3DConfig,
        source="Çiçek et al., MICCAI 2016, arXiv:1606.06650; MONAI's BasicUNet",
        summary="3D U-Net with max pooling, width 32 to 256: a baseline of 3D UX-Net",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net",
                parameters_m=4.81,
                gflops=135.9,
                convention="ptflops",
                num_classes=5,
                note="the FLOPs are this network's, the parameters those of unet3d_residual: this one has 5.75 million",
            ),
        ),
    ),
    "unet3d_residual": NetworkEntry(
        network=ResidualUNet3D,
        config=ResidualUNet3DConfig,
        source="Kerfoot et al., STACOM 2018; MONAI's UNet",
        summary="3D U-Net with strided residual units, width 16 to 256: MONAI's first example",
        printed=(
            PrintedCost(
                where="Table 1 of 3D UX-Net (3D U-Net)",
                parameters_m=4.81,
                gflops=135.9,
                convention="ptflops",
                num_classes=5,
                note="the parameters are this network's, the FLOPs those of unet3d: this one takes 14.3 by that tool",
            ),
        ),
    ),
    "attention_unet": NetworkEntry(
        network=AttentionUNet,
        config=AttentionUNetConfig,
        source="Oktay et al. 2018, arXiv:1804.03999; MONAI's AttentionUnet",
        summary="U-Net with attention gates, width 256 to 512: a baseline of LoGoNet, and by far the dearest",
        printed=(PrintedCost(where="Table 1 of LoGoNet", parameters_m=64.1, gflops=7984.21, convention="thop"),),
    ),
    "unetpp": NetworkEntry(
        network=UNetPlusPlus,
        config=UNetPlusPlusConfig,
        source="Zhou et al., DLMIA 2018, arXiv:1807.10165; MONAI's BasicUNetPlusPlus",
        summary="UNet++, nested U-Nets of depths one to four, width 32 to 512: a baseline of E2ENet and LoGoNet",
        printed=(
            PrintedCost(
                where="Table 3 of E2ENet",
                parameters_m=58.38,
                gflops=3938.25,
                convention="e2enet",
                in_channels=4,
                num_classes=4,
                size=(128, 128, 128),
                note="widths not given, and none that double or stay from level to level meet both numbers; with "
                "those of UNet++'s authors it has 26.4 million parameters and takes 4483.3",
            ),
            PrintedCost(
                where="Table 1 of LoGoNet",
                parameters_m=84.6,
                gflops=4229.20,
                convention="thop",
                note="widths not given, and none that double or stay from level to level meet both numbers; with "
                "those of UNet++'s authors it has 26.4 million parameters and takes 945.1",
            ),
        ),
    ),
    "vnet": NetworkEntry(
        network=VNet,
        config=VNetConfig,
        source="Milletari et al., 3DV 2016, arXiv:1606.04797; MONAI's VNet",
        summary="V-Net, residual stages with kernels of five voxels, width 16 to 256: a baseline of E2ENet",
        printed=(
            PrintedCost(
                where="Table 1 of E2ENet",
                parameters_m=45.65,
                gflops=1737.57,
                convention="e2enet",
                num_classes=16,
                size=(128, 128, 128),
            ),
        ),
    ),
}
