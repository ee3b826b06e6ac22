"""Depthwise convolutions: one filter per channel."""

import torch.nn.functional as F
from torch import Tensor


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Depthwise convolution of (B, C, *space) with odd `weight` (C, 1, k, ...), zero-padded by k // 2."""
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    return conv(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


def depthwise_conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise transposed convolution of stride 2: n voxels become 2n - 1; odd `weight` (C, 1, k, ...)."""
    conv = F.conv_transpose3d if x.ndim == 5 else F.conv_transpose2d
    return conv(x, weight, bias, stride=2, padding=weight.shape[-1] // 2, groups=x.shape[1])
