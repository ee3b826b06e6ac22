"""Depthwise convolutions, one filter per channel, with a fast backward pass on the CPU.

On the CPU, PyTorch runs the gradients of a depthwise 3-D convolution through kernels made for dense ones: 8 to 40 times
slower than the forward pass. Only three things are fast there, all from oneDNN and all in channels-last memory: the
forward convolution, the forward convolution whose kernel is as large as the volume, and the weight gradient of a 2-D
convolution of width 3. The functions here write every gradient in terms of these:

- input gradient: a forward convolution with the flipped kernel;
- weight gradient, k = 3: 2-D weight gradients over planes, one per kernel plane;
- weight gradient otherwise: a forward convolution of the input with the output gradient as its kernel;
- stride 2: the same on the input's eight phases (even and odd indices per axis), which are of stride 1.

`benchmarks/networks.py` measures them. Other devices and dtypes use PyTorch's own convolutions.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import fast_on_cpu

_MIN_VOXELS_FOR_PLANES = 1000  # below, the calls per plane cost more than they save (measured at 6 x 8 x 6)


def depthwise_conv_plain(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Slow twin of `depthwise_conv`: PyTorch's grouped convolution, in any layout, on any device, in 2-D or 3-D."""
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    return conv(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Depthwise convolution of (B, C, *space) with odd `weight` (C, 1, k, ...), zero-padded by k // 2.

    Stride 1, or 2 (even sizes are halved). The fast form returns channels-last memory, and is differentiable once, but
    not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, weight):
        return depthwise_conv_plain(x, weight, bias, stride=stride)
    y: Tensor = _DepthwiseConv.apply(x, weight, bias, stride)  # type: ignore[no-untyped-call]
    return y


def depthwise_conv_transpose_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Slow twin of `depthwise_conv_transpose`: PyTorch's grouped transposed convolution."""
    conv = F.conv_transpose3d if x.ndim == 5 else F.conv_transpose2d
    return conv(x, weight, bias, stride=2, padding=weight.shape[-1] // 2, groups=x.shape[1])


def depthwise_conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise transposed convolution of stride 2: n voxels become 2n - 1; odd `weight` (C, 1, k, ...).

    The fast form is differentiable once, but not by torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, weight):
        return depthwise_conv_transpose_plain(x, weight, bias)
    y: Tensor = _DepthwiseConvTranspose.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        return F.conv3d(x, weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _channels_last(grad)
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            _adjoint(grad, weight, ctx.stride, x.shape[2:]) if needs_x else None,
            _weight_gradient(x, grad, weight.shape[-1], ctx.stride) if needs_weight else None,
            grad.sum((0, 2, 3, 4)) if needs_bias else None,
            None,
        )


class _DepthwiseConvTranspose(torch.autograd.Function):
    """The adjoint of the strided convolution; its own adjoint is that convolution again."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        y = _adjoint(x, weight, 2, torch.Size(2 * size - 1 for size in x.shape[2:]))
        return y if bias is None else y.add_(bias.view(-1, 1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _channels_last(grad)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            F.conv3d(grad, weight, None, 2, weight.shape[-1] // 2, groups=x.shape[1]) if needs_x else None,
            _weight_gradient(grad, x, weight.shape[-1], 2) if needs_weight else None,
            grad.sum((0, 2, 3, 4)) if needs_bias else None,
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _region(axes: Iterable[slice]) -> tuple[slice, ...]:
    """Index of a tensor with two leading axes and these slices of the spatial ones."""
    return (slice(None), slice(None), *axes)


def _adjoint(grad: Tensor, weight: Tensor, stride: int, size: torch.Size) -> Tensor:
    """Adjoint of the convolution of inputs of `size` with `weight`, applied to `grad`."""
    channels, kernel = weight.shape[0], weight.shape[-1]
    if stride == 1:
        return F.conv3d(grad, weight.flip(2, 3, 4), padding=kernel // 2, groups=channels)
    if kernel <= 3:  # with so few taps, one convolution over a grid of mostly zeros beats eight small ones
        spread = grad.new_zeros(grad.shape[0], *size, channels).movedim(-1, 1)
        spread[:, :, ::2, ::2, ::2] = grad
        return F.conv3d(spread, weight.flip(2, 3, 4), padding=kernel // 2, groups=channels)
    result = grad.new_empty(grad.shape[0], *size, channels).movedim(-1, 1)
    for axes in _phases(kernel, size):
        taps = weight[_region(axis.taps for axis in axes)].flip(2, 3, 4)
        # Output m of this phase is the sum over shifts q of tap(q) * grad[m - q]: a convolution with the flipped taps.
        padding = [
            max(axis.last_shift, axis.length - coarse - axis.first_shift, 0)
            for axis, coarse in zip(axes, grad.shape[2:], strict=True)
        ]
        y = F.conv3d(grad, taps.contiguous(), padding=padding, groups=channels)
        starts = [pad - axis.last_shift for pad, axis in zip(padding, axes, strict=True)]
        y = y[_region(slice(start, start + axis.length) for start, axis in zip(starts, axes, strict=True))]
        result[_region(axis.fine for axis in axes)] = y
    return result


def _weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Gradient (C, 1, k, k, k) of the kernel; `x` is the input, `grad` the output's gradient, both channels-last."""
    if kernel == 3 and grad[0, 0].numel() >= _MIN_VOXELS_FOR_PLANES:
        return _weight_gradient_by_planes(x, grad, stride)
    if stride == 1:
        reach = kernel // 2
        return _correlate(x, grad, [range(-reach, reach + 1)] * 3)
    result = x.new_zeros(x.shape[1], 1, kernel, kernel, kernel)
    for axes in _phases(kernel, x.shape[2:]):
        part = _channels_last(x[_region(axis.fine for axis in axes)])
        shifts = [range(axis.first_shift, axis.last_shift + 1) for axis in axes]
        result[_region(axis.taps for axis in axes)] = _correlate(part, grad, shifts)
    return result


class _Phase:
    """One axis of the even or odd voxels that a convolution of stride 2 reads, and the taps that read them.

    Tap t reads fine voxel 2m + t - k // 2 for output m; in voxels of the phase that is m + shift.
    """

    def __init__(self, parity: int, kernel: int, size: int) -> None:
        first_tap = (parity + kernel // 2) % 2
        self.taps = slice(first_tap, None, 2)
        self.fine = slice(parity, None, 2)
        self.length = (size - parity + 1) // 2
        self.first_shift = (first_tap - kernel // 2 - parity) // 2
        self.last_shift = self.first_shift + len(range(kernel)[self.taps]) - 1


def _phases(kernel: int, size: torch.Size) -> Iterator[list[_Phase]]:
    """The up to eight phases of a volume that have voxels and taps."""
    for parities in product(range(2), repeat=3):
        axes = [_Phase(parity, kernel, length) for parity, length in zip(parities, size, strict=True)]
        if all(axis.length > 0 and axis.first_shift <= axis.last_shift for axis in axes):
            yield axes


def _correlate(x: Tensor, grad: Tensor, shifts: Sequence[range]) -> Tensor:
    """For each channel and each shift q per axis: sum over samples and voxels m of x[m + q] * grad[m]; (C, 1, q, q, q).

    One forward convolution per sample, with the gradient as the kernel.
    """
    channels = x.shape[1]
    sizes = list(zip(x.shape[2:], grad.shape[2:], shifts, strict=True))
    padding = [max(-axis[0], axis[-1] + coarse - fine, 0) for fine, coarse, axis in sizes]
    window = _region(slice(pad + axis[0], pad + axis[-1] + 1) for pad, axis in zip(padding, shifts, strict=True))
    total = x.new_zeros(channels, *(len(axis) for axis in shifts))
    for sample, kernel in zip(x, grad, strict=True):
        total += F.conv3d(sample.unsqueeze(0), kernel.unsqueeze(1), padding=padding, groups=channels)[window][0]
    return total.unsqueeze(1)


def _weight_gradient_by_planes(x: Tensor, grad: Tensor, stride: int) -> Tensor:
    """Kernel 3: the planes of a sample are a batch, and each kernel plane is one 2-D weight gradient."""
    channels, depth = x.shape[1:3]
    like = x.new_empty(channels, 1, 3, 3)
    result = x.new_zeros(channels, 1, 3, 3, 3)
    for tap in range(3):
        # Output plane m reads input plane stride * m + tap - 1, where there is one.
        first = 1 if tap == 0 else 0
        last = min((depth - tap) // stride, grad.shape[2] - 1)
        read = slice(stride * first + tap - 1, stride * last + tap, stride)
        for sample, grad_sample in zip(x, grad, strict=True):
            planes, grad_planes = sample[:, read].movedim(1, 0), grad_sample[:, first : last + 1].movedim(1, 0)
            strides, padding, dilation, wanted = [stride, stride], [1, 1], [1, 1], [False, True, False]
            result[:, :, tap] += torch.ops.aten.convolution_backward(
                grad_planes, planes, like, None, strides, padding, dilation, False, [0, 0], channels, wanted
            )[1]
    return result
