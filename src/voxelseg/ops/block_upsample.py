"""Transposed convolutions whose kernel is as large as their stride: every voxel becomes a block of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelseg.ops.dispatch import fast_on_cpu

_MANY_CHANNELS = 32
"""Of the output. The matrix product takes 1.3 of oneDNN's time for 48, forward alone, and half of it for 8."""


def block_upsample_plain(x: Tensor, weight: Tensor) -> Tensor:
    """Slow twin of `block_upsample`: PyTorch's transposed convolution."""
    return F.conv_transpose3d(x, weight, stride=weight.shape[2:])


def block_upsample(x: Tensor, weight: Tensor) -> Tensor:
    """Transposed convolution of (B, C, D, H, W) with `weight` (C, C_out, a, b, c) and stride (a, b, c), without bias.

    Returns (B, C_out, a*D, b*H, c*W). The fast form on the CPU is one matrix product, whose gradients are two more.
    Without gradients, and with many channels, oneDNN's transposed convolution is the faster one.
    """
    many = weight.shape[1] >= _MANY_CHANNELS and not torch.is_grad_enabled()
    if not fast_on_cpu(x, weight) or many:
        return block_upsample_plain(x, weight)
    batch, channels, depth, height, width = x.shape
    out_channels, a, b, c = weight.shape[1:]
    rows = x.movedim(1, -1).reshape(-1, channels) @ weight.movedim(1, -1).reshape(channels, -1)
    blocks = rows.view(batch, depth, height, width, a, b, c, out_channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return blocks.reshape(batch, depth * a, height * b, width * c, out_channels).movedim(-1, 1)
