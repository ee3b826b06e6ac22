"""Sparse layers: convolutions of which only some kernels are active, and the masks that say which.

A kernel leads from one input channel to one output channel: a weight has as many as the product of its first two axes,
which are (out, in) for convolutions and (in, out) for transposed ones. A mask is true where a kernel is active. It is a
buffer of its layer, so it is saved with the weights. The forward pass uses the weight as it is: `mask_weights`, called
after every step of the optimizer, keeps the inactive kernels at zero, and their gradients are those of a dense network.
Any network can have sparse layers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxelseg.errors import ConfigError

MASK = "kernel_mask"
"""Name of the buffer."""


@dataclass(frozen=True, kw_only=True)
class FusionNode:
    """A sparse layer that fuses features from several sources, and which of its input channels comes from where."""

    name: str
    """For people, such as "x[1,0]"."""
    layer: str
    """Name of the layer."""
    sources: Mapping[str, range]
    """Input channels by the direction that they come from: "up", "forward", "down"."""


def num_active(num_kernels: int, sparsity: float) -> int:
    """How many of the kernels of a layer are active: the share 1 - `sparsity`, rounded."""
    return round(num_kernels * (1 - sparsity))


def add_masks(network: nn.Module, layers: Iterable[str], sparsity: float) -> None:
    """Give each of the named layers of `network` a random mask, and set the weights outside to zero.

    Exactly `num_active` kernels of each layer are active, drawn uniformly from PyTorch's global generator. The weights
    are not rescaled. ConfigError if a layer would have none. Source: E2ENet, Algorithm 1, line 1.
    """
    for name in layers:
        layer = network.get_submodule(name)
        weight = _weight(layer)
        out_channels, in_channels = weight.shape[:2]
        number = out_channels * in_channels
        active = num_active(number, sparsity)
        if not active:
            raise ConfigError(
                f"sparsity = {sparsity}: layer {name} would keep none of its {number} kernels, so nothing would pass. "
                "Lower the sparsity, or widen the network."
            )
        mask = torch.randperm(number, device=weight.device) < active
        layer.register_buffer(MASK, mask.view(out_channels, in_channels))
    mask_weights(network)


def sparse_weights(network: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Weight and mask of every layer that has a mask, by the layer's name."""
    return {
        name: (_weight(layer), layer.get_buffer(MASK))
        for name, layer in network.named_modules()
        if MASK in dict(layer.named_buffers(recurse=False))
    }


def is_sparse(network: nn.Module) -> bool:
    """Whether any kernel of `network` is inactive."""
    return any(not mask.all() for _, mask in sparse_weights(network).values())


@torch.no_grad()
def mask_weights(network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Set the weights outside the masks to zero, and what `optimizer` remembers of them: momentum and moments."""
    for weight, mask in sparse_weights(network).values():
        active = _spread(mask, weight)
        remembered = {} if optimizer is None else optimizer.state.get(weight, {})
        for tensor in (weight, *remembered.values()):
            if isinstance(tensor, Tensor) and tensor.shape == weight.shape:  # not the count of steps
                tensor.mul_(active)  # a third of the time of masked_fill_ with the opposite


@torch.no_grad()
def mask_gradients(network: nn.Module) -> None:
    """Set the gradients outside the masks to zero, where there are gradients."""
    for weight, mask in sparse_weights(network).values():
        if weight.grad is not None:
            weight.grad.mul_(_spread(mask, weight))


def gradient_strength(network: nn.Module) -> dict[str, Tensor]:
    """Sum of the absolute gradients over the taps of each kernel (A, B) of the sparse layers that have gradients."""
    return {
        name: weight.grad.abs().flatten(2).sum(2)
        for name, (weight, _) in sparse_weights(network).items()
        if weight.grad is not None
    }


def copy_masks(source: nn.Module, target: nn.Module) -> None:
    """Make the masks of `target`, a network with the same sparse layers, those of `source`."""
    masks = sparse_weights(target)
    for name, (_, mask) in sparse_weights(source).items():
        masks[name][1].copy_(mask)


def restore_masks(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give layers of `network` the masks that they lack and the state dict `weights` has, before that is loaded.

    Masks that fit no layer are left to the loading, which names them.
    """
    layers = dict(network.named_modules())
    for name, mask in weights.items():
        layer_name, _, last = name.rpartition(".")
        layer = layers.get(layer_name)
        weight = getattr(layer, "weight", None)
        if last != MASK or layer is None or hasattr(layer, MASK) or not isinstance(weight, nn.Parameter):
            continue
        if weight.shape[:2] == mask.shape:
            layer.register_buffer(MASK, mask.to(weight.device, copy=True))


def _spread(mask: Tensor, weight: Tensor) -> Tensor:
    """`mask` with axes of length 1 for the taps of the kernels of `weight`."""
    return mask.view(*mask.shape, *(1,) * (weight.ndim - 2))


def _weight(layer: nn.Module) -> nn.Parameter:
    weight = layer.get_parameter("weight")
    assert weight.ndim > 2, f"{type(layer).__name__} has no kernels"
    return weight
