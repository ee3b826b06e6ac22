"""The type that a training computes in."""

import torch

from voxelseg.errors import ConfigError
from voxelseg.predict.precision import half_precision
from voxelseg.train.loop.config import LoopConfig


def training_precision(config: LoopConfig, device: torch.device) -> torch.dtype:
    """Type that the network computes in; ConfigError for one that the device does not have."""
    if config.precision == "fp32":
        return torch.float32
    has = half_precision(device)
    if config.precision == "auto":
        return has or torch.float32
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    if device.type == "cpu":
        # bfloat16: torch 2.13's weight gradients of convolutions are garbage for few slices (docs/log.md)
        raise ConfigError(f"train.precision={config.precision} needs a GPU. On a CPU use fp32.")
    if wanted == torch.bfloat16 and has == torch.float16:
        raise ConfigError("train.precision=bf16: this GPU does not compute in bfloat16. Use fp16 or auto.")
    return wanted
