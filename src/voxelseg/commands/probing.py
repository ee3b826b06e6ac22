"""What `plan --probe` does: trials of real training steps, shown as a table."""

import dataclasses
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import make_plan
from voxelseg.train.config import RunConfig
from voxelseg.train.machines.memory import plan_limits, training_bytes_of_weights
from voxelseg.train.machines.probe import Outcome, Trial, free_gb, measure_steps, probe
from voxelseg.train.run import build_network

CHANGE_A_STEP = {"optimizer", "ema", "precision", "checkpointing", "compile", "deterministic", "batch_dice", "threads"}
"""Settings of the training that change what a step takes."""


def probing_budget(device: torch.device, memory_gb: float | None) -> float:
    """GB to stay within: those given, else what a GPU has free; ConfigError for a CPU without."""
    if memory_gb is not None:
        return memory_gb
    if device.type == "cpu":
        raise ConfigError("--probe on a CPU needs --memory-gb: the memory that a training step may take.")
    return free_gb(str(device))


def probed_plan(
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: RunConfig,
    device: torch.device,
    memory_gb: float,
    *,
    console: Console | None,
) -> Plan:
    """The plan with the most voxels a step whose real steps stay within `memory_gb`.

    The planner decides as ever whether more voxels become a larger patch or a larger batch. ConfigError if not even the
    smallest patch fits.
    """
    limits = plan_limits(model, dataset, config, device, memory_gb=memory_gb)
    with torch.device("meta"):
        network = build_network(model, dataset, config)
    fixed_gb = training_bytes_of_weights(network, config.train) / 1e9
    trial = partial(Trial, data=dataset.source, model=model, config=config, device=str(device))
    outcomes: list[Outcome] = []
    for outcome in probe(
        limits.voxels_per_step,
        lambda voxels: make_plan(fingerprint, dataclasses.replace(limits, voxels_per_step=voxels), config.plan),
        lambda plan: measure_steps(trial(plan=plan)),
        budget_gb=memory_gb,
        fixed_gb=fixed_gb,
    ):
        outcomes.append(outcome)
        if console is not None:
            console.print(f"tried {_words(outcome)}", soft_wrap=True, highlight=False, markup=False)
    gb_per_voxel = (memory_gb - fixed_gb) / limits.voxels_per_step
    if console is not None:
        console.print(_table(outcomes, memory_gb, fixed_gb=fixed_gb, gb_per_voxel=gb_per_voxel))
    fitting = [outcome for outcome in outcomes if outcome.fits]
    if not fitting:
        raise ConfigError(
            f"memory budget {memory_gb:.3g} GB: none of {len(outcomes)} trials fitted, the smallest was "
            f"{_words(outcomes[-1])}. Raise --memory-gb, or choose a smaller network, patch or batch."
        )
    best = max(fitting, key=lambda outcome: outcome.voxels)
    note = f"Patch and batch were found by training steps on {device.type}: {best.peak_gb:.2f} GB at most."
    return best.plan.changed(notes=(*best.plan.notes, note))


def _words(outcome: Outcome) -> str:
    """A trial in words: patch, batch, and what became of it."""
    size = f"patch {_size(outcome.plan)}, batch {outcome.plan.batch_size}"
    if outcome.peak_gb is None:
        return f"{size}: the memory ran out"
    return f"{size}: {outcome.peak_gb:.2f} GB, {outcome.step_s:.2f} s a step"


def _size(plan: Plan) -> str:
    return " x ".join(map(str, plan.patch_size))


def _table(outcomes: list[Outcome], budget_gb: float, *, fixed_gb: float, gb_per_voxel: float) -> Table:
    """All trials, and what the planner's estimate had said of them."""
    table = Table(title=f"Training steps within {budget_gb:.3g} GB", title_justify="left")
    for name in ("Patch", "Batch", "Peak (GB)", "Estimate (GB)", "Step (s)", "Fits"):
        table.add_column(name, justify="left" if name == "Patch" else "right")
    for outcome in sorted(outcomes, key=lambda one: one.voxels):
        table.add_row(
            _size(outcome.plan),
            str(outcome.plan.batch_size),
            "ran out" if outcome.peak_gb is None else f"{outcome.peak_gb:.2f}",
            f"{fixed_gb + gb_per_voxel * outcome.voxels:.2f}",
            "" if outcome.step_s is None else f"{outcome.step_s:.2f}",
            "yes" if outcome.fits else "no",
        )
    return table
