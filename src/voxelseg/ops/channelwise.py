"""A small network of its own for every channel: expansion, GELU and compression without mixing channels."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import fast_on_cpu
from voxelseg.ops.norm import as_rows, tiles


def channelwise_scaling_plain(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    compress_weight: Tensor,
    compress_bias: Tensor,
    layer_scale: Tensor | None,
) -> Tensor:
    """Slow twin of `channelwise_scaling`: two grouped convolutions of kernel 1 and a tensor of R*C channels."""
    expanded = F.gelu(F.conv3d(x, expand_weight, expand_bias, groups=x.shape[1]))
    y = F.conv3d(expanded, compress_weight, compress_bias, groups=x.shape[1])
    return y if layer_scale is None else y * layer_scale.view(-1, 1, 1, 1)


def channelwise_scaling(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    compress_weight: Tensor,
    compress_bias: Tensor,
    layer_scale: Tensor | None,
) -> Tensor:
    """Every channel through a network of its own: R values from each, GELU, and a weighted sum of these.

    For value u of channel c: layer_scale[c] * (compress_bias[c] + the sum over j of compress_weight[c, j] *
    gelu(expand_weight[c, j] * u + expand_bias[c, j])), without the first factor if there is no `layer_scale` (C,).

    x (B, C, D, H, W); the weights are those of grouped convolutions: `expand_weight` (R*C, 1, 1, 1, 1), in which the R
    numbers of a channel follow each other, and `compress_weight` (C, R, 1, 1, 1). Since the result is a function of one
    number per channel, the fast form on the CPU goes through it in tiles of channels-last voxels and never stores the
    R*C channels; the backward pass computes them again. Differentiable once, and not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, expand_weight):
        return channelwise_scaling_plain(x, expand_weight, expand_bias, compress_weight, compress_bias, layer_scale)
    channels = x.shape[1]
    compress = compress_weight.view(channels, -1).t()
    if layer_scale is not None:  # into the weights of the compression, where it costs nothing
        compress, compress_bias = compress * layer_scale, compress_bias * layer_scale
    rows: Tensor = _ChannelwiseScaling.apply(  # type: ignore[no-untyped-call]
        as_rows(x),
        expand_weight.view(channels, -1).t(),
        expand_bias.view(channels, -1).t(),
        compress,
        compress_bias,
    )
    return rows.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


class _ChannelwiseScaling(torch.autograd.Function):
    """Rows are (B, N, C), weights (R, C)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor,
        compress_weight: Tensor,
        compress_bias: Tensor,
    ) -> Tensor:
        out = torch.empty_like(rows)
        for _, (values, result) in tiles(rows.shape[2], rows, out):
            result.copy_(compress_bias)
            for part, expanded in _expanded(values, expand_weight, expand_bias):
                result.addcmul_(F.gelu(expanded), compress_weight[part])
        ctx.save_for_backward(rows, expand_weight, expand_bias, compress_weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        rows, expand_weight, expand_bias, compress_weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(rows)
        grad_expand, grad_expand_bias = torch.zeros_like(expand_weight), torch.zeros_like(expand_bias)
        grad_compress, grad_compress_bias = torch.zeros_like(compress_weight), rows.new_zeros(rows.shape[2])
        for _, (values, grad_result, grad_values) in tiles(rows.shape[2], rows, grad, grad_rows):
            grad_compress_bias += grad_result.sum(0)
            for part, expanded in _expanded(values, expand_weight, expand_bias):
                # Without the compression's factor, which is the same for all rows and joins the sums below.
                slope = torch.ops.aten.gelu_backward(grad_result, expanded)
                grad_compress[part] += F.gelu(expanded).mul_(grad_result).sum(0)
                grad_values.addcmul_(slope, expand_weight[part] * compress_weight[part])
                grad_expand_bias[part] += slope.sum(0)
                grad_expand[part] += slope.mul_(values).sum(0)
        return (
            grad_rows,
            grad_expand * compress_weight,
            grad_expand_bias * compress_weight,
            grad_compress,
            grad_compress_bias,
        )


def _expanded(values: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The R parts of the expansion of a tile (N, C), one at a time."""
    for part in range(weight.shape[0]):
        yield part, torch.addcmul(bias[part], values, weight[part])
