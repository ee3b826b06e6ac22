"""Joining an upsampled branch to a skip connection."""

import torch.nn.functional as F
from torch import Tensor


def add_upsampled(skip: Tensor, branch: Tensor, residual: Tensor | None) -> Tensor:
    """`skip` with `branch` added from index 1 on, and `residual` at every odd index, of each spatial axis.

    skip (B, C, 2D, 2H, 2W), branch (B, C, 2D-1, 2H-1, 2W-1), residual (B, C, D, H, W).
    """
    dims = skip.ndim - 2
    out = skip + F.pad(branch, (1, 0) * dims)
    if residual is not None:
        spread = residual.new_zeros(skip.shape)
        odd = spread[..., 1::2, 1::2, 1::2] if dims == 3 else spread[..., 1::2, 1::2]
        odd.copy_(residual)
        out = out + spread
    return out
