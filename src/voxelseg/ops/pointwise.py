"""Pointwise (kernel 1) convolutions."""

import torch.nn.functional as F
from torch import Tensor


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear map over the channels of (B, C, *space) with `weight` (C_out, C, 1, ...)."""
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    return conv(x, weight, bias)
