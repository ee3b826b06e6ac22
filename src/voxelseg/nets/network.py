"""What all networks share: the input check, the deep-supervision switch, inputs of any size, the table entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets.kernel_masks import FusionNode, mask_weights

Levels = tuple[tuple[int, ...], ...]
"""One entry (D, H, W) per resolution level, full resolution first: strides or kernel sizes, as a plan has them."""


def check_counts(config: Any, *names: str) -> None:
    """ConfigError unless each of these fields of `config` is a positive integer."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} = {value!r}: expected a positive integer.")


def check_switches(config: Any, *names: str) -> None:
    """ConfigError unless each of these fields of `config` is true or false."""
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name} = {getattr(config, name)!r}: expected true or false.")


def positive_integers(name: str, values: object, *, number: int | None = None, least: int = 1) -> tuple[int, ...]:
    """`values` as a tuple; ConfigError unless they are integers of at least `least`, and `number` of them if set."""
    several: tuple[Any, ...] = tuple(values) if isinstance(values, list | tuple) else ()
    fits = several and (number is None or len(several) == number)
    if not fits or any(not isinstance(value, int) or isinstance(value, bool) or value < least for value in several):
        count = "a list of" if number is None else str(number)
        raise ConfigError(f"{name} = {values!r}: expected {count} integers of at least {least}.")
    return several


def check_shares(config: Any, *names: str) -> None:
    """ConfigError unless each of these fields of `config` is a number from 0 up to but not including 1."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            raise ConfigError(f"{name} = {value!r}: expected a number from 0 up to but not including 1.")


def check_choice(config: Any, name: str, *choices: str) -> None:
    """ConfigError unless this field of `config` is one of the choices."""
    if getattr(config, name) not in choices:
        raise ConfigError(f"{name} = {getattr(config, name)!r}: expected one of {', '.join(map(repr, choices))}.")


def per_level(name: str, levels: object, dims: int = 3) -> tuple[tuple[int, ...], ...]:
    """`levels`, one entry per level, with every entry spread over the axes; ConfigError for anything else."""
    if not isinstance(levels, list | tuple):
        raise ConfigError(f"{name} = {levels!r}: expected a list with one entry per level.")
    return tuple(per_axis(name, level, dims) for level in levels)


def per_axis(name: str, value: object, dims: int = 3) -> tuple[int, ...]:
    """A positive integer for each of the `dims` axes from one for all or one for each; ConfigError otherwise."""
    sizes: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else (value,) * dims
    if len(sizes) != dims or any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
        letters, number = ("D, H, W", "three") if dims == 3 else ("H, W", "two")
        raise ConfigError(f"{name}: {value!r} is not a positive integer or {number} of them ({letters}).")
    return sizes


def planned_steps(strides: Levels, number: int) -> Levels:
    """The `number` downsampling steps of a network that halves every axis `number` times, adapted to a plan.

    An axis that the plan halves from the first level on, and at most two times less often, is halved in every step, as
    published. Any other axis follows the plan's `strides` (whose first level has 1): slices that are thick or few.
    """
    wanted = [*strides[1:], *[(1,) * len(strides[0])] * number][:number]
    halvings = [sum(step > 1 for step in axis) for axis in zip(*strides, strict=True)]
    published = [first > 1 and times >= number - 2 for first, times in zip(wanted[0], halvings, strict=True)]
    return tuple(tuple(2 if published[axis] else size for axis, size in enumerate(step)) for step in wanted)


def planned_kernels(kernels: Levels, number: int, size: int) -> Levels:
    """Kernels of `number` levels: `size` along each axis, or 1 where the plan's `kernels` have 1 (thick slices)."""
    deepest = (size,) * len(kernels[0])
    levels = [tuple(1 if one == 1 else size for one in level) for level in kernels]
    return tuple([*levels, *[deepest] * number][:number])


@dataclass(frozen=True, kw_only=True)
class PrintedCost:
    """What a paper prints as the cost of a network, and what it printed that for."""

    where: str
    """As in "Table 1 of 3D UX-Net"."""
    parameters_m: float | None
    """Millions of parameters."""
    gflops: float | None
    """10^9 operations as the paper counts them."""
    convention: Literal["macs", "fvcore", "ptflops", "thop", "e2enet"]
    """How the paper counts: a key of `voxelseg.nets.complexity.CONVENTIONS`."""
    in_channels: int = 1
    num_classes: int = 14
    size: tuple[int, ...] = (96, 96, 96)
    """Input voxels per axis."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options in which the counted network differs from the named size."""
    note: str = ""
    """Why ours differs, where it does by more than 2 %."""


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """A named size of a network."""

    network: Any
    """Class, built from its config alone."""
    config: Any
    """Frozen dataclass with all options. Where some follow from a data set's plan, it has a class method
    `plan_options(options, strides, kernels)` that returns them, given all other options and the plan's `Levels`. A
    kernel size that is one number there is the size that it gives the levels."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options in which this size differs from the config's defaults."""
    source: str
    """Publication and code that the network follows."""
    summary: str
    """One line for people who choose."""
    exclusive: bool = False
    """Whether it takes only classes that exclude each other, background first: no regions."""
    printed: tuple[PrintedCost, ...] = ()
    """Costs in papers."""

    @property
    def pretrainable(self) -> bool:
        """Whether the network says what its head sees, so that it can be trained without one."""
        return self.network.features is not Network.features


class Network(nn.Module):
    """A segmentation network: (B, C, D, H, W) in, logits (B, K, D, H, W) out, or a list of them, full resolution first.

    Networks of slices take (B, C, H, W).
    """

    divisor: tuple[int, ...]
    """Each spatial axis of the input must be a multiple of this."""
    image_size: tuple[int, ...] | None
    """The only input size that the network takes, if it was built for one."""
    auxiliary_loss: Tensor | None = None
    """A loss of the network's own (a scalar) from its last forward pass in training, to be added to that of the logits;
    None for networks without one."""

    def __init__(
        self,
        head_strides: list[tuple[int, ...]],
        *,
        divisor: tuple[int, ...],
        in_channels: int,
        image_size: tuple[int, ...] | None = None,
        feature_channels: int | None = None,
    ) -> None:
        """`head_strides` are the downsampling factors per axis of the outputs for which the network has a head.

        `feature_channels` are those of `features`, in networks that have it.
        """
        super().__init__()
        self.divisor = divisor
        self.image_size = image_size
        self._in_channels = in_channels
        self._feature_channels = feature_channels
        self._head_strides = head_strides
        self._deep_supervision = len(head_strides) > 1

    @property
    def deep_supervision(self) -> bool:
        """Whether forward returns the list of all outputs, in training and in evaluation mode alike.

        Can be switched at any time without touching the state dict. ConfigError if the network was built without the
        extra heads.
        """
        return self._deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, value: bool) -> None:
        if value and len(self._head_strides) == 1:
            raise ConfigError(
                f"this {type(self).__name__} was built without deep-supervision heads. "
                "Build it with deep_supervision=True."
            )
        self._deep_supervision = value

    @property
    def output_strides(self) -> list[tuple[int, ...]]:
        """Downsampling factor per axis of each output that forward returns now, full resolution first."""
        return self._head_strides if self._deep_supervision else self._head_strides[:1]

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; batch norms whose weights are frozen keep the latter, with their statistics."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm) and layer.affine and not layer.weight.requires_grad:
                layer.eval()
        return self

    @property
    def feature_channels(self) -> int:
        """F, the channels of `features`; ConfigError for a network that cannot be pre-trained."""
        if self._feature_channels is None:
            raise self._not_apart()
        return self._feature_channels

    def features(self, x: Tensor) -> Tensor:
        """What the head of full resolution sees (B, F, D, H, W); ConfigError for a network that cannot be pre-trained.

        The input must fit as for `forward`, and deep supervision changes nothing.
        """
        raise self._not_apart()

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits of full resolution (B, K, D, H, W) from what `features` returns, the same errors."""
        raise self._not_apart()

    def encode(self, x: Tensor) -> list[Tensor]:
        """Deepest features of each encoder, (B, C, d, h, w), of that for the whole volume first; the same errors."""
        raise self._not_apart()

    def _not_apart(self) -> ConfigError:
        from voxelseg.nets import pretrainable_models  # which knows every network, this file included

        return ConfigError(
            f"{type(self).__name__} cannot be pre-trained: its features and its logits are not kept apart. Choose one "
            f"of {', '.join(pretrainable_models())}."
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the part that turns an image into features: what transfer learning keeps or freezes."""
        raise NotImplementedError(f"{type(self).__name__} does not say which of its parameters encode.")

    def sparse_layers(self) -> list[str]:
        """Names of the layers of which only some kernels are active: none, for most."""
        return []

    def fusion_nodes(self) -> list[FusionNode]:
        """Those sparse layers that fuse features from several sources."""
        return []

    def after_step(self, optimizer: Optimizer | None = None) -> None:
        """To be called after each step of an optimizer in a training of one's own: keeps inactive kernels at zero.

        Also what `optimizer` remembers of them. Does nothing in a network without sparse layers.
        """
        mask_weights(self, optimizer)

    def fuse(self) -> None:
        """Turn the network in place into a faster one with the same outputs in evaluation mode, where there is one.

        For `voxelseg.optimize_for_inference`, which calls it on a copy; the state dict may be another one afterwards.
        """

    def forward_any_size(self, x: Tensor) -> Tensor | list[Tensor]:
        """What `forward` returns, for an input of any size: it is padded, and outputs are cropped.

        Outputs at lower resolutions have ceil(size / stride) voxels per axis. DataError if the network takes a single
        size and `x` is larger.
        """
        outputs = self(self.padded(x))
        if isinstance(outputs, Tensor):
            return _cropped(outputs, x.shape[2:], self.output_strides[0])
        return [_cropped(out, x.shape[2:], strides) for out, strides in zip(outputs, self.output_strides, strict=True)]

    def padded(self, x: Tensor) -> Tensor:
        """`x` with zeros appended up to the smallest size that the network takes, with the same error."""
        lack = [fits - size for fits, size in zip(self._fitting_size(x), x.shape[2:], strict=True)]
        return F.pad(x, [pad for axis_lack in reversed(lack) for pad in (0, axis_lack)]) if any(lack) else x

    def _fitting_size(self, x: Tensor) -> tuple[int, ...]:
        """Smallest size of at least that of `x` that the network takes."""
        if self.image_size is not None:
            if any(size > largest for size, largest in zip(x.shape[2:], self.image_size, strict=True)):
                raise DataError(
                    f"input of shape {tuple(x.shape)}: this {type(self).__name__} takes {self.image_size} voxels only. "
                    "Cut the input into windows of that size, or build it with another image_size."
                )
            return self.image_size
        padded = [-(-n // step) * step for n, step in zip(x.shape[2:], self.divisor, strict=True)]
        if padded == list(self.divisor):
            padded[-1] += self.divisor[-1]  # a single voxel at the lowest resolution has no variance to normalise by
        return tuple(padded)

    def check_input(self, x: Tensor) -> None:
        """DataError, with the size to pad to, unless `x` fits the network."""
        dims = len(self.divisor)
        letters = "D, H, W" if dims == 3 else "H, W"
        if x.ndim != dims + 2 or x.shape[1] != self._in_channels:
            raise DataError(
                f"input of shape {tuple(x.shape)}: {type(self).__name__} expects (B, {self._in_channels}, {letters})."
            )
        size, fitting = tuple(x.shape[2:]), self._fitting_size(x)
        if size != fitting and self.image_size is not None:
            raise DataError(
                f"input of {letters} = {size}: this {type(self).__name__} was built for {fitting}. Pad the input to "
                "that, or build it with another image_size."
            )
        if size != fitting:
            raise DataError(
                f"input of {letters} = {size}: {type(self).__name__} needs multiples of {self.divisor} "
                f"and more than one voxel at its lowest resolution. Pad the input to {fitting} or more."
            )


def _cropped(output: Tensor, size: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """The first voxels of `output`: those of an unpadded input of `size`."""
    lengths = [-(-n // stride) for n, stride in zip(size, strides, strict=True)]
    return output[(slice(None), slice(None), *map(slice, lengths))]
