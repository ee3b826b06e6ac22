"""How much a training step may hold: what a network takes per voxel, measured on a small patch, and what is allowed."""

from functools import cache
from math import inf, prod

import torch
from torch import nn

from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError, VoxelsegError, memory_ran_out
from voxelseg.nets import Network
from voxelseg.nets.network import Levels
from voxelseg.plan.planner import PlanLimits, fitting_patch
from voxelseg.train.config import NetworkConfig
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.precision import training_precision
from voxelseg.train.run import build_network, topology_options

MEMORY_GB = {"cpu": 3.0, "cuda": 8.0}
"""Default memory budget of a training step by kind of device."""
CPU_VOXELS_PER_STEP = 300_000
"""On a CPU time, not memory, limits the patch: beyond this a step takes long and a training sees too few of them. A
memory budget that the user gives is kept instead."""
SAFETY = 1.3
"""Real peak over measured saved activations: gradients in flight, buffers of the operations, the allocator."""
_OPTIMIZER_STATE = {"adamw": 2, "sgd": 1}
"""Tensors that an optimizer keeps for each parameter."""


def plan_limits(
    model: str, dataset: Dataset, config: NetworkConfig, device: torch.device, *, memory_gb: float | None = None
) -> PlanLimits:
    """What `model` with the options of `config` allows on `device`, in `memory_gb` or the device's default.

    ConfigError for an unknown model or option, and for a budget that weights, gradients and optimizer alone use up.
    """
    budget = MEMORY_GB[device.type] if memory_gb is None else memory_gb
    if not 0 < budget < inf:
        raise ConfigError(f"memory budget {budget} GB: expected a number above 0.")
    network = build_network(model, dataset, config)
    weights_gb = training_bytes_of_weights(network, config.train) / 1e9
    if budget <= weights_gb:
        raise ConfigError(
            f"memory budget {budget:g} GB: weights, gradients and optimizer of {model} alone take {weights_gb:.3g} GB. "
            "Raise --memory-gb or choose a smaller network."
        )
    try:
        per_voxel = training_bytes_per_voxel(
            network.to(device), in_channels=len(dataset.channels), precision=training_precision(config.train, device)
        )
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise VoxelsegError(
            f"the memory ran out while a small patch showed what {model} takes. End other programs, or choose a "
            "smaller network."
        ) from error
    voxels = int((budget - weights_gb) * 1e9 / per_voxel)
    if device.type == "cpu" and memory_gb is None:
        voxels = min(voxels, CPU_VOXELS_PER_STEP)

    @cache
    def divisor(strides: Levels, kernels: Levels) -> tuple[int, ...]:
        options = {**config.model, **topology_options(model, config, strides, kernels)}
        with torch.device("meta"):
            return build_network(model, dataset, config.model_copy(update={"model": options})).divisor

    return PlanLimits(divisor=divisor, voxels_per_step=max(voxels, 1))


def training_bytes_of_weights(model: nn.Module, config: LoopConfig) -> int:
    """Bytes that training takes whatever the patch: weights, gradients, optimizer state and averaged weights."""
    copies = 2 + _OPTIMIZER_STATE[config.optimizer] + (config.ema > 0)
    return copies * sum(parameter.nbytes for parameter in model.parameters())


def training_bytes_per_voxel(model: Network, *, in_channels: int, precision: torch.dtype = torch.float32) -> float:
    """Bytes that one input voxel costs in a training step: activations kept for the backward pass.

    Measured where the network lies, since devices keep different ones, as the growth from a patch of at least 32 voxels
    along each axis to one of twice the depth: weights and their copies in half precision do not grow. A network for a
    single input size is measured at that size, weights included. What recomputing blocks (checkpointing) spares cannot
    be seen this way and is not counted.
    """
    was_training = model.training
    model.eval()  # no recomputing
    if model.image_size is not None:
        saved = _saved_bytes(model, (1, in_channels, *model.image_size), precision=precision)
        voxels = prod(model.image_size)
    else:
        small = fitting_patch((32, 32, 32), model.divisor)
        large = (2 * small[0], *small[1:])
        first, second = (_saved_bytes(model, (1, in_channels, *size), precision=precision) for size in (small, large))
        saved, voxels = second - first, prod(large) - prod(small)
    model.train(was_training)
    return SAFETY * saved / voxels


def _saved_bytes(model: Network, shape: tuple[int, ...], *, precision: torch.dtype) -> int:
    """Bytes of all tensors that a forward pass of an input of `shape` keeps for the backward pass."""
    device = next(model.parameters()).device
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own graph held with its history would never be freed

    half = torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
    with half, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(torch.zeros(shape, device=device))  # alive while the tensors are counted, so none is reused
    total = sum(seen.values())
    del outputs
    return total
