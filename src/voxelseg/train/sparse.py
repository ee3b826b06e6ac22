"""Moving the active kernels of sparse layers during training (dynamic sparse feature fusion of E2ENet, Algorithm 1).

From time to time the weakest active kernels of each layer become inactive, and as many inactive ones, drawn at random,
active. The layers are those with a mask, whatever the network: see `voxelseg.nets.kernel_masks`.

Unlike in the authors' code (github.com/boqian333/E2ENet-Medical), the number of active kernels never changes: where
several kernels are equally weak, theirs removes all of them but adds only the number asked for. As in theirs, and
unlike in Algorithm 1, the draw comes after the removal, so that a kernel may come back at once, and it starts from
zero.
"""

import math

import torch
from torch import Tensor, nn

from voxelseg.nets.kernel_masks import mask_weights, sparse_weights


def death_rate(step: int, num_steps: int, *, initial: float = 0.5, final: float = 0.001) -> float:
    """Share of the active kernels to be moved after `step` of `num_steps` training steps: half a cosine.

    From `initial` to `final`. The paper's f_decay ends at 0; 0.001 is the authors' code.
    """
    return final + (initial - final) / 2 * (1 + math.cos(math.pi * step / num_steps))


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
    places = (~mask).flatten().nonzero().squeeze(1)
    if number > len(places):
        raise ValueError(f"{number} of {len(places)} inactive kernels cannot be drawn.")
    drawn = torch.randperm(len(places), generator=generator)[:number]
    return _mask_of(places[drawn.to(places.device)], mask)


@torch.no_grad()
def move_kernels(
    network: nn.Module, rate: float, generator: torch.Generator, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, int]:
    """Move the share `rate` of the active kernels of every sparse layer, rounded up; returns how many, by layer.

    Changes the masks in place, sets the weights of what was removed or drawn to zero, and what `optimizer` remembers of
    them. `rate` is at most 1. A network that holds averages of the weights needs the same masks, and masking.
    """
    moved: dict[str, int] = {}
    for name, (weight, mask) in sparse_weights(network).items():
        moved[name] = math.ceil(rate * int(mask.sum()))
        mask &= ~weakest_kernels(weight, mask, moved[name])
    mask_weights(network, optimizer)  # before the draw: a kernel that comes back starts from zero, too
    for name, (_, mask) in sparse_weights(network).items():
        mask |= random_kernels(mask, moved[name], generator)
    return moved


def _mask_of(places: Tensor, like: Tensor) -> Tensor:
    chosen = torch.zeros_like(like)
    chosen.view(-1)[places] = True
    return chosen
