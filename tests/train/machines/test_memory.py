import weakref

import pytest
import torch
from torch import nn

from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.nets import Network, create_model
from voxelseg.ops.dispatch import plain_forms
from voxelseg.train.config import TrainConfig, build_config
from voxelseg.train.machines.memory import (
    CPU_VOXELS_PER_STEP,
    SAFETY,
    plan_limits,
    training_bytes_of_weights,
    training_bytes_per_voxel,
)

CPU = torch.device("cpu")


class TwoLayers(Network):
    """Keeps its input and what the first layer gives, and both layers' weights, whatever the patch."""

    def __init__(self) -> None:
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.layers = nn.Sequential(nn.Conv3d(1, 6, 1), nn.Conv3d(6, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_voxel_costs_the_activations_that_are_kept_and_no_weights():
    # 1 + 6 values of 4 bytes, or of 2 in half precision
    assert training_bytes_per_voxel(TwoLayers(), in_channels=1) == pytest.approx(SAFETY * 28)
    half = training_bytes_per_voxel(TwoLayers(), in_channels=1, precision=torch.bfloat16)
    assert half == pytest.approx(SAFETY * 14)


def test_nothing_is_held_after_counting():
    class Exponential(TwoLayers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x).exp()  # which keeps its output for the backward pass
            outputs.append(weakref.ref(y))
            return y

    outputs: list[weakref.ref[torch.Tensor]] = []
    training_bytes_per_voxel(Exponential(), in_channels=1)
    assert outputs
    assert all(output() is None for output in outputs)


def test_plain_forms_keep_more_than_the_fast_ones_and_half_precision_less():
    model = create_model("mednext_xs", in_channels=1, num_classes=2, width=4, blocks=1)
    fast = training_bytes_per_voxel(model, in_channels=1)
    with plain_forms():
        plain = training_bytes_per_voxel(model, in_channels=1)
        half = training_bytes_per_voxel(model, in_channels=1, precision=torch.bfloat16)
    assert plain > 1.5 * fast
    assert 0.4 * plain < half < 0.8 * plain


def test_checkpointing_is_not_taken_for_a_network_that_keeps_next_to_nothing():
    plain, recomputing = (
        training_bytes_per_voxel(
            create_model("mednext_xs", in_channels=1, num_classes=2, width=4, blocks=1, checkpointing=checkpointing),
            in_channels=1,
        )
        for checkpointing in (False, True)
    )
    assert recomputing == plain


@pytest.mark.parametrize(
    ("settings", "copies"),
    [({}, 4), ({"ema": 0.9}, 5), ({"optimizer": "sgd"}, 3)],  # weights, gradients, and 2 or 1 of the optimizer
)
def test_weights_cost_their_copies(settings, copies):
    # 6 + 6 and 12 + 2 numbers of 4 bytes
    assert training_bytes_of_weights(TwoLayers(), TrainConfig(**settings)) == copies * 26 * 4


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mednext_s", "unet"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_a_gpu_stays_within_the_budget_and_uses_it(prepared, name, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu, config = torch.device("cuda"), build_config([f"train.precision={precision}"])
    limits = plan_limits(name, prepared.dataset, config, gpu, memory_gb=6)
    model = create_model(name, in_channels=1, num_classes=3, deep_supervision=True).to(gpu)
    optimizer = torch.optim.AdamW(model.parameters())
    depth = limits.voxels_per_step // (2 * 64 * 64) // 32 * 32
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(torch.zeros(2, 1, depth, 64, 64, device=gpu))
        sum(output.float().square().mean() for output in outputs).backward()
        optimizer.step()
    assert 3e9 < torch.cuda.max_memory_allocated() < 6e9


def test_twice_the_width_takes_about_twice_the_memory():
    narrow, wide = (
        training_bytes_per_voxel(
            create_model("mednext_xs", in_channels=1, num_classes=2, width=width, blocks=1), in_channels=1
        )
        for width in (4, 8)
    )
    assert 1.8 < wide / narrow < 2.2


class TooLarge(TwoLayers):
    """Asks for more memory than there is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.empty((1, 1, 2**15, 2**15, 2**15)))


def test_memory_that_runs_out_while_a_patch_is_measured_is_told(prepared, monkeypatch):
    monkeypatch.setattr("voxelseg.train.machines.memory.build_network", lambda *_: TooLarge())
    with pytest.raises(VoxelsegError, match="the memory ran out while a small patch showed what unet_s takes"):
        plan_limits("unet_s", prepared.dataset, build_config([]), CPU)


def test_the_budget_bounds_the_voxels_of_a_step(prepared):
    config = build_config(["model.width=4", "model.blocks=1"])
    one, two, four = (
        plan_limits("mednext_xs", prepared.dataset, config, CPU, memory_gb=gb).voxels_per_step for gb in (1, 2, 4)
    )
    assert four - two == pytest.approx(2 * (two - one), abs=3)  # above what the weights take


def test_on_a_cpu_time_bounds_the_patch_unless_a_memory_budget_is_given(prepared):
    config = build_config(["model.width=4", "model.blocks=1"])
    limits = plan_limits("mednext_xs", prepared.dataset, config, CPU)
    assert limits.voxels_per_step == CPU_VOXELS_PER_STEP
    given = plan_limits("mednext_xs", prepared.dataset, config, CPU, memory_gb=1000)
    assert given.voxels_per_step > 1000 * CPU_VOXELS_PER_STEP


def test_a_budget_that_the_weights_use_up_is_an_error(prepared):
    # 4 copies of 4 bytes of 5.6 million parameters: 0.09 GB
    with pytest.raises(ConfigError, match=r"memory budget 0.05 GB: .* mednext_s alone take 0\.0\d+ GB.*--memory-gb"):
        plan_limits("mednext_s", prepared.dataset, build_config([]), CPU, memory_gb=0.05)


@pytest.mark.parametrize(
    ("name", "isotropic", "thick"), [("mednext_xs", (16, 16, 16), (2, 16, 16)), ("unet_s", (4, 4, 4), (2, 4, 4))]
)
def test_the_divisor_follows_the_plan_where_the_network_does(prepared, name, isotropic, thick):
    limits = plan_limits(name, prepared.dataset, build_config(["model.width=4"]), CPU)
    assert limits.divisor(((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3) == isotropic
    assert limits.divisor(((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3))) == thick


def test_no_memory_at_all_is_an_error(prepared):
    with pytest.raises(ConfigError, match="expected a number above 0"):
        plan_limits("unet_s", prepared.dataset, build_config([]), CPU, memory_gb=0)
