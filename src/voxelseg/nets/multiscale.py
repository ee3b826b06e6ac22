"""What networks with heads at several resolutions share: one way down and up, whatever is asked for at its end."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from voxelseg.nets.network import Network
from voxelseg.ops.pointwise import pointwise_head

See = Callable[[int, Tensor], Tensor]
"""What is made of the features (B, C, D, H, W) of a level, whose number comes first: 0 at full resolution."""


class MultiscaleNetwork(Network, ABC):
    """A U-Net or one of its kin, with a pointwise head at full resolution and, for deep supervision, at lower ones."""

    heads: nn.ModuleList
    """Of each level that has one, full resolution first."""
    checkpointing = False
    """Whether training computes what `_call` is given again in the backward pass, and keeps its inputs alone."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, D, H, W); with deep supervision the list of those of all heads, full resolution first."""
        outputs = self._decode(x, len(self.output_strides), self._head)
        return outputs if self.deep_supervision else outputs[0]

    def features(self, x: Tensor) -> Tensor:
        """Output of the decoder at full resolution (B, F, D, H, W)."""
        return self._decode(x, 1, lambda level, y: y)[0]

    def classify(self, features: Tensor, /) -> Tensor:
        """Logits (B, K, D, H, W)."""
        return self._head(0, features)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Output of the encoder's lowest level."""
        return self._encode(x)[-1:]

    def _call(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`part` of `inputs`."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            result: Tensor = checkpoint(part, *inputs, use_reentrant=False)
        else:
            result = part(*inputs)
        return result

    def _head(self, level: int, x: Tensor) -> Tensor:
        """Logits of a level."""
        head = self.heads[level]
        return pointwise_head(x, head.weight, head.bias)  # type: ignore[arg-type]

    @abstractmethod
    def _encode(self, x: Tensor) -> list[Tensor]:
        """Outputs of the encoder's levels, full resolution first."""

    @abstractmethod
    def _decode(self, x: Tensor, num_levels: int, see: See) -> list[Tensor]:
        """What `see` makes of the features of each of the upper `num_levels` levels, full resolution first.

        At once, so that no level is kept longer than it is needed.
        """
