"""Convolutions of concatenated tensors, as a decoder applies them to its features and a skip connection."""

from collections.abc import Sequence

import torch
from torch import Tensor

from voxelseg.ops.dense import dense_conv, dense_conv_plain
from voxelseg.ops.dispatch import fast_on_cpu

_ONEDNN_FROM = 20480  # C * D * H up to which PyTorch takes three times as long for the gradients of a single sample


def conv_of_concat_plain(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None, *, padding: int | Sequence[int] = 0
) -> Tensor:
    """Slow twin of `conv_of_concat`: makes the concatenated tensor, in 2-D or 3-D."""
    return dense_conv_plain(torch.cat(tuple(parts), dim=1), weight, bias, padding=padding)


def conv_of_concat(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None, *, padding: int | Sequence[int] = 0
) -> Tensor:
    """Convolution of stride 1 of the tensors (B, C_i, *space) concatenated along their channels; (B, C_out, *space').

    `weight` (C_out, sum of C_i, k, ...). The fast form on the CPU adds up one convolution per part, each with its share
    of the weights, and never makes the concatenated tensor. With 96 channels becoming 14 at 48^3 it takes 0.86 of the
    time forward and backward; with as many channels out as in each part it is within 4 % of the plain form.
    """
    if len(parts) == 1:
        return dense_conv(parts[0], weight, bias, padding=padding)
    if not all(fast_on_cpu(part, weight) for part in parts):
        return conv_of_concat_plain(parts, weight, bias, padding=padding)
    if parts[0].shape[0] == 1 and any(part.shape[1:4].numel() <= _ONEDNN_FROM for part in parts):
        return dense_conv(torch.cat(tuple(parts), dim=1), weight, bias, padding=padding)
    shares = torch.split(weight, [part.shape[1] for part in parts], dim=1)
    out = dense_conv(parts[0], shares[0], bias, padding=padding)
    for part, share in zip(parts[1:], shares[1:], strict=True):
        out += dense_conv(part, share, None, padding=padding)
    return out
