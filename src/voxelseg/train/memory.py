"""How much memory a training step of a network takes, measured on a small patch."""

import torch

from voxelseg.nets import Network

SAFETY = 1.3
"""Measured saved activations to real peak: gradients in flight, buffers of the operations, the allocator."""


def training_bytes_per_voxel(model: Network, *, in_channels: int) -> float:
    """Bytes that one input voxel costs in a training step in float32: activations kept for the backward pass.

    Measured by running the network on the smallest patch with at least 32 voxels along each axis.
    """
    size = [max(-(-32 // step) * step, 2 * step) for step in model.divisor]
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(torch.zeros(1, in_channels, *size))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    activations = sum(nbytes for pointer, nbytes in seen.items() if pointer not in weights)
    del outputs
    return SAFETY * activations / float(torch.tensor(size).prod())
