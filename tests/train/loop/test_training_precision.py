import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.precision import training_precision


def test_half_precision_is_used_where_the_device_has_it():
    cpu = torch.device("cpu")
    assert training_precision(TrainConfig(), cpu) == torch.float32
    for half in ("bf16", "fp16"):
        with pytest.raises(ConfigError, match=f"{half} needs a GPU. On a CPU use fp32"):
            training_precision(TrainConfig(precision=half), cpu)


def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert training_precision(TrainConfig(), gpu) == torch.float16
    assert training_precision(TrainConfig(precision="fp32"), gpu) == torch.float32
    with pytest.raises(ConfigError, match="does not compute in bfloat16"):
        training_precision(TrainConfig(precision="bf16"), gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert training_precision(TrainConfig(), gpu) == torch.bfloat16
