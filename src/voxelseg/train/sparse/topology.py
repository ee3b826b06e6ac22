"""The active kernels over a training: kept, moved from time to time, counted, saved (E2ENet, Algorithm 1).

From time to time the weakest active kernels of each sparse layer become inactive, and as many inactive ones active
(dynamic sparse feature fusion). Unlike in Algorithm 1, as in the authors' code, the step in which kernels move is a
training step like all others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import gradient_strength, mask_gradients, mask_weights, sparse_weights
from voxelseg.train.sparse.kernel_moves import death_rate, move_kernels
from voxelseg.train.sparse.settings import SparseConfig

UPDATES_PER_TRAINING = 250_000 / 1200
"""The paper's: every 1200 of 250,000 steps."""
LEAST_STEPS = 100
"""Between two updates that follow from the length of the training: a kernel starts from zero and must learn before it
is judged again. Half of the paper's interval cost it 0.1 % Dice, one and a half times as much 0.2 % (Table 5)."""
_ROUNDING = 1e-6
"""Of the progress, which is a quotient, in intervals between updates: far less than a step is of one."""


@dataclass(frozen=True, kw_only=True)
class TopologyUpdate:
    """The active kernels at a moment of the training: what the log holds of them."""

    step: int
    """Training steps done."""
    update: int
    """How many times kernels have moved."""
    rate: float
    """Share of the active kernels that moved now; 0 if none did."""
    moved: int
    """How many these were."""
    layers: dict[str, tuple[int, int]]
    """Active kernels of each sparse layer, and all that it has."""
    nodes: dict[str, dict[str, tuple[int, int]]]
    """The same by fusion node and by the direction that their input comes from."""


class Topology:
    """Keeps the inactive kernels of a network at zero while it is trained, and moves the active ones."""

    def __init__(self, network: Network, config: SparseConfig, *, seed: int, averaged: Network | None = None) -> None:
        """`network` has sparse layers and lies where it is trained; `averaged` holds averages of its weights."""
        self.network = network
        self.averaged = averaged
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        """All that were done, also those that loss scaling skipped."""
        self.updates = 0
        self._last_update = 0
        self._interval = 0
        self._strengths: dict[str, Tensor] = {}
        for each in (network, averaged):
            if each is not None:
                mask_weights(each)  # weights may have come from a dense network

    def before_clip(self) -> None:
        """To be called when all gradients of a step are there: leaves out those of inactive kernels if asked for."""
        if not self.config.mask_gradients:
            return
        if self.config.growth == "gradient":
            self._strengths = gradient_strength(self.network)
        mask_gradients(self.network)

    def after_step(self, progress: float, optimizer: Optimizer) -> TopologyUpdate | None:
        """To be called after each step of `optimizer`, skipped ones too, while its gradients are still there.

        Sets weights and momentum of inactive kernels to zero, and moves the active ones if that is due. `progress` is
        the share of the training that is done, this step included. Returns what moved, if anything did.
        """
        self.steps += 1
        mask_weights(self.network, optimizer)
        interval, due = self._due(progress)
        if not due:
            return None
        if self.config.growth == "gradient" and not self._has_finite_gradients():
            return None  # loss scaling skipped the step: the next one decides
        strengths = self._gradient_strengths()
        rate = death_rate(progress, initial=self.config.initial_rate, final=self.config.final_rate)
        moved = move_kernels(self.network, rate, self.generator, optimizer, strengths=strengths, averaged=self.averaged)
        self._last_update, self._interval = self.steps, interval
        if not moved:
            return None  # all sparse layers are frozen
        self.updates += 1
        return self.census(rate=rate, moved=sum(moved.values()))

    def _due(self, progress: float) -> tuple[int, bool]:
        """Number of the interval that the training is in, and whether kernels move now.

        Not after the last step: what would become active could not learn.
        """
        every = self.config.update_every
        interval = int(progress * UPDATES_PER_TRAINING + _ROUNDING) if every is None else self.steps // every
        waited = self.steps - self._last_update
        due = interval > self._interval and waited >= (LEAST_STEPS if every is None else 1)
        return interval, due and progress < 1 and not self.config.freeze_topology

    def _has_finite_gradients(self) -> bool:
        """Of all layers: if one overflowed, clipping has made zeros of all others."""
        gradients = (parameter.grad for parameter in self.network.parameters() if parameter.grad is not None)
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    def _gradient_strengths(self) -> dict[str, Tensor] | None:
        if self.config.growth == "random":
            return None
        return self._strengths if self.config.mask_gradients else gradient_strength(self.network)

    def census(self, *, rate: float = 0.0, moved: int = 0) -> TopologyUpdate:
        """The active kernels as they are now."""
        layers = sparse_weights(self.network)
        return TopologyUpdate(
            step=self.steps,
            update=self.updates,
            rate=rate,
            moved=moved,
            layers={name: _counts(mask) for name, (_, mask) in layers.items()},
            nodes={
                node.name: {
                    direction: _counts(layers[node.layer][1][:, channels.start : channels.stop])
                    for direction, channels in node.sources.items()
                }
                for node in self.network.fusion_nodes()
            },
        )

    def state(self) -> dict[str, Any]:
        """What must be saved to continue, besides the network's weights and masks."""
        return {
            "steps": self.steps,
            "updates": self.updates,
            "last_update": self._last_update,
            "interval": self._interval,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, with the network's weights and masks of that moment."""
        self.steps, self.updates = state["steps"], state["updates"]
        self._last_update, self._interval = state["last_update"], state["interval"]
        self.generator.set_state(state["generator"])


def _counts(mask: Tensor) -> tuple[int, int]:
    """Active kernels and all."""
    return int(mask.sum()), mask.numel()
