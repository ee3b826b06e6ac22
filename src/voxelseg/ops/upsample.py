"""Joining an upsampled branch to a skip connection."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import plain_forms_wanted


def add_upsampled_plain(skip: Tensor, branch: Tensor, residual: Tensor | None) -> Tensor:
    """Slow twin of `add_upsampled`: zero-pads and spreads both summands to the size of the skip, as the authors do."""
    out = skip + F.pad(branch, (1, 0) * (skip.ndim - 2))
    if residual is not None:
        one = residual.new_ones(residual.shape[1], 1, *(1,) * (skip.ndim - 2))
        spread = F.conv_transpose3d if skip.ndim == 5 else F.conv_transpose2d
        out = out + F.pad(spread(residual, one, stride=2, groups=residual.shape[1]), (1, 0) * (skip.ndim - 2))
    return out


def add_upsampled(skip: Tensor, branch: Tensor, residual: Tensor | None) -> Tensor:
    """`skip` with `branch` added from index 1 on, and `residual` at every odd index, of each spatial axis.

    skip (B, C, 2D, 2H, 2W), branch (B, C, 2D-1, 2H-1, 2W-1), residual (B, C, D, H, W); or the same in 2-D. Writes the
    sum once instead of making two padded tensors, on any device; compilers and exporters get the plain form.
    Differentiable once, and not by torch.func (vmap, jvp, grad).
    """
    if plain_forms_wanted():
        return add_upsampled_plain(skip, branch, residual)
    out: Tensor = _AddUpsampled.apply(skip, branch, residual)  # type: ignore[no-untyped-call]
    return out


class _AddUpsampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, skip: Tensor, branch: Tensor, residual: Tensor | None) -> Tensor:
        out = skip.clone()
        _from_one(out).add_(branch)
        if residual is not None:
            _odd(out).add_(residual)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, _from_one(grad), _odd(grad) if ctx.needs_input_grad[2] else None


def _from_one(x: Tensor) -> Tensor:
    return x[..., 1:, 1:, 1:] if x.ndim == 5 else x[..., 1:, 1:]


def _odd(x: Tensor) -> Tensor:
    return x[..., 1::2, 1::2, 1::2] if x.ndim == 5 else x[..., 1::2, 1::2]
