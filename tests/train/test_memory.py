import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.train.config import build_config
from voxelseg.train.memory import CPU_VOXELS_PER_STEP, plan_limits, training_bytes_per_voxel

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_twice_the_width_takes_about_twice_the_memory():
    narrow, wide = (
        training_bytes_per_voxel(
            create_model("mednext_xs", in_channels=1, num_classes=2, width=width, blocks=1), in_channels=1
        )
        for width in (4, 8)
    )
    assert 1.8 < wide / narrow < 2.2


def test_the_budget_bounds_the_voxels_of_a_step(prepared):
    config = build_config(["model.width=4", "model.blocks=1"])
    one, two = (plan_limits("mednext_xs", prepared.dataset, config, GPU, memory_gb=gb).voxels_per_step for gb in (1, 2))
    assert two == pytest.approx(2 * one, abs=2)


def test_on_a_cpu_time_bounds_the_patch_however_much_memory_there_is(prepared):
    config = build_config(["model.width=4", "model.blocks=1"])
    limits = plan_limits("mednext_xs", prepared.dataset, config, CPU, memory_gb=1000)
    assert limits.voxels_per_step == CPU_VOXELS_PER_STEP
    assert limits.divisor == (16, 16, 16)


def test_networks_that_follow_the_plan_bring_no_divisor(prepared):
    assert plan_limits("unet_s", prepared.dataset, build_config(["model.width=4"]), CPU).divisor is None


def test_no_memory_at_all_is_an_error(prepared):
    with pytest.raises(ConfigError, match="expected more than 0"):
        plan_limits("unet_s", prepared.dataset, build_config([]), CPU, memory_gb=0)
