"""Normalisations of (B, C, *space) tensors."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import fast_on_cpu

TILE_VALUES = 2**19  # values per tile: 2 MB stay in the caches of two cores, and the threads meet seldom


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1 over space, then scaled and shifted.

    The same as group normalisation with as many groups as channels.
    """
    return F.group_norm(x, x.shape[1], weight, bias, eps)


def instance_norm_leaky_relu_plain(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, slope: float) -> Tensor:
    """Slow twin of `instance_norm_leaky_relu`: one operation after the other."""
    return F.leaky_relu(instance_norm(x, weight, bias, eps=eps), slope)


def instance_norm_leaky_relu(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, slope: float) -> Tensor:
    """Instance norm with affine, then leaky ReLU of that negative slope (positive), for x (B, C, *space).

    The fast form on the CPU is for channels-last volumes, in which PyTorch's own instance norm takes five times as long
    backwards. Differentiable once, and not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, weight):
        return instance_norm_leaky_relu_plain(x, weight, bias, eps=eps, slope=slope)
    rows: Tensor = _NormLeakyReLU.apply(as_rows(x), weight, bias, eps, slope)  # type: ignore[no-untyped-call]
    return rows.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


def as_rows(x: Tensor) -> Tensor:
    """(B, C, *space) as (B, N, C), one row per voxel: a view of channels-last memory, a copy of any other."""
    return x.movedim(1, -1).flatten(1, -2)


def tiles(values_per_row: int, *rows: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Sample number, and the views of each (B, N, C) tensor on the same rows; about TILE_VALUES values per tile."""
    length = max(TILE_VALUES // values_per_row, 1)
    for sample, whole in enumerate(zip(*rows, strict=True)):
        for views in zip(*(tensor.split(length) for tensor in whole), strict=True):
            yield sample, views


def moments(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (B, C) of rows (B, N, C); sums of tiles are added in double precision."""
    total = rows.new_zeros(rows.shape[0], rows.shape[2], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for sample, (values,) in tiles(rows.shape[2], rows):
        total[sample] += values.sum(0)
        squares[sample] += (values * values).sum(0)
    mean = total / rows.shape[1]
    variance = (squares / rows.shape[1] - mean * mean).clamp_min_(0)
    return mean.to(rows.dtype), (variance + eps).rsqrt().to(rows.dtype)


class _NormLeakyReLU(torch.autograd.Function):
    """Rows are (B, N, C)."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        mean, inverse_std = moments(rows, eps)
        scale = inverse_std * weight
        shift = bias - mean * scale
        out = torch.empty_like(rows)
        for sample, (values, result) in tiles(rows.shape[2], rows, out):
            torch.addcmul(shift[sample], values, scale[sample], out=result)
            F.leaky_relu(result, slope, inplace=True)
        ctx.save_for_backward(rows, weight, mean, inverse_std, out)
        ctx.slope = slope  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, inverse_std, out = ctx.saved_tensors
        grad = grad.contiguous()
        shift = -mean * inverse_std
        grad_normed = torch.empty_like(rows)
        sums, products = torch.zeros_like(mean), torch.zeros_like(mean)  # over rows: of the gradient, and times x_hat
        for sample, (values, result, grad_result, piece) in tiles(rows.shape[2], rows, out, grad, grad_normed):
            # The output has the sign of the normalised value, so it serves as the leaky ReLU's own input.
            torch.ops.aten.leaky_relu_backward(grad_result, result, ctx.slope, True, grad_input=piece)
            sums[sample] += piece.sum(0)
            x_hat = torch.addcmul(shift[sample], values, inverse_std[sample])
            products[sample] += x_hat.mul_(piece).sum(0)
        scale = inverse_std * weight
        slope = -scale * inverse_std * products / rows.shape[1]
        offset = -scale * sums / rows.shape[1] - slope * mean
        for sample, (values, piece) in tiles(rows.shape[2], rows, grad_normed):
            piece.mul_(scale[sample]).add_(torch.addcmul(offset[sample], values, slope[sample]))
        return grad_normed, products.sum(0), sums.sum(0), None, None


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
