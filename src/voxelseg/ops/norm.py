"""Normalisations of (B, C, *space) tensors."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import fast_on_cpu

TILE_VALUES = 2**19  # values per tile: 2 MB stay in the caches of two cores, and the threads meet seldom
_ROWS_NEAR_MEAN = 64

FEW_VALUES = 2**15
"""Smaller feature maps are normalised in the plain form and channels-first memory: a tenth to a half of the time of the
fast one, and accurate where two voxels are all that there is, and nearly equal."""


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1 over space, then scaled and shifted where there are weights.

    The same as group normalisation with as many groups as channels.
    """
    return F.group_norm(x, x.shape[1], weight, bias, eps)


def instance_norm_leaky_relu_plain(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, slope: float
) -> Tensor:
    """Slow twin of `instance_norm_leaky_relu`: one operation after the other."""
    return F.leaky_relu(instance_norm(x, weight, bias, eps=eps), slope)


def instance_norm_leaky_relu(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, slope: float
) -> Tensor:
    """Instance norm, with affine or without, then leaky ReLU of that negative slope (positive), for x (B, C, *space).

    The fast form on the CPU is for channels-last volumes, in which PyTorch's own instance norm takes five times as long
    backwards. Differentiable once, and not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, *(() if weight is None else (weight,))):
        return instance_norm_leaky_relu_plain(x, weight, bias, eps=eps, slope=slope)
    if x.numel() < FEW_VALUES:
        return instance_norm_leaky_relu_plain(x.contiguous(), weight, bias, eps=eps, slope=slope)
    rows: Tensor = _NormLeakyReLU.apply(as_rows(x), weight, bias, eps, slope)  # type: ignore[no-untyped-call]
    return rows.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


def instance_norm_add_leaky_relu_plain(
    x: Tensor, residual: Tensor, *, norm_residual: bool, eps: float, slope: float
) -> Tensor:
    """Slow twin of `instance_norm_add_leaky_relu`: one operation after the other."""
    residual = instance_norm(residual, None, None, eps=eps) if norm_residual else residual
    return F.leaky_relu(instance_norm(x, None, None, eps=eps) + residual, slope)


def instance_norm_add_leaky_relu(
    x: Tensor, residual: Tensor, *, norm_residual: bool, eps: float, slope: float
) -> Tensor:
    """Leaky ReLU (of that negative slope, positive) of the sum of `x` and `residual`, both (B, C, *space).

    `x` is instance-normalised without affine before the sum, and with `norm_residual` so is `residual`. The fast form
    on the CPU is for channels-last volumes and makes no tensor but the result. Differentiable once, and not by
    torch.func (vmap, jvp, grad).
    """
    settings: Any = {"norm_residual": norm_residual, "eps": eps, "slope": slope}
    if not fast_on_cpu(x, residual):
        return instance_norm_add_leaky_relu_plain(x, residual, **settings)
    if x.numel() < FEW_VALUES:
        return instance_norm_add_leaky_relu_plain(x.contiguous(), residual.contiguous(), **settings)
    rows: Tensor = _NormAddLeakyReLU.apply(  # type: ignore[no-untyped-call]
        as_rows(x), as_rows(residual), norm_residual, eps, slope
    )
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
    """Mean and inverse standard deviation (B, C) of rows (B, N, C); sums of tiles are added in double precision.

    What is summed are differences from the mean of a few rows: squares of values far from zero would round away a small
    variance (at a mean of 100 standard deviations, 1 % of it).
    """
    num_rows = rows.shape[1]
    near = rows[:, :: max(num_rows // _ROWS_NEAR_MEAN, 1)].mean(1)
    total = torch.zeros_like(near, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for sample, (values,) in tiles(rows.shape[2], rows):
        differences = values - near[sample]
        total[sample] += differences.sum(0)
        squares[sample] += differences.square_().sum(0)
    offset = total / num_rows
    variance = (squares / num_rows - offset * offset).clamp_min_(0)
    return (near + offset).to(rows.dtype), (variance + eps).rsqrt().to(rows.dtype)


class _NormLeakyReLU(torch.autograd.Function):
    """Rows are (B, N, C)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float
    ) -> Tensor:
        mean, inverse_std = moments(rows, eps)
        scale = inverse_std if weight is None else inverse_std * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        out = torch.empty_like(rows)
        for sample, (values, result) in tiles(rows.shape[2], rows, out):
            torch.addcmul(shift[sample], values, scale[sample], out=result)
            F.leaky_relu(result, slope, inplace=True)
        ctx.save_for_backward(rows, weight, mean, inverse_std, out)  # type: ignore[arg-type]
        ctx.slope = slope  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, inverse_std, out = ctx.saved_tensors
        grad_normed, sums, products = _through_leaky_relu(grad, out, ctx.slope, rows, mean, inverse_std)
        _through_norm(grad_normed, rows, mean, inverse_std, weight, sums, products, out=grad_normed)
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        return grad_normed, products.sum(0) if needs_weight else None, sums.sum(0) if needs_bias else None, None, None


class _NormAddLeakyReLU(torch.autograd.Function):
    """Rows are (B, N, C)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, residual: Tensor, norm_residual: bool, eps: float, slope: float
    ) -> Tensor:
        mean, inverse_std = moments(rows, eps)
        shift = -mean * inverse_std
        residual_mean, residual_inverse_std = moments(residual, eps) if norm_residual else (None, None)
        if residual_mean is not None and residual_inverse_std is not None:
            shift -= residual_mean * residual_inverse_std
        out = torch.empty_like(rows)
        for sample, (values, summand, result) in tiles(rows.shape[2], rows, residual, out):
            torch.addcmul(shift[sample], values, inverse_std[sample], out=result)
            if residual_inverse_std is None:
                result += summand
            else:
                result.addcmul_(summand, residual_inverse_std[sample])
            F.leaky_relu(result, slope, inplace=True)
        ctx.save_for_backward(
            rows,
            residual if norm_residual else None,  # type: ignore[arg-type]
            mean,
            inverse_std,
            residual_mean,  # type: ignore[arg-type]
            residual_inverse_std,  # type: ignore[arg-type]
            out,
        )
        ctx.slope = slope  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, residual, mean, inverse_std, residual_mean, residual_inverse_std, out = ctx.saved_tensors
        grad_sum, sums, products = _through_leaky_relu(grad, out, ctx.slope, rows, mean, inverse_std)
        grad_rows = torch.empty_like(rows)
        _through_norm(grad_sum, rows, mean, inverse_std, None, sums, products, out=grad_rows)
        if residual is not None:  # it was normalised too; otherwise the sum's gradient is its own
            products.zero_()
            for sample, (values, piece) in tiles(rows.shape[2], residual, grad_sum):
                products[sample] += _product(piece, values, residual_mean[sample], residual_inverse_std[sample])
            _through_norm(grad_sum, residual, residual_mean, residual_inverse_std, None, sums, products, out=grad_sum)
        return grad_rows, grad_sum, None, None, None


def _through_leaky_relu(
    grad: Tensor, out: Tensor, slope: float, rows: Tensor, mean: Tensor, inverse_std: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (B, N, C) of the leaky ReLU's input; its sums over the rows (B, C), alone and times the normalised rows.

    The output has the sign of the input, so it serves in its place.
    """
    result = torch.empty_like(rows)
    sums, products = torch.zeros_like(mean), torch.zeros_like(mean)
    for sample, (values, signs, grad_out, piece) in tiles(rows.shape[2], rows, out, grad.contiguous(), result):
        torch.ops.aten.leaky_relu_backward(grad_out, signs, slope, True, grad_input=piece)
        sums[sample] += piece.sum(0)
        products[sample] += _product(piece, values, mean[sample], inverse_std[sample])
    return result, sums, products


def _product(grad: Tensor, values: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Sum over the rows of a tile (N, C) of the gradient times the normalised values: (C,)."""
    return torch.addcmul(-mean * inverse_std, values, inverse_std).mul_(grad).sum(0)


def _through_norm(
    grad: Tensor,
    rows: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    products: Tensor,
    *,
    out: Tensor,
) -> None:
    """Write the gradient of the norm's input `rows` (B, N, C) to `out`, which may be `grad`, that of its output.

    `sums` and `products` (B, C) are those of `grad` over the rows, alone and times the normalised rows.
    """
    scale = inverse_std if weight is None else inverse_std * weight
    slope = -scale * inverse_std * products / rows.shape[1]
    offset = -scale * sums / rows.shape[1] - slope * mean
    for sample, (values, piece, result) in tiles(rows.shape[2], rows, grad, out):
        torch.addcmul(torch.addcmul(offset[sample], values, slope[sample]), piece, scale[sample], out=result)


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
