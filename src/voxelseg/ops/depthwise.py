"""Depthwise convolutions, one filter per channel, with a fast backward pass on the CPU.

On the CPU, PyTorch runs the gradients of a depthwise 3-D convolution through kernels made for dense ones: 8 to 40 times
slower than the forward pass. Only three things are fast there, all from oneDNN and all in channels-last memory: the
forward convolution, the forward convolution whose kernel is as large as the volume, and the weight gradient of a 2-D
convolution of width 3. The functions here write every gradient in terms of these:

- input gradient: a forward convolution with the flipped kernel;
- weight gradient, k = 3 in plane (and of flat kernels with strides): 2-D weight gradients over planes, one per kernel
  plane;
- weight gradient otherwise: a forward convolution of the input with the output gradient as its kernel;
- stride 2: the same on the input's phases (even and odd indices of each strided axis), which are of stride 1.

Kernels and strides may differ between the axes. `benchmarks/networks.py` measures them. Other devices and dtypes use
PyTorch's own convolutions.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dead_bias import with_zero_gradient
from voxelseg.ops.dispatch import fast_on_cpu, plain_forms_wanted

_MIN_VOXELS_FOR_PLANES = 1000  # below, the calls per plane cost more than they save (measured at 6 x 8 x 6)


def depthwise_conv_plain(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int | Sequence[int] = 1) -> Tensor:
    """Slow twin of `depthwise_conv`: PyTorch's grouped convolution, in any layout, on any device, in 2-D or 3-D."""
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    return conv(x, weight, bias, stride, _padding(weight), groups=x.shape[1])


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int | Sequence[int] = 1, bias_counts: bool = True
) -> Tensor:
    """Depthwise convolution of (B, C, *space) with `weight` (C, 1, k, ...), odd k, zero-padded by k // 2 on each axis.

    Stride 1 or 2 (even sizes are halved), for all axes or for each. With `bias_counts` false, what follows removes any
    constant of a channel: the bias is then left out and its gradient is exactly zero. The fast form returns
    channels-last memory, and is differentiable once, but not by torch.func (vmap, jvp, grad).
    """
    if not bias_counts and bias is not None and not plain_forms_wanted():
        return with_zero_gradient(depthwise_conv(x, weight, None, stride=stride), bias)
    if not fast_on_cpu(x, weight):
        return depthwise_conv_plain(x, weight, bias, stride=stride)
    y: Tensor = _DepthwiseConv.apply(x, weight, bias, _triple(stride))  # type: ignore[no-untyped-call]
    return y


def depthwise_conv_transpose_plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int | Sequence[int] = 2
) -> Tensor:
    """Slow twin of `depthwise_conv_transpose`: PyTorch's grouped transposed convolution."""
    conv: Any = F.conv_transpose3d if x.ndim == 5 else F.conv_transpose2d
    y: Tensor = conv(x, weight, bias, stride=stride, padding=_padding(weight), groups=x.shape[1])
    return y


def depthwise_conv_transpose(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int | Sequence[int] = 2, bias_counts: bool = True
) -> Tensor:
    """Depthwise transposed convolution, the adjoint of `depthwise_conv`: `weight` (C, 1, k, ...), odd k.

    Along an axis of stride 2, n voxels become 2n - 1; along one of stride 1 they stay n. `bias_counts` is as in
    `depthwise_conv`. The fast form is differentiable once, but not by torch.func (vmap, jvp, grad).
    """
    if not bias_counts and bias is not None and not plain_forms_wanted():
        return with_zero_gradient(depthwise_conv_transpose(x, weight, None, stride=stride), bias)
    if not fast_on_cpu(x, weight):
        return depthwise_conv_transpose_plain(x, weight, bias, stride=stride)
    y: Tensor = _DepthwiseConvTranspose.apply(x, weight, bias, _triple(stride))  # type: ignore[no-untyped-call]
    return y


def _padding(weight: Tensor) -> list[int]:
    return [size // 2 for size in weight.shape[2:]]


def _triple(stride: int | Sequence[int]) -> tuple[int, ...]:
    return (stride,) * 3 if isinstance(stride, int) else tuple(stride)


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        return depthwise_conv_plain(x, weight, bias, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _channels_last(grad)
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            _adjoint(grad, weight, ctx.stride, x.shape[2:]) if needs_x else None,
            _weight_gradient(x, grad, weight.shape[2:], ctx.stride) if needs_weight else None,
            grad.sum((0, 2, 3, 4)) if needs_bias else None,
            None,
        )


class _DepthwiseConvTranspose(torch.autograd.Function):
    """The adjoint of the strided convolution; its own adjoint is that convolution again."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
        x = _channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        size = torch.Size(step * (length - 1) + 1 for step, length in zip(stride, x.shape[2:], strict=True))
        y = _adjoint(x, weight, stride, size)
        return y if bias is None else y.add_(bias.view(-1, 1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = _channels_last(grad)
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            depthwise_conv_plain(grad, weight, None, stride=ctx.stride) if needs_x else None,
            _weight_gradient(grad, x, weight.shape[2:], ctx.stride) if needs_weight else None,
            grad.sum((0, 2, 3, 4)) if needs_bias else None,
            None,
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _region(axes: Iterable[slice]) -> tuple[slice, ...]:
    """Index of a tensor with two leading axes and these slices of the spatial ones."""
    return (slice(None), slice(None), *axes)


def _adjoint(grad: Tensor, weight: Tensor, stride: tuple[int, ...], size: torch.Size) -> Tensor:
    """Adjoint of the convolution of inputs of `size` with `weight`, applied to `grad`."""
    channels, kernel = weight.shape[0], weight.shape[2:]
    if max(stride) == 1:
        return F.conv3d(grad, weight.flip(2, 3, 4), padding=_padding(weight), groups=channels)
    if max(kernel) <= 3:  # with so few taps, one convolution over a grid of mostly zeros beats eight small ones
        spread = grad.new_zeros(grad.shape[0], *size, channels).movedim(-1, 1)
        spread[_region(slice(None, None, step) for step in stride)] = grad
        return F.conv3d(spread, weight.flip(2, 3, 4), padding=_padding(weight), groups=channels)
    # A kernel of 1 reads every second voxel of an axis of stride 2: the others stay zero.
    reads_all = all(length >= step for length, step in zip(kernel, stride, strict=True))
    result = (grad.new_empty if reads_all else grad.new_zeros)(grad.shape[0], *size, channels).movedim(-1, 1)
    for axes in _phases(kernel, stride, size):
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


def _weight_gradient(x: Tensor, grad: Tensor, kernel: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """Gradient (C, 1, *kernel) of the kernel; `x` is the input, `grad` the output's gradient, both channels-last."""
    # A flat kernel of 5 with strides has few voxels and many taps: planes take a third of the time of phases there.
    in_planes = kernel[1:] == (3, 3) or (kernel[0] == 1 and max(stride) > 1)
    if in_planes and grad[0, 0].numel() >= _MIN_VOXELS_FOR_PLANES:
        return _weight_gradient_by_planes(x, grad, kernel, stride)
    if max(stride) == 1:
        return _correlate(x, grad, [range(-(size // 2), size // 2 + 1) for size in kernel])
    result = x.new_zeros(x.shape[1], 1, *kernel)
    for axes in _phases(kernel, stride, x.shape[2:]):
        part = _channels_last(x[_region(axis.fine for axis in axes)])
        shifts = [range(axis.first_shift, axis.last_shift + 1) for axis in axes]
        result[_region(axis.taps for axis in axes)] = _correlate(part, grad, shifts)
    return result


class _Phase:
    """One axis of the voxels of one parity that a strided convolution reads, and the taps that read them.

    With stride s, tap t reads fine voxel s * m + t - k // 2 for output m; in voxels of the phase that is m + shift.
    """

    def __init__(self, parity: int, kernel: int, stride: int, size: int) -> None:
        first_tap = (parity + kernel // 2) % stride
        self.taps = slice(first_tap, None, stride)
        self.fine = slice(parity, None, stride)
        self.length = len(range(size)[self.fine])
        self.first_shift = (first_tap - kernel // 2 - parity) // stride
        self.last_shift = self.first_shift + len(range(kernel)[self.taps]) - 1


def _phases(kernel: torch.Size, stride: tuple[int, ...], size: torch.Size) -> Iterator[list[_Phase]]:
    """The phases of a volume (two per strided axis) that have voxels and taps."""
    for parities in product(*map(range, stride)):
        axes = [_Phase(*values) for values in zip(parities, kernel, stride, size, strict=True)]
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


def _weight_gradient_by_planes(x: Tensor, grad: Tensor, kernel: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """The planes of a sample are a batch, and each plane of the kernel is one 2-D weight gradient."""
    channels, depth = x.shape[1:3]
    step, reach = stride[0], kernel[0] // 2
    like = x.new_empty(channels, 1, *kernel[1:])
    result = x.new_zeros(channels, 1, *kernel)
    for tap in range(kernel[0]):
        # Output plane m reads input plane step * m + tap - reach, where there is one.
        first = max(-((tap - reach) // step), 0)
        last = min((depth - 1 + reach - tap) // step, grad.shape[2] - 1)
        if last < first:
            continue
        read = slice(step * first + tap - reach, step * last + tap - reach + 1, step)
        for sample, grad_sample in zip(x, grad, strict=True):
            planes, grad_planes = sample[:, read].movedim(1, 0), grad_sample[:, first : last + 1].movedim(1, 0)
            strides, padding, dilation = stride[1:], [size // 2 for size in kernel[1:]], [1, 1]
            wanted = [False, True, False]
            result[:, :, tap] += torch.ops.aten.convolution_backward(
                grad_planes, planes, like, None, strides, padding, dilation, False, [0, 0], channels, wanted
            )[1]
    return result
