"""Moving the active kernels of sparse layers once: which become inactive, and which active in their place.

Unlike in the code of E2ENet's authors (github.com/boqian333/E2ENet-Medical), the number of active kernels never
changes: where several kernels are equally weak, theirs removes all of them but adds only the number asked for. As in
theirs, and unlike in Algorithm 1 of the paper, what becomes active is chosen after the removal, so that a kernel may
come back at once, and it starts from zero.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from voxelseg.nets.kernel_masks import copy_masks, mask_weights, sparse_weights


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
