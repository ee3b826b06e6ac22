"""What all networks share: the input check, the deep-supervision switch, the strides of the outputs."""

from math import prod
from typing import Any

from torch import Tensor, nn

from voxelseg.errors import ConfigError, DataError


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


class Network(nn.Module):
    """A segmentation network: (B, C, D, H, W) in, logits (B, K, D, H, W) out, or a list of them, full resolution first.

    Networks with `spatial_dims=2` take (B, C, H, W).
    """

    divisor: tuple[int, ...]
    """Each spatial axis of the input must be a multiple of this."""

    def __init__(self, head_strides: list[tuple[int, ...]], *, divisor: tuple[int, ...], in_channels: int) -> None:
        """`head_strides` are the downsampling factors per axis of the outputs for which the network has a head."""
        super().__init__()
        self.divisor = divisor
        self._in_channels = in_channels
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

    def check_input(self, x: Tensor) -> None:
        """DataError, with the size to pad to, unless `x` fits the network."""
        dims = len(self.divisor)
        letters = "D, H, W" if dims == 3 else "H, W"
        if x.ndim != dims + 2 or x.shape[1] != self._in_channels:
            raise DataError(
                f"input of shape {tuple(x.shape)}: {type(self).__name__} expects (B, {self._in_channels}, {letters})."
            )
        size = tuple(x.shape[2:])
        padded = [-(-n // step) * step for n, step in zip(size, self.divisor, strict=True)]
        if prod(n // step for n, step in zip(padded, self.divisor, strict=True)) == 1:
            padded[-1] += self.divisor[-1]  # a single voxel at the lowest resolution has no variance to normalise by
        if size != tuple(padded):
            raise DataError(
                f"input of {letters} = {size}: {type(self).__name__} needs multiples of {self.divisor} "
                f"and more than one voxel at its lowest resolution. Pad the input to {tuple(padded)} or more."
            )
