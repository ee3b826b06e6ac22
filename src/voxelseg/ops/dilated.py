"""Dilated depthwise convolutions, one filter of spread taps per channel, without the dilation.

Voxels that are `dilation` apart on every axis see only each other. Each such set, a phase, is a small volume, and the
convolution of all of them is one without dilation, for which `voxelseg.ops.depthwise` has fast gradients.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelseg.ops.depthwise import depthwise_conv
from voxelseg.ops.dispatch import fast_on_cpu

_MIN_VOXELS_PER_SAMPLE = 50  # the gradient takes a call per sample; phases below this size are channels of one sample
_AS_SAMPLES = (2, 4, 6, 0, 1, 3, 5, 7)  # axes of `_grid`: (step, step, step, B, d, h, w, C)
_AS_CHANNELS = (0, 1, 3, 5, 2, 4, 6, 7)  # (B, d, h, w, step, step, step, C)


def dilated_depthwise_conv_plain(x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: int) -> Tensor:
    """Slow twin of `dilated_depthwise_conv`: PyTorch's grouped convolution."""
    padding = [dilation * (size // 2) for size in weight.shape[2:]]
    return F.conv3d(x, weight, bias, padding=padding, dilation=dilation, groups=x.shape[1])


def dilated_depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: int) -> Tensor:
    """Depthwise convolution of (B, C, D, H, W) whose taps are `dilation` voxels apart, zero-padded to the same size.

    `weight` (C, 1, k, k, k), odd k, which may differ between the axes. The fast form on the CPU convolves phases, and
    leaves out taps that can only read padding. It returns channels-last memory, and is differentiable once, but not by
    torch.func (vmap, jvp, grad).
    """
    if not fast_on_cpu(x, weight):
        return dilated_depthwise_conv_plain(x, weight, bias, dilation=dilation)
    weight = _live_taps(weight, x.shape[2:], dilation)
    steps = [1 if size == 1 else dilation for size in weight.shape[2:]]
    grid = _grid(x, steps)
    order = _AS_SAMPLES if prod(grid.shape[1:7:2]) >= _MIN_VOXELS_PER_SAMPLE else _AS_CHANNELS
    phases = grid.permute(order)
    volumes = phases.flatten(0, 3) if order is _AS_SAMPLES else phases.flatten(4)
    copies = volumes.shape[-1] // x.shape[1]
    bias = None if bias is None else bias.repeat(copies)
    y = depthwise_conv(volumes.movedim(-1, 1), weight.repeat(copies, 1, 1, 1, 1), bias)
    y = y.movedim(1, -1).reshape(phases.shape).permute([order.index(axis) for axis in range(8)])
    voxels = y.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, : x.shape[2], : x.shape[3], : x.shape[4]]
    return voxels.movedim(-1, 1)


def _live_taps(weight: Tensor, size: Sequence[int], dilation: int) -> Tensor:
    """The middle of the kernel: taps nearer than the length of the axis, the only ones that ever read a voxel."""
    for axis, length in enumerate(size, start=2):
        reach, live = weight.shape[axis] // 2, (length - 1) // dilation
        if live < reach:
            weight = weight.narrow(axis, reach - live, 2 * live + 1)
    return weight


def _grid(x: Tensor, steps: Sequence[int]) -> Tensor:
    """(B, C, D, H, W) as (B, d, step, h, step, w, step, C), with zeros appended where an axis is no multiple."""
    voxels = x.movedim(1, -1)  # (B, D, H, W, C)
    lack = [-length % step for length, step in zip(x.shape[2:], steps, strict=True)]
    if any(lack):
        voxels = F.pad(voxels, (0, 0, 0, lack[2], 0, lack[1], 0, lack[0]))
    for axis in (3, 2, 1):
        voxels = torch.unflatten(voxels, axis, (-1, steps[axis - 1]))
    return voxels
