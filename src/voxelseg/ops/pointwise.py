"""Pointwise (kernel 1) convolutions."""

import torch.nn.functional as F
from torch import Tensor

from voxelseg.ops.dispatch import fast_on_cpu


def pointwise_conv_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Slow twin of `pointwise_conv`: PyTorch's convolution of kernel 1."""
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    return conv(x, weight, bias)


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear map over the channels of (B, C, *space) with `weight` (C_out, C, 1, ...).

    On the CPU one matrix product over the channels-last voxels, 3 times as fast as the convolution there; the result is
    channels-last.
    """
    if not fast_on_cpu(x, weight):
        return pointwise_conv_plain(x, weight, bias)
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


def pointwise_head(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`pointwise_conv` to few channels, with the channels first in memory, as losses and argmax read them."""
    if not fast_on_cpu(x, weight):
        return pointwise_conv_plain(x, weight, bias)
    voxels = x.movedim(1, -1).flatten(1, -2)  # (B, D*H*W, C)
    logits = weight.flatten(1) @ voxels.transpose(1, 2)
    if bias is not None:
        logits.add_(bias.unsqueeze(1))
    return logits.view(x.shape[0], -1, *x.shape[2:])
