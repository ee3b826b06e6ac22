"""Convolutions within the planes of a volume: kernels of one voxel along D."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from voxelseg.ops.dispatch import fast_on_cpu

_FEW_VOXELS = 256
"""Below, the convolution in three dimensions is as fast, or faster, since it does not repack its weights."""


def planar_conv_plain(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Slow twin of `planar_conv`: PyTorch's convolution in three dimensions."""
    return F.conv3d(x, weight, bias, tuple(stride), [size // 2 for size in weight.shape[2:]])


def planar_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Convolution of (B, C, D, H, W) with odd `weight` (C_out, C, k_D, k_H, k_W), zero-padded by k // 2 on each axis.

    The fast form is for k_D = 1 on the CPU: a convolution in two dimensions with the planes as samples, in
    channels-last memory. In three dimensions PyTorch gives a single sample of few channels or voxels to a kernel of
    its own that takes up to 7 times as long (16 channels to 8, 16 x 64 x 64 voxels); anything else takes the same time
    in both forms.
    """
    if weight.shape[2] > 1 or not fast_on_cpu(x, weight) or x[:, 0].numel() < _FEW_VOXELS:
        return planar_conv_plain(x, weight, bias, stride=stride)
    planes = x[:, :, :: stride[0]].movedim(1, -1)  # (B, D, H, W, C)
    padding = [size // 2 for size in weight.shape[3:]]
    y = F.conv2d(planes.flatten(0, 1).movedim(-1, 1), weight.squeeze(2), bias, tuple(stride[1:]), padding)
    return y.movedim(1, -1).view(*planes.shape[:2], *y.shape[2:], -1).movedim(-1, 1)
