"""Joining an upsampled branch to a skip connection."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import plain_forms_wanted


def add_upsampled_plain(
    skip: Tensor, branch: Tensor, residual: Tensor | None, *, stride: int | Sequence[int] = 2
) -> Tensor:
    """Slow twin of `add_upsampled`: zero-pads and spreads both summands to the size of the skip, as the authors do."""
    steps = _per_axis(stride, skip.ndim - 2)
    front = [pad for step in reversed(steps) for pad in (step - 1, 0)]
    out = skip + F.pad(branch, front)
    if residual is not None:
        one = residual.new_ones(residual.shape[1], 1, *(1,) * len(steps))
        spread: Any = F.conv_transpose3d if skip.ndim == 5 else F.conv_transpose2d
        out = out + F.pad(spread(residual, one, stride=steps, groups=residual.shape[1]), front)
    return out


def add_upsampled(skip: Tensor, branch: Tensor, residual: Tensor | None, *, stride: int | Sequence[int] = 2) -> Tensor:
    """`skip` with `branch` added from index 1 on, and `residual` at every odd index, of each axis of stride 2.

    With stride 2, skip (B, C, 2D, 2H, 2W), branch (B, C, 2D-1, 2H-1, 2W-1), residual (B, C, D, H, W); or the same in
    2-D. Along an axis of stride 1 all three have the same size and are added index by index. Writes the sum once
    instead of making two padded tensors, on any device; compilers and exporters get the plain form. Differentiable
    once, and not by torch.func (vmap, jvp, grad).
    """
    if plain_forms_wanted():
        return add_upsampled_plain(skip, branch, residual, stride=stride)
    out: Tensor = _AddUpsampled.apply(skip, branch, residual, _per_axis(stride, skip.ndim - 2))  # type: ignore[no-untyped-call]
    return out


class _AddUpsampled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, skip: Tensor, branch: Tensor, residual: Tensor | None, steps: tuple[int, ...]
    ) -> Tensor:
        ctx.steps = steps  # type: ignore[attr-defined]
        out = skip.clone()
        out[_from_one(steps)].add_(branch)
        if residual is not None:
            out[_odd(steps)].add_(residual)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, grad[_from_one(ctx.steps)], grad[_odd(ctx.steps)] if ctx.needs_input_grad[2] else None, None


def _per_axis(stride: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (stride,) * dims if isinstance(stride, int) else tuple(stride)


def _from_one(steps: tuple[int, ...]) -> tuple[Any, ...]:
    return (..., *(slice(step - 1, None) for step in steps))


def _odd(steps: tuple[int, ...]) -> tuple[Any, ...]:
    return (..., *(slice(step - 1, None, step) for step in steps))
