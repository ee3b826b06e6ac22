"""Feature maps concatenated, with chunks of the channels moved along one axis, as E2ENet's convolutions read them."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from voxelseg.ops.dispatch import plain_forms_wanted


def depth_shift_plain(parts: Sequence[Tensor], offsets: Sequence[int], *, axis: int = 0) -> Tensor:
    """Slow twin of `depth_shift`: concatenates, pads, rolls chunks, concatenates them and crops, like the authors."""
    x = torch.cat(tuple(parts), dim=1) if len(parts) > 1 else parts[0]
    if not offsets:
        return x
    dim, reach = axis + 2, max(abs(offset) for offset in offsets)
    padded = F.pad(x, [side for a in (2, 1, 0) for side in ((reach, reach) if a == axis else (0, 0))])
    chunks = padded.chunk(len(offsets), dim=1)
    rolled = [chunk.roll(offset, dims=dim) for chunk, offset in zip(chunks, offsets, strict=False)]
    return torch.cat(rolled, dim=1).narrow(dim, reach, x.shape[dim])


def depth_shift(parts: Sequence[Tensor], offsets: Sequence[int], *, axis: int = 0) -> Tensor:
    """The tensors (B, C_i, D, H, W), concatenated along their channels, with chunks of these moved along D, H or W.

    The C channels together are cut into one chunk per offset as by `torch.chunk`: each has ceil(C / number of offsets)
    channels, the last one fewer, and where C is small there are fewer chunks than offsets. With offset s, index i of
    `axis` (0 for D) gets what was at i - s; zero where that is outside. Without offsets nothing moves.

    The fast form, on any device, writes every value once, straight to its place; under autocast it writes what the
    convolution after it computes in. Differentiable once, and not by torch.func (vmap, jvp, grad).
    Source: E2ENet, Sec. 3.3.
    """
    if plain_forms_wanted() or not offsets:
        return depth_shift_plain(parts, offsets, axis=axis)
    out: Tensor = _DepthShift.apply(tuple(offsets), axis + 2, *parts)  # type: ignore[no-untyped-call]
    return out


class _DepthShift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, offsets: tuple[int, ...], dim: int, *parts: Tensor) -> Tensor:
        ctx.offsets, ctx.dim = offsets, dim  # type: ignore[attr-defined]
        ctx.parts = [(part.shape[1], part.dtype) for part in parts]  # type: ignore[attr-defined]
        first = parts[0]
        widths = [part.shape[1] for part in parts]
        out = torch.empty(
            (first.shape[0], sum(widths), *first.shape[2:]),
            dtype=_dtype(parts),
            device=first.device,
            memory_format=_layout(first),
        )
        for number, own, whole, offset in _pieces(widths, offsets):
            _copy_moved(out[:, whole], parts[number][:, own], offset, dim)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        grads = [
            torch.empty(
                (grad.shape[0], width, *grad.shape[2:]), dtype=dtype, device=grad.device, memory_format=_layout(grad)
            )
            for width, dtype in ctx.parts
        ]
        for number, own, whole, offset in _pieces([width for width, _ in ctx.parts], ctx.offsets):
            if needed[number]:
                _copy_moved(grads[number][:, own], grad[:, whole], -offset, ctx.dim)
        return None, None, *(one if wanted else None for one, wanted in zip(grads, needed, strict=True))


def _pieces(widths: Sequence[int], offsets: Sequence[int]) -> Iterator[tuple[int, slice, slice, int]]:
    """Number of the part, its channels, the same in the whole, and the offset, of each run of channels moved alike."""
    length = -(-sum(widths) // len(offsets))
    start = 0
    for number, width in enumerate(widths):
        first = start
        while first < start + width:
            chunk = first // length
            end = min((chunk + 1) * length, start + width)
            yield number, slice(first - start, end - start), slice(first, end), offsets[chunk]
            first = end
        start += width


def _copy_moved(target: Tensor, source: Tensor, offset: int, dim: int) -> None:
    """Fill `target` with `source` moved by `offset` along `dim`, and with zeros where nothing comes from."""
    size = target.shape[dim]
    moved = min(abs(offset), size)
    kept = size - moved
    if offset >= 0:
        target.narrow(dim, 0, moved).zero_()
        target.narrow(dim, moved, kept).copy_(source.narrow(dim, 0, kept))
    else:
        target.narrow(dim, kept, moved).zero_()
        target.narrow(dim, 0, kept).copy_(source.narrow(dim, moved, kept))


def _dtype(parts: Sequence[Tensor]) -> torch.dtype:
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    device = parts[0].device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast and dtype != torch.float64 else dtype


def _layout(x: Tensor) -> torch.memory_format:
    """Channels-last if `x` is, and not contiguous as well (as one channel is)."""
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if channels_last else torch.contiguous_format
