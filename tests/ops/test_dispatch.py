import torch

from voxelseg.ops.dispatch import fast_on_cpu, plain_forms, plain_forms_wanted


def test_fast_forms_are_for_float32_volumes_on_the_cpu_alone():
    volume = torch.zeros(1, 1, 2, 2, 2)
    assert fast_on_cpu(volume, volume)
    assert not fast_on_cpu(volume.double())
    assert not fast_on_cpu(volume, volume.half())
    assert not fast_on_cpu(volume[0])
    assert not fast_on_cpu(volume.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not fast_on_cpu(volume)


def test_plain_forms_are_in_force_until_the_end_of_the_block():
    volume = torch.zeros(1, 1, 2, 2, 2)
    with plain_forms():
        assert plain_forms_wanted()
        assert not fast_on_cpu(volume)
    assert not plain_forms_wanted()
    assert fast_on_cpu(volume)


def test_tracers_see_plain_forms_alone():
    volume = torch.ones(1, 1, 2, 2, 2)
    traced = torch.jit.trace(lambda x: 2 * x if fast_on_cpu(x) else 3 * x, volume, check_trace=False)
    assert torch.equal(traced(volume), 3 * volume)
