"""One step of the optimizer: gradients of its batches, clipping, the new weights, their masks, their average."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxelseg.errors import ConfigError
from voxelseg.nets.kernel_masks import is_sparse
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.objective import Model, Objective
from voxelseg.train.loop.optimizer import build_optimizer
from voxelseg.train.loop.precision import training_precision
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.sparse.settings import SparseConfig
from voxelseg.train.sparse.topology import Topology, TopologyUpdate
from voxelseg.train.start.transfer import TransferConfig


class Stepper(Generic[Model]):
    """What a step changes, and the three parts of a step: `gradients`, `update`, and after it is counted, `finish`.

    The order is that of E2ENet's authors: gradients of all batches; clipping of all of them together, those of inactive
    kernels too; the optimizer; zeros in weights and momentum of inactive kernels; the count; other kernels if that is
    due. Where loss scaling in float16 skips the optimizer, all else goes on.
    """

    def __init__(
        self,
        model: Model,
        config: LoopConfig,
        objective: Objective[Model],
        *,
        transfer: TransferConfig,
        sparse: SparseConfig,
        seed: int,
        processes: Processes,
    ) -> None:
        """`model` lies on the device of `processes`. ConfigError for settings that device or network cannot have."""
        self.model = model
        self.config = config
        self.objective = objective
        self.processes = processes
        self.device = processes.device
        self.precision = training_precision(config, self.device)
        self.parts: list[Mapping[str, Tensor]] = []
        """Parts of the loss of each batch of the last step, as scalars."""
        self.optimizer = build_optimizer(model, config, transfer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.averaged = copy.deepcopy(model) if config.ema else None
        network = objective.network(model)
        averaged = None if self.averaged is None else objective.network(self.averaged)
        self.topology = Topology(network, sparse, seed=seed, averaged=averaged) if is_sparse(network) else None
        self._wrapped = processes.wrap(model)
        self._forward = torch.compile(self._wrapped) if config.compile else self._wrapped

    @property
    def result(self) -> Model:
        """The model to use: the average of the weights if one is kept."""
        return self.model if self.averaged is None else self.averaged

    def gradients(self, batches: Sequence[Any]) -> tuple[float, float]:
        """Mean loss of all processes' `batches`, and the norm of their averaged gradients before these were clipped."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.parts = []
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            with nullcontext() if number == len(batches) else self.processes.alone_for_now(self._wrapped):
                loss = self.objective(self._outputs, moved(batch, self.device))
                self.parts.append(self.objective.parts)
                share = loss / len(batches)
                self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        self.scaler.unscale_(self.optimizer)
        if self.topology is not None:
            self.topology.before_clip()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip or math.inf)
        own_loss, own_norm = torch.stack([total, norm]).tolist()  # together: a GPU is waited for once
        return self.processes.mean(own_loss), own_norm

    def _outputs(self, inputs: Any) -> Any:
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            if not self.config.compile:
                return self._forward(inputs)
            from torch._dynamo.exc import TorchDynamoException  # torch names its errors nowhere else

            try:
                return self._forward(inputs)
            except TorchDynamoException as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise ConfigError(
                    f"train.compile: torch.compile fails here ({reason}). It needs a C++ compiler, such as g++, and on "
                    "a GPU triton. Train into another --out without it."
                ) from error

    def worst_parts(self) -> dict[str, float]:
        """Parts of the loss of the last step's first batch that has one that is not finite, or of its first batch."""
        parts = [{name: float(value) for name, value in one.items()} for one in self.parts]
        return next((one for one in parts if not all(map(math.isfinite, one.values()))), parts[0])

    def statistics_are_finite(self) -> bool:
        """Whether a forward pass that overflowed has left the running statistics of all batch norms numbers."""
        norms = [layer for layer in self.model.modules() if isinstance(layer, _BatchNorm)]
        return all(bool(buffer.isfinite().all()) for norm in norms for buffer in norm.buffers())

    def update(self, rate: float) -> None:
        """Change the weights by the gradients, with the learning rate `rate` times the factor of each group."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        self.scaler.step(self.optimizer)  # skipped in float16 if a gradient is not finite
        self.scaler.update()

    def finish(self, *, step: int, progress: float) -> TopologyUpdate | None:
        """Mask the weights, move kernels if that is due, and take the weights into their average.

        `step` is the number of steps done, `progress` the share of the training, this one included in both. Returns
        what moved.
        """
        moved = None if self.topology is None else self.topology.after_step(progress, self.optimizer)
        self._average(step)
        return moved

    @torch.no_grad()
    def _average(self, step: int) -> None:
        if self.averaged is None:
            return
        decay = min(self.config.ema, step / (9 + step))  # the first steps are soon forgotten
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)
        for average, current in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            average.copy_(current)

    def state(self) -> dict[str, Any]:
        """What must be saved to continue."""
        return {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "topology": None if self.topology is None else self.topology.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty unless it was saved by a training in float16
            self.scaler.load_state_dict(state["scaler"])
        if self.topology is not None:
            self.topology.restore(state["topology"])


def moved(batch: Any, device: torch.device) -> Any:
    """`batch`, a tensor or nested tuples, lists and dictionaries of them, on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: moved(part, device) for name, part in batch.items()}
    return [moved(part, device) for part in batch]
