import os
import signal

import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.train.config import build_config
from voxelseg.train.machines.probe import (
    CLOSE_ENOUGH,
    MOST_TRIALS,
    Outcome,
    Trial,
    free_gb,
    measure_steps,
    probe,
    voxels_of,
)


@pytest.fixture
def plan_of(prepared):
    """Plans of one patch of 10 x 10 x W: W voxels more along one axis are 100 more; fewer than 300 are refused."""

    def make(voxels: int):
        if voxels < 300:
            raise ConfigError(f"{voxels} voxels fit into a training step")
        return prepared.plan.changed(patch_size=(10, 10, voxels // 100), batch_size=1)

    return make


def peaks(per_voxel, *, fixed=0.0, ends_at=float("inf")):
    """Memory that grows in proportion to the voxels, until the system ends the process."""

    def measure(plan):
        voxels = voxels_of(plan)
        return None if voxels >= ends_at else (fixed + per_voxel * voxels, 1e-4 * voxels)

    return measure


@pytest.mark.parametrize("estimate", [500, 4_000, 90_000])
@pytest.mark.parametrize("ends_at", [float("inf"), 20_000])
def test_the_largest_plan_that_fits_is_found_whatever_the_estimate_was(plan_of, estimate, ends_at):
    # 1 GB and 0.5 MB a voxel: 18,000 voxels take 10 GB, and 18,000 are a patch of 10 x 10 x 180
    outcomes = list(probe(estimate, plan_of, peaks(5e-4, fixed=1.0, ends_at=ends_at), budget_gb=10.0, fixed_gb=1.0))
    best = max(one.voxels for one in outcomes if one.fits)
    assert 18_000 / CLOSE_ENOUGH <= best <= 18_000
    assert all(one.peak_gb is None or one.peak_gb > 10.0 for one in outcomes if not one.fits)
    assert len(outcomes) <= MOST_TRIALS
    assert len({one.voxels for one in outcomes}) == len(outcomes)  # none is tried twice


def test_memory_that_does_not_grow_in_proportion_is_closed_in_upon(plan_of):
    def measure(plan):
        return 1e-8 * voxels_of(plan) ** 2, 1.0  # 10 GB at 31,600

    outcomes = list(probe(5_000, plan_of, measure, budget_gb=10.0))
    assert 0.9 * 31_600 < max(one.voxels for one in outcomes if one.fits) <= 31_600


def test_where_nothing_fits_the_smallest_is_tried_last(plan_of):
    outcomes = list(probe(5_000, plan_of, peaks(1.0, fixed=0.0), budget_gb=0.5))
    assert outcomes
    assert not any(one.fits for one in outcomes)


def test_a_plan_that_more_memory_does_not_change_is_tried_once(prepared):
    (outcome,) = probe(1_000, lambda _: prepared.plan, peaks(1e-9), budget_gb=10.0)
    assert outcome == Outcome(plan=prepared.plan, peak_gb=outcome.peak_gb, step_s=outcome.step_s, fits=True)


# ---------------------------------------------------------------------------------------------------- real steps


@pytest.fixture
def trial(prepared):
    """Function for a trial of a tiny U-Net with patches of 16 x 16 x W voxels."""

    def make(width: int, *settings: str) -> Trial:
        return Trial(
            data=prepared.dataset.source,
            model="unet_s",
            config=build_config(["model.width=4", *settings]),
            plan=prepared.plan.changed(patch_size=(16, 16, width), batch_size=2),
            device="cpu",
        )

    return make


@pytest.mark.slow
def test_larger_patches_and_averages_of_the_weights_take_more(trial):
    small, large = measure_steps(trial(64)), measure_steps(trial(1024))
    assert small is not None
    assert large is not None
    assert large[0] > 2 * small[0]
    assert large[1] > small[1]
    # float32: 2 x 4 channels of 16 x 16 x 1024 voxels are 8 MB, and a step keeps several of these
    assert 0.03 < large[0] < 3


@pytest.mark.slow
def test_memory_that_runs_out_is_no_error(trial):
    assert measure_steps(trial(2**36)) is None


def end_itself(trial):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_the_system_ends_is_no_error(trial, monkeypatch):
    monkeypatch.setattr("voxelseg.train.machines.probe._run_steps", end_itself)
    assert measure_steps(trial(64)) is None


@pytest.mark.slow
def test_mistakes_are_errors(trial):
    with pytest.raises(ConfigError, match="widht"):
        measure_steps(trial(64, "model.widht=3"))


@pytest.mark.slow
def test_free_memory_is_told_in_gb():
    assert 1e-3 < free_gb("cpu") < 1e6


@pytest.mark.gpu
def test_steps_on_a_gpu_are_measured(trial):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from dataclasses import replace

    found = measure_steps(replace(trial(256), device="cuda:0"))
    assert found is not None
    assert 0 < found[0] < 10
