"""When the fast forms for the CPU apply."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_plain: ContextVar[bool] = ContextVar("plain", default=False)


def fast_on_cpu(x: Tensor, *parameters: Tensor) -> bool:
    """Whether `x` (B, C, D, H, W) and the parameters are float32 on the CPU, outside autocast and compilation.

    Elsewhere PyTorch's own operations run: on other devices they are the fast ones, in other dtypes the exact ones, and
    compilers and exporters know them.
    """
    return (
        x.ndim == 5
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (x, *parameters))
        and not torch.is_autocast_enabled("cpu")
        and not plain_forms_wanted()
    )


def plain_forms_wanted() -> bool:
    """Whether a compiler, exporter or tracer is at work, or `plain_forms` is in force."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or _plain.get()  # type: ignore[attr-defined,no-untyped-call]


@contextmanager
def plain_forms() -> Iterator[None]:
    """Within it every operation runs in its plain form, as in PyTorch's eager mode: for comparisons."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)
