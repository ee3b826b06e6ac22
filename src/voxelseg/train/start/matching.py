"""Which tensors of a network come from weights that are there, and in what form.

Every tensor is looked up by its name. Which tensors belong to the heads, to the input or to the kernels is asked of the
network itself: they are those whose shapes change with its classes, its channels or its kernel size.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import MASK
from voxelseg.train.start.outcomes import OUTCOMES
from voxelseg.train.start.upkern import interpolate_kernel

CHANNELS, KERNELS, LARGER_KERNELS = "channels", "kernels", "larger kernels"
"""Why a tensor may be refused: other input channels, smaller and larger kernels."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """What became of every tensor."""

    taken: dict[str, Tensor] = field(default_factory=dict)
    """New values, by name."""
    outcomes: dict[str, list[str]] = field(default_factory=lambda: {outcome: [] for outcome in OUTCOMES})
    """Names by key of `OUTCOMES`."""
    refused: dict[str, list[str]] = field(default_factory=lambda: {CHANNELS: [], KERNELS: [], LARGER_KERNELS: []})
    """Names of tensors that only an option would let through, or none, by the reason."""
    share: float
    """Of the network's weights without its heads that has new values; of those that were pre-trained, if not all."""


def match_tensors(
    network: Network,
    weights: Mapping[str, Tensor],
    *,
    heads_fit: bool,
    average: bool,
    grow: bool,
    part: Collection[str] | None = None,
) -> Matches:
    """New values for the tensors of `network` from `weights`, under the same names; `network` stays as it is.

    Heads start fresh unless they have the same shape and `heads_fit`. `average` lets input channels be averaged and
    `grow` lets kernels be interpolated to a larger size. `part` has the names of the tensors that `weights` are meant
    to be of, if not all: only these are missed, and count in the share.
    """
    own = network.state_dict()
    matcher = _Matcher(network, heads_fit=heads_fit, average=average, grow=grow, part=part)
    found = {name: matcher.match(name, weights.get(name), target) for name, target in own.items()}
    taken = {name: value for name, (_, value) in found.items() if value is not None}
    body = {
        name: target.numel()
        for name, target in own.items()
        if name not in matcher.heads and not is_mask(name) and (part is None or name in part)
    }
    share = sum(count for name, count in body.items() if name in taken) / max(sum(body.values()), 1)
    matches = Matches(taken=taken, share=share)
    for name, (outcome, _) in found.items():
        (matches.refused if outcome in matches.refused else matches.outcomes)[outcome].append(name)
    matches.outcomes["left_out"] += [name for name in weights if name not in own]
    return matches


class _Matcher:
    """Decides for one tensor after the other what becomes of it."""

    def __init__(
        self, network: Network, *, heads_fit: bool, average: bool, grow: bool, part: Collection[str] | None
    ) -> None:
        self.part = part
        self.heads_fit = heads_fit
        self.average = average
        self.grow = grow
        depending = _depending_tensors(network)
        self.heads = depending["num_classes"] | _batch_counts(depending["num_classes"])
        self.inputs = depending["in_channels"]
        self.kernels = depending["kernel_size"]

    def match(self, name: str, value: Tensor | None, target: Tensor) -> tuple[str, Tensor | None]:
        """The outcome, and the new value if there is one, for the tensor `name` with the shape of `target`."""
        if name in self.heads and (value is None or value.shape != target.shape or not self.heads_fit):
            return "fresh_heads", None
        if value is None:
            return "missing" if self.part is None or name in self.part else "untrained", None
        outcome = "matched"
        if name in self.inputs and value.ndim == target.ndim > 2 and value.shape[1] != target.shape[1]:
            if not self.average:
                return CHANNELS, None
            outcome, value = "averaged", average_channels(value, target.shape[1])
        if name in self.kernels and value.shape[:2] == target.shape[:2] and value.shape != target.shape:
            if any(there > here for there, here in zip(value.shape, target.shape, strict=True)):
                return LARGER_KERNELS, None
            if not self.grow:
                return KERNELS, None
            outcome, value = "grown", interpolate_kernel(value, target.shape[2:])
        return (outcome, value) if value.shape == target.shape else ("mismatched", None)


def average_channels(weight: Tensor, channels: int) -> Tensor:
    """Weight (O, `channels`, taps ...) of a convolution from one for another number of input channels.

    Each channel gets the mean over the given ones, scaled so that equal channels give the response that they gave.
    """
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / channels)
    return mean.expand(-1, channels, *weight.shape[2:]).contiguous()


def _batch_counts(tensors: Collection[str]) -> set[str]:
    """What those batch norms count batches by whose statistics are among `tensors`: its shape depends on nothing."""
    means = (name.rpartition(".") for name in tensors)
    return {f"{layer}.num_batches_tracked" for layer, _, tensor in means if tensor == "running_mean"}


def _depending_tensors(network: Network) -> dict[str, set[str]]:
    """For the numbers of classes and channels and the kernel size: names of the tensors whose shapes change with them.

    Asked of the network with the heads of deep supervision, which may be in the file. No names for an option that the
    network does not have.
    """
    config: Any = network.config
    known = {field.name for field in fields(config)}
    full = replace(config, deep_supervision=True) if "deep_supervision" in known else config
    shapes = _shapes(type(network), full)
    found: dict[str, set[str]] = {}
    for option in ("num_classes", "in_channels", "kernel_size"):
        changed = {option: _changed(getattr(full, option))} if option in known else {}
        others = _shapes(type(network), replace(full, **changed))
        found[option] = {name for name, shape in shapes.items() if name in others and others[name] != shape}
    return found


def _shapes(network: Any, config: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in network(config).state_dict().items()}


def _changed(value: Any) -> Any:
    """Another number of channels or classes, or another odd size of kernels, along every axis and level."""
    return tuple(map(_changed, value)) if isinstance(value, tuple | list) else value + 2


def is_mask(name: str) -> bool:
    """Whether a tensor says which kernels of a sparse layer are active."""
    return name.rpartition(".")[2] == MASK
