import torch

from voxelseg.ops.dispatch import fast_on_cpu


def test_fast_forms_are_for_float32_volumes_on_the_cpu_alone():
    volume = torch.zeros(1, 1, 2, 2, 2)
    assert fast_on_cpu(volume, volume)
    assert not fast_on_cpu(volume.double())
    assert not fast_on_cpu(volume, volume.half())
    assert not fast_on_cpu(volume[0])
    assert not fast_on_cpu(volume.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not fast_on_cpu(volume)
