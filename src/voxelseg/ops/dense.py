"""Ordinary convolutions, in which every output channel sees every input channel."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelseg.ops.dispatch import fast_on_cpu


def dense_conv_plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Slow twin of `dense_conv`: PyTorch's convolution, in 2-D or 3-D."""
    conv: Any = F.conv3d if x.ndim == 5 else F.conv2d
    y: Tensor = conv(x, weight, bias, stride, padding)
    return y


def dense_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Convolution of (B, C, *space), zero-padded, with `weight` (C_out, C, k, ...).

    On the CPU, PyTorch gives a single sample with C * D * H up to 20480 to a kernel of its own instead of oneDNN, which
    takes 2 to 5 times as long (64 to 64 channels of 16^3: 21 ms, 16 to 16 of 24^3: 11 ms; oneDNN 8 and 2 ms). Windows
    predicted one at a time meet it. The fast form asks for oneDNN; gradients are PyTorch's in either form.
    """
    if x.shape[0] > 1 or not fast_on_cpu(x, weight) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return dense_conv_plain(x, weight, bias, stride=stride, padding=padding)
    y: Tensor = torch.mkldnn_convolution(x, weight, bias, _triple(padding), _triple(stride), (1, 1, 1), 1)
    return y


def _triple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)
