"""When the fast forms for the CPU apply."""

import torch
from torch import Tensor


def fast_on_cpu(x: Tensor, *parameters: Tensor) -> bool:
    """Whether `x` (B, C, D, H, W) and the parameters are float32 on the CPU, outside autocast and compilation.

    Elsewhere PyTorch's own operations run: on other devices they are the fast ones, in other dtypes the exact ones, and
    compilers and exporters know them.
    """
    return (
        x.ndim == 5
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (x, *parameters))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
