"""Moving the active kernels of sparse layers during training (dynamic sparse feature fusion of E2ENet, Algorithm 1).

From time to time the weakest active kernels of each layer become inactive, and as many inactive ones active. The layers
are those with a mask, whatever the network: see `voxelseg.nets.kernel_masks`.

Unlike in the authors' code (github.com/boqian333/E2ENet-Medical), the number of active kernels never changes: where
several kernels are equally weak, theirs removes all of them but adds only the number asked for. As in theirs, and
unlike in Algorithm 1, what becomes active is chosen after the removal, so that a kernel may come back at once, and it
starts from zero; the step in which kernels move is a training step like all others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import (
    add_masks,
    copy_masks,
    gradient_strength,
    mask_gradients,
    mask_weights,
    sparse_weights,
)

UPDATES_PER_TRAINING = 250_000 / 1200
"""The paper's: every 1200 of 250,000 steps."""
LEAST_STEPS = 100
"""Between two updates that follow from the length of the training: a kernel starts from zero and must learn before it
is judged again. Half of the paper's interval cost it 0.1 % Dice, one and a half times as much 0.2 % (Table 5)."""
_ROUNDING = 1e-6
"""Of the progress, which is a quotient, in intervals between updates: far less than a step is of one."""


class SparseConfig(BaseModel):
    """Layers of which only some kernels are active, and how these move; the defaults are E2ENet's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the kernels that are inactive in each sparse layer. None: the network's own option decides."""
    layers: tuple[str, ...] = ()
    """Convolutions to make sparse, as patterns of names such as "decoder*", in networks that name none themselves."""
    growth: Literal["random", "gradient"] = "random"
    """Which inactive kernels become active: drawn ones, or those with the largest gradients."""
    freeze_topology: bool = False
    """Whether the active kernels stay as they are: static masks, or those of the network that training starts from."""
    update_every: Annotated[int, Field(gt=0)] | None = None
    """Steps between two moves. None: 0.48 % of the training, 1200 of 250,000 steps as published, and at least 100."""
    initial_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the active kernels of a layer that move at the beginning; it falls as half a cosine."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    """The same at the end: the authors' code; 0 in the paper."""
    mask_gradients: bool = False
    """Whether gradients are clipped after those of inactive kernels are left out; in the authors' code they count."""

    @model_validator(mode="after")
    def _possible(self) -> "SparseConfig":
        if self.final_rate > self.initial_rate:
            raise ValueError(f"final_rate {self.final_rate:g} is above initial_rate {self.initial_rate:g}")
        if self.freeze_topology and (idle := self.set_keys() & _MOVING):
            raise ValueError(f"{', '.join(sorted(idle))}: nothing moves with freeze_topology. Leave one out")
        return self

    def set_keys(self) -> set[str]:
        """Keys whose values are not the defaults."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}


_MOVING = {"growth", "update_every", "initial_rate", "final_rate"}
"""Keys that say how kernels move."""


def sparsity_option(config: SparseConfig, model: Mapping[str, Any]) -> dict[str, Any]:
    """The option of a network that has one for its sparsity, if `config` sets it; `model` are the user's options."""
    if config.sparsity is None:
        return {}
    if model.get("sparsity", config.sparsity) != config.sparsity:
        raise ConfigError(
            f"sparse.sparsity={config.sparsity} and model.sparsity={model['sparsity']} are the same setting. Give one."
        )
    return {"sparsity": config.sparsity}


def make_sparse(network: Network, config: SparseConfig) -> None:
    """Give `network` the masks that `config` asks for, drawn from PyTorch's global generator.

    ConfigError if a key can have no effect: for a network without sparse layers, or for one that names its own.
    """
    own, name = network.sparse_layers(), type(network).__name__
    if config.layers and own:
        raise ConfigError(f"sparse.layers: {name} names its sparse layers itself. Leave it out.")
    if config.layers:
        if not config.sparsity:
            raise ConfigError("sparse.layers needs the share of inactive kernels, as in sparse.sparsity=0.8.")
        add_masks(network, chosen_layers(network, config.layers), config.sparsity)
    elif idle := _idle_keys(network, config):
        keys = ", ".join(f"sparse.{key}" for key in sorted(idle))
        raise ConfigError(
            f"{keys}: this {name} has no sparse layers, so nothing would change. Name some of its convolutions "
            "with sparse.layers and their sparse.sparsity, choose a network that has them, such as e2enet, or leave "
            "it out."
        )


def _idle_keys(network: Network, config: SparseConfig) -> set[str]:
    """Keys that change nothing, since all kernels of `network` are active."""
    if network.sparse_layers():
        return set()
    has_option = bool(sparse_weights(network))  # it is dense by that very option
    return config.set_keys() - ({"sparsity"} if has_option else set())


def chosen_layers(network: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Names of the convolutions that match a pattern; ConfigError for a pattern that none matches."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    names = [name for name, layer in network.named_modules() if isinstance(layer, kinds)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"sparse.layers: no convolution is called {pattern!r}{did_you_mean(pattern, names)}. "
                f"There are {', '.join(names)}."
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def death_rate(progress: float, *, initial: float = 0.5, final: float = 0.001) -> float:
    """Share of the active kernels to be moved when the share `progress` of the training is done: half a cosine.

    From `initial` to `final`. The paper's f_decay ends at 0; 0.001 is the authors' code.
    """
    return final + (initial - final) / 2 * (1 + math.cos(math.pi * progress))


def weakest_kernels(weight: Tensor, mask: Tensor, number: int) -> Tensor:
    """Mask of the `number` active kernels whose weights have the smallest sum of absolute values.

    `weight` (A, B, taps ...), `mask` (A, B). Among equally weak kernels the first in the order of memory are taken, so
    that the number is exact; ValueError if fewer are active.
    """
    places = mask.flatten().nonzero().squeeze(1)
    if number > len(places):
        raise ValueError(f"{number} of {len(places)} active kernels cannot be removed.")
    strength = weight.detach().abs().flatten(2).sum(2).flatten()
    order = torch.argsort(strength[places], stable=True)
    return _mask_of(places[order[:number]], mask)


def random_kernels(mask: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Mask of `number` kernels drawn uniformly from the inactive ones; ValueError if there are fewer.

    `generator` is one of the CPU, wherever `mask` lies, so that the same is drawn on any device.
    """
    places = _inactive(mask, number)
    drawn = torch.randperm(len(places), generator=generator)[:number]
    return _mask_of(places[drawn.to(places.device)], mask)


def strongest_kernels(strength: Tensor, mask: Tensor, number: int) -> Tensor:
    """Mask of the `number` inactive kernels with the largest `strength` (A, B); ValueError if there are fewer.

    Among equally strong ones the first in the order of memory are taken.
    """
    places = _inactive(mask, number)
    order = torch.argsort(strength.flatten()[places], stable=True, descending=True)
    return _mask_of(places[order[:number]], mask)


def _inactive(mask: Tensor, number: int) -> Tensor:
    places = (~mask).flatten().nonzero().squeeze(1)
    if number > len(places):
        raise ValueError(f"{number} of {len(places)} inactive kernels cannot become active.")
    return places


def _mask_of(places: Tensor, like: Tensor) -> Tensor:
    chosen = torch.zeros_like(like)
    chosen.view(-1)[places] = True
    return chosen


@torch.no_grad()
def move_kernels(
    network: nn.Module,
    rate: float,
    generator: torch.Generator,
    optimizer: Optimizer | None = None,
    *,
    strengths: Mapping[str, Tensor] | None = None,
    averaged: nn.Module | None = None,
) -> dict[str, int]:
    """Move the share `rate` of the active kernels of every sparse layer, rounded up; returns how many, by layer.

    Changes the masks in place, sets the weights of what was removed or chosen to zero, and what `optimizer` remembers
    of them. `rate` is at most 1. What becomes active is drawn, or if `strengths` (A, B) are given by layer, has the
    largest. `averaged` holds averages of the weights, and gets the same masks and zeros. Layers that are not trained,
    and those that have no inactive kernel or no strengths, are left alone.
    """
    moved: dict[str, int] = {}
    for name, (weight, mask) in sparse_weights(network).items():
        learns = weight.requires_grad and (strengths is None or name in strengths)
        if learns and not mask.all():
            moved[name] = math.ceil(rate * int(mask.sum()))
            mask &= ~weakest_kernels(weight, mask, moved[name])
    mask_weights(network, optimizer)  # before the choice: a kernel that comes back starts from zero, too
    if averaged is not None:
        copy_masks(network, averaged)
        mask_weights(averaged)
    for name, (_, mask) in sparse_weights(network).items():
        if name in moved:
            mask |= (
                random_kernels(mask, moved[name], generator)
                if strengths is None
                else strongest_kernels(strengths[name], mask, moved[name])
            )
    if averaged is not None:
        copy_masks(network, averaged)
    return moved


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
        strengths = self._gradient_strengths()
        if strengths is not None and not all(bool(one.isfinite().all()) for one in strengths.values()):
            return None  # loss scaling skipped the step: the next one decides
        rate = death_rate(progress, initial=self.config.initial_rate, final=self.config.final_rate)
        moved = move_kernels(self.network, rate, self.generator, optimizer, strengths=strengths, averaged=self.averaged)
        self._last_update, self._interval = self.steps, interval
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
