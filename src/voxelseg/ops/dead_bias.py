"""Biases that have no effect, since a norm over space follows and removes any constant of a channel."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def with_zero_gradient(y: Tensor, bias: Tensor) -> Tensor:
    """`y`, made to depend on `bias`: training on several machines waits for the gradient of every parameter."""
    if not (torch.is_grad_enabled() and bias.requires_grad):
        return y
    same: Tensor = _ZeroGradient.apply(y, bias)  # type: ignore[no-untyped-call]
    return same


class _ZeroGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, torch.zeros_like(ctx.saved_tensors[0])
