import pytest
import torch

from voxelseg.predict.precision import half_precision


def test_a_cpu_has_no_use_for_half_precision():
    assert half_precision(torch.device("cpu")) is None


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_takes_bfloat16_where_it_computes_in_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert half_precision(torch.device("cuda")) == expected
