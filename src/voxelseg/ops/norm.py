"""Normalisations of (B, C, *space) tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1 over space, then scaled and shifted.

    The same as group normalisation with as many groups as channels.
    """
    return F.group_norm(x, x.shape[1], weight, bias, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Each voxel to mean 0 and variance 1 over channels, then scaled and shifted per channel."""
    return F.layer_norm(x.movedim(1, -1), (x.shape[1],), weight, bias, eps).movedim(-1, 1)


def global_response_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Channels scaled by their L2 norm over space relative to the mean of all channels, plus the input.

    `weight`, `bias`: (1, C, 1, ...). Source: Woo et al. 2023, arXiv:2301.00808, Sec. 3.2.
    """
    strength: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(2, x.ndim)), keepdim=True)
    scaled: Tensor = weight * (x * (strength / (strength.mean(dim=1, keepdim=True) + eps)))
    return scaled + bias + x
