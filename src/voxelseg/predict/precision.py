"""Which half precision a device has."""

import torch


def half_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 on a GPU that computes in it, else float16 on a GPU; None on a CPU, where neither saves time."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
