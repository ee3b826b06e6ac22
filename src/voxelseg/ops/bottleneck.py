"""The inverted bottleneck of ConvNeXt-like blocks: norm, expansion, GELU, compression, residual, as one operation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import as_rows, instance_norm, moments, tiles
from voxelseg.ops.pointwise import pointwise_conv


def inverted_bottleneck_plain(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    compress_weight: Tensor,
    compress_bias: Tensor,
    residual: Tensor | None,
    *,
    eps: float,
) -> Tensor:
    """Slow twin of `inverted_bottleneck`: one PyTorch operation after the other."""
    y = instance_norm(x, norm_weight, norm_bias, eps=eps)
    y = F.gelu(pointwise_conv(y, expand_weight, expand_bias))
    y = pointwise_conv(y, compress_weight, compress_bias)
    return y if residual is None else residual + y


def inverted_bottleneck(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    compress_weight: Tensor,
    compress_bias: Tensor,
    residual: Tensor | None,
    *,
    eps: float,
) -> Tensor:
    """The sum residual + compress(gelu(expand(norm(x)))) for x (B, C, *space).

    `norm` is per channel over space, the weights are (C_out, C_in, 1, ...).
    The fast form on the CPU goes through the voxels in tiles, so that the expanded tensor stays in the cache and is
    never stored; the backward pass computes it again. The norm's statistics cost one pass over `x`, its backward
    sums none: they are read off the weight gradients. Differentiable once, and not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, expand_weight):
        return inverted_bottleneck_plain(
            x, norm_weight, norm_bias, expand_weight, expand_bias, compress_weight, compress_bias, residual, eps=eps
        )
    voxels = as_rows(x)
    rows: Tensor = _InvertedBottleneck.apply(  # type: ignore[no-untyped-call]
        voxels,
        norm_weight,
        norm_bias,
        expand_weight.flatten(1),
        expand_bias,
        compress_weight.flatten(1),
        compress_bias,
        None if residual is None else as_rows(residual),
        eps,
    )
    return rows.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


class _InvertedBottleneck(torch.autograd.Function):
    """Rows are (B, N, C). The norm's weight and bias are folded into the expansion, so tiles hold x_hat itself."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor,
        compress_weight: Tensor,
        compress_bias: Tensor,
        residual: Tensor | None,
        eps: float,
    ) -> Tensor:
        hidden = expand_weight.shape[0]
        mean, inverse_std = moments(rows, eps)
        shift = -mean * inverse_std
        folded = expand_weight * norm_weight
        folded_bias = torch.addmv(expand_bias, expand_weight, norm_bias)
        out = rows.new_empty(*rows.shape[:2], compress_weight.shape[0])
        summands = out if residual is None else residual
        for sample, (values, result, summand) in tiles(hidden, rows, out, summands):
            x_hat = torch.addcmul(shift[sample], values, inverse_std[sample])
            expanded = F.gelu(torch.addmm(folded_bias, x_hat, folded.t()))
            torch.addmm(compress_bias, expanded, compress_weight.t(), out=result)
            if residual is not None:
                result += summand
        ctx.save_for_backward(
            rows, norm_weight, norm_bias, expand_weight, folded, folded_bias, compress_weight, mean, inverse_std
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, norm_weight, norm_bias, expand_weight, folded, folded_bias, compress_weight, mean, inverse_std = (
            ctx.saved_tensors
        )
        batch, num_rows, _ = rows.shape
        hidden = expand_weight.shape[0]
        shift = -mean * inverse_std
        grad_folded = rows.new_zeros(batch, *expand_weight.shape)
        grad_folded_bias = rows.new_zeros(batch, hidden)
        grad_compress = torch.zeros_like(compress_weight)
        grad_compress_bias = rows.new_zeros(compress_weight.shape[0])
        grad_rows = torch.empty_like(rows)  # holds the gradient of x_hat first
        for sample, (values, grad_out, grad_values) in tiles(hidden, rows, grad, grad_rows):
            x_hat = torch.addcmul(shift[sample], values, inverse_std[sample])
            pre_gelu = torch.addmm(folded_bias, x_hat, folded.t())
            grad_compress.addmm_(grad_out.t(), F.gelu(pre_gelu))
            grad_compress_bias += grad_out.sum(0)
            grad_pre_gelu = torch.ops.aten.gelu_backward(grad_out @ compress_weight, pre_gelu)
            grad_folded[sample].addmm_(grad_pre_gelu.t(), x_hat)
            grad_folded_bias[sample] += grad_pre_gelu.sum(0)
            torch.mm(grad_pre_gelu, folded, out=grad_values)

        # The norm's backward needs, per sample and channel, the mean over the rows of the gradient of x_hat and of its
        # product with x_hat. Both follow from the gradients of the expansion, without another pass over the rows.
        mean_grad = grad_folded_bias @ folded / num_rows
        mean_product = (grad_folded * folded).sum(1) / num_rows
        slope = -mean_product * inverse_std.square()
        offset = -mean_grad * inverse_std - slope * mean
        for sample, (values, grad_values) in tiles(hidden, rows, grad_rows):
            grad_values.mul_(inverse_std[sample]).add_(torch.addcmul(offset[sample], values, slope[sample]))
        grad_weight, grad_bias = grad_folded.sum(0), grad_folded_bias.sum(0)
        return (
            grad_rows,
            (grad_weight * expand_weight).sum(0),
            grad_bias @ expand_weight,
            torch.addcmul(grad_bias.unsqueeze(1) * norm_bias, grad_weight, norm_weight),
            grad_bias,
            grad_compress,
            grad_compress_bias,
            grad if ctx.needs_input_grad[7] else None,
            None,
        )
