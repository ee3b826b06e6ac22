"""What the networks from MONAI share: MONAI is imported when the first is built, and their layers lie in `.network`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from voxelseg.errors import ConfigError
from voxelseg.nets.network import Levels, Network, planned_steps


class MonaiNetwork(Network):
    """A network of MONAI's under our interface; its state dict is MONAI's, each name after `network.`."""

    def __init__(
        self,
        config: Any,
        build: Callable[[Any], nn.Module],
        *,
        divisor: tuple[int, ...],
        image_size: tuple[int, ...] | None = None,
        num_heads: int = 1,
        feature_channels: int | None = None,
    ) -> None:
        """`build` makes MONAI's network out of its module `monai.networks.nets`; all heads are at full resolution.

        ConfigError, with what to install, where MONAI or einops is missing.
        """
        heads: list[tuple[int, ...]] = [(1, 1, 1)] * num_heads
        super().__init__(
            heads,
            divisor=divisor,
            in_channels=config.in_channels,
            image_size=image_size,
            feature_channels=feature_channels,
        )
        self.config = config
        self.network = build(_monai_nets())

    def encoders(self) -> Iterable[nn.Module]:
        """The parts of the network that encode."""
        raise NotImplementedError(f"{type(self).__name__} does not say which of its parts encode.")

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the parts that encode."""
        return chain.from_iterable(part.parameters() for part in self.encoders())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W)."""
        self.check_input(x)
        logits: Tensor = self.network(x)
        return logits

    def fuse(self) -> None:
        """Fold the batch norm of each of MONAI's convolution blocks into its convolution."""
        self.eval()
        for block in self.modules():
            norm = getattr(getattr(block, "adn", None), "N", None)
            if isinstance(norm, nn.BatchNorm3d):
                transposed = isinstance(block.conv, nn.ConvTranspose3d)
                block.conv = fuse_conv_bn_eval(block.conv, norm, transpose=transposed)  # type: ignore[type-var]
                block.adn.N = nn.Identity()  # type: ignore[union-attr]


class MonaiUNet(MonaiNetwork):
    """A U-Net of MONAI's, run part by part as MONAI does, so that its features can be had without its logits."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W)."""
        return self.classify(self.features(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of the last part of the way down."""
        return self._encode(x)[-1:]

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Outputs of the parts of the way down, each of which sees the one before, full resolution first."""
        self.check_input(x)
        outputs: list[Tensor] = []
        for part in self.encoders():
            x = part(x)
            outputs.append(x)
        return outputs


def _monai_nets() -> ModuleType:
    try:
        import einops  # noqa: F401  MONAI's transformers say only when they run that it is missing
        from monai.networks import nets
    except ImportError as error:
        raise ConfigError(
            f"this network is one of MONAI's, and {error.name} is not installed. "
            'Install what it needs: pip install "voxelseg[baselines]"'
        ) from error
    return nets


class OnCpu(TorchFunctionMode):
    """Within it what `maker`, such as torch.ones, makes is on the CPU.

    For small tables whose values MONAI reads while it builds a network: on the meta device there are none.
    """

    def __init__(self, maker: Callable[..., Tensor]) -> None:
        super().__init__()
        self.maker = maker

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        device = {"device": "cpu"} if func is self.maker else {}
        return func(*args, **{**(kwargs or {}), **device})


def multiple_of(size: tuple[int, ...], divisor: int) -> tuple[int, ...]:
    """`size`; ConfigError unless it is a multiple of `divisor` along each axis."""
    if any(voxels % divisor for voxels in size):
        raise ConfigError(f"image_size = {size}: expected multiples of {divisor} along D, H and W.")
    return size


def steps_of_plan(options: Mapping[str, Any], strides: Levels, number: int) -> dict[str, Any]:
    """Strides adapted to a plan with thick or few slices, unless the user's `options` have some; nothing for others."""
    steps = planned_steps(strides, number)
    return {"strides": steps} if "strides" not in options and any(min(step) == 1 for step in steps) else {}
