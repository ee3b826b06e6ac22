"""Dense 3 x 3 x 3 convolutions from half the multiplications, on the CPU.

oneDNN's convolutions run at the processor's peak there, so that only fewer operations are faster. Winograd's minimal
filtering gets four outputs of a filter of three taps from six products in place of twelve (Lavin and Gray, CVPR 2016,
arXiv:1509.09308). Here it runs along D: of every six input planes six weighted sums are made, each is convolved in two
dimensions with a weighted sum of the kernel's three planes, and weighted sums of the six results are four output
planes. The gradient of the input is a convolution of the same kind; that of the kernel goes backwards through the same
sums.

Of oneDNN's time on one core, convolutions of 48 to 192 channels take 0.56 to 0.7, forward and backward alike, and those
of 16 channels 0.95. Filtering along H as well takes a quarter of the products, but then the sums cost what they save
(0.94 to 1.15 of the time of one axis).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dense import dense_conv
from voxelseg.ops.dispatch import fast_on_cpu

OUTPUTS = 4  # planes that one tile gives
PRODUCTS = OUTPUTS + 2  # planes that it reads, and products for them
TILE_VALUES = 2**22  # values of the planes' sums held at a time: 16 MB

# Interpolation at 0, 1, -1, 1/2, -2 and infinity, so that the factors of planes are exact in binary. With 32 to 192
# channels the errors are 0.8e-6 to 2e-6 of the result's standard deviation, 1.5 to 4 times oneDNN's; with the usual 2
# in place of 1/2 they are 1.25 times as large. How such points are chosen: Barabasz et al. 2018, arXiv:1803.10986.
_INPUT_SUMS = (
    (1.0, -1.5, -2.0, 1.5, 1.0, 0.0),
    (0.0, -1.0, 0.5, 2.5, 1.0, 0.0),
    (0.0, 1.0, -2.5, 0.5, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 0.5, -1.0, -0.5, 1.0, 0.0),
    (0.0, 1.0, -1.5, -2.0, 1.5, 1.0),
)
_KERNEL_SUMS = (
    (1.0, 0.0, 0.0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0.0, 0.0, 1.0),
)
_OUTPUT_SUMS = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 0.5, -2.0, 0.0),
    (0.0, 1.0, 1.0, 0.25, 4.0, 0.0),
    (0.0, 1.0, -1.0, 0.125, -8.0, 1.0),
)


def winograd_conv_plain(x: Tensor, weight: Tensor, *, stride: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Slow twin of `winograd_conv`: PyTorch's convolution."""
    return F.conv3d(x, weight, None, stride, padding=[size // 2 for size in weight.shape[2:]])


def winograd_conv(x: Tensor, weight: Tensor, *, stride: Sequence[int] = (1, 1, 1)) -> Tensor:
    """Convolution of (B, C, D, H, W) with odd `weight` (C_out, C, k_D, k_H, k_W), zero-padded by k // 2 on each axis.

    The fast form is for kernels of 3 x 3 x 3 and stride 1 on the CPU; it returns channels-last memory, and is
    differentiable once, but not by torch.func (vmap, jvp, grad). Shapes that would not gain from it go to `dense_conv`.
    """
    if not fast_on_cpu(x, weight):
        return winograd_conv_plain(x, weight, stride=stride)
    if max(stride) > 1 or not _worthwhile(x, weight):
        return dense_conv(x, weight, None, stride=stride, padding=[size // 2 for size in weight.shape[2:]])
    y: Tensor = _WinogradConv.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


def _worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Whether Winograd's form is faster: enough channels to pay for the sums of planes, and voxels for the kernel's."""
    out_channels, in_channels = weight.shape[:2]
    depth, voxels = x.shape[2], x[0, 0].numel()
    wasted = -depth % OUTPUTS  # planes of the last tile that nobody needs
    return (
        weight.shape[2:] == (3, 3, 3)
        and min(in_channels, out_channels) >= 16
        and voxels >= 4 * max(in_channels, out_channels)
        and wasted <= depth // 8
    )


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        needs_x, needs_weight = ctx.needs_input_grad
        return (
            _convolve(grad, weight.flip(2, 3, 4).transpose(0, 1)) if needs_x else None,
            _weight_gradient(x, grad) if needs_weight else None,
        )


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    depth, height, width = x.shape[2:]
    kernel_sums = torch.einsum("pd,oidhw->poihw", x.new_tensor(_KERNEL_SUMS), weight)
    kernels = [kernel.contiguous(memory_format=torch.channels_last) for kernel in kernel_sums]
    input_sums, output_sums = x.new_tensor(_INPUT_SUMS), x.new_tensor(_OUTPUT_SUMS)
    out = x.new_empty(x.shape[0], depth, height, width, weight.shape[0])
    for sample, result in zip(_planes(x), out.flatten(2), strict=True):
        for tiles in _groups(depth, sample.shape[1]):
            sums = _sums_of_planes(sample, input_sums, tiles, reach=1).view(PRODUCTS, len(tiles), height, width, -1)
            products = torch.stack(
                [
                    F.conv2d(planes.movedim(-1, 1), kernel, padding=1).movedim(1, -1)
                    for planes, kernel in zip(sums, kernels, strict=True)
                ]
            ).flatten(2)  # (PRODUCTS, tiles, H*W*C_out)
            for number, tile in enumerate(tiles):
                planes = result[OUTPUTS * tile : OUTPUTS * (tile + 1)]
                torch.mm(output_sums[: len(planes)], products[:, number], out=planes)
    return out.movedim(-1, 1)


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient (C_out, C, 3, 3, 3) of the kernel, from the input and the output's gradient."""
    depth, height, width = x.shape[2:]
    input_sums, output_sums = x.new_tensor(_INPUT_SUMS), x.new_tensor(_OUTPUT_SUMS)
    like = x.new_empty(grad.shape[1], x.shape[1], 3, 3).contiguous(memory_format=torch.channels_last)
    totals = x.new_zeros(PRODUCTS, *like.shape)
    for sample, sample_grad in zip(_planes(x), _planes(grad), strict=True):
        for tiles in _groups(depth, max(sample.shape[1], sample_grad.shape[1])):
            shape = (PRODUCTS, len(tiles), height, width, -1)
            sums = _sums_of_planes(sample, input_sums, tiles, reach=1).view(shape)
            grads = _sums_of_planes(sample_grad, output_sums.t(), tiles, reach=0).view(shape)
            for total, planes, grad_planes in zip(totals, sums, grads, strict=True):
                total += torch.ops.aten.convolution_backward(
                    grad_planes.movedim(-1, 1),
                    planes.movedim(-1, 1),
                    like,
                    None,
                    *([1, 1], [1, 1], [1, 1], False, [0, 0], 1),
                    [False, True, False],
                )[1]
    return torch.einsum("pd,poihw->oidhw", x.new_tensor(_KERNEL_SUMS), totals)


def _planes(x: Tensor) -> Tensor:
    """(B, C, D, H, W) in channels-last memory as (B, D, H*W*C), a view."""
    return x.movedim(1, -1).flatten(2)


def _groups(depth: int, values_per_plane: int) -> Iterator[range]:
    """Tiles of OUTPUTS planes that are worked on together."""
    tiles = range(-(-depth // OUTPUTS))
    length = max(TILE_VALUES // (PRODUCTS * values_per_plane), 1)
    for first in tiles[::length]:
        yield tiles[first : first + length]


def _sums_of_planes(planes: Tensor, weights: Tensor, tiles: range, *, reach: int) -> Tensor:
    """`weights` (PRODUCTS, R) times the planes of each tile: (PRODUCTS, tiles, values) from (D, values).

    Tile t has R planes from OUTPUTS * t - `reach` on; those beyond the volume are zero.
    """
    sums = planes.new_empty(PRODUCTS, len(tiles), planes.shape[1])
    for number, tile in enumerate(tiles):
        start = OUTPUTS * tile - reach
        first, last = max(start, 0), min(start + weights.shape[1], len(planes))
        torch.mm(weights[:, first - start : last - start], planes[first:last], out=sums[:, number])
    return sums
