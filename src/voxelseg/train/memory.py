"""How much a training step may hold: what a network takes per voxel, measured on a small patch, and what is allowed."""

import torch

from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError
from voxelseg.nets import Network
from voxelseg.plan.planner import PlanLimits
from voxelseg.train.config import RunConfig
from voxelseg.train.run import build_network, follows_plan

MEMORY_GB = {"cpu": 3.0, "cuda": 8.0}
"""Default memory budget of a training step by kind of device."""
CPU_VOXELS_PER_STEP = 300_000
"""On a CPU time, not memory, limits the patch: beyond this a step takes long and a training sees too few of them."""
SAFETY = 1.3
"""Real peak over measured saved activations: gradients in flight, buffers of the operations, the allocator."""


def plan_limits(
    model: str, dataset: Dataset, config: RunConfig, device: torch.device, *, memory_gb: float | None = None
) -> PlanLimits:
    """What `model` with the options of `config` allows on `device`, in `memory_gb` or the device's default."""
    budget = MEMORY_GB[device.type] if memory_gb is None else memory_gb
    if budget <= 0:
        raise ConfigError(f"memory budget {budget} GB: expected more than 0.")
    network = build_network(model, dataset, config)
    voxels = int(budget * 1e9 / training_bytes_per_voxel(network, in_channels=len(dataset.channels)))
    if device.type == "cpu":
        voxels = min(voxels, CPU_VOXELS_PER_STEP)
    d, h, w = network.divisor
    return PlanLimits(divisor=None if follows_plan(model) else (d, h, w), voxels_per_step=max(voxels, 1))


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
