"""The largest plan that fits a memory: found by real training steps, each plan in a process of its own.

The planner's estimate comes from a small patch; here the steps of the training itself are run, with its network, loss,
optimizer and precision, on patches of noise. A process that the system ends for its memory, or that runs out of it,
counts as a plan that does not fit.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from voxelseg.data.layouts import read_dataset
from voxelseg.errors import ConfigError, VoxelsegError, WorkerError, memory_ran_out
from voxelseg.parallel import call_in_process
from voxelseg.patches.loader import Batch
from voxelseg.plan.plan import Plan
from voxelseg.train.config import RunConfig
from voxelseg.train.fitting import prepare_torch
from voxelseg.train.loop.segmentation import Segmentation
from voxelseg.train.loop.step import Stepper
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.machines.resources import free_memory, peak_bytes, resident_bytes
from voxelseg.train.run import build_network

MOST_TRIALS = 10
STEPS = 3
"""Of each trial: the first one makes the optimizer's state, the others are timed."""
CLOSE_ENOUGH = 1.03
"""A plan with less than this many times the voxels of one that fits is not worth a trial."""
_FIRST_TO_BE_ENDED = "1000"
"""So that a system that runs out of memory ends a trial, not something else."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A plan whose steps are tried; all that another process needs."""

    data: Path
    model: str
    config: RunConfig
    plan: Plan
    device: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial."""

    plan: Plan
    peak_gb: float | None
    """Most that a step took; None if the memory ran out, or the system ended the process."""
    step_s: float | None
    """Seconds of a step, without the making of its batch."""
    fits: bool

    @property
    def voxels(self) -> int:
        """Of a step."""
        return voxels_of(self.plan)


def voxels_of(plan: Plan) -> int:
    """Voxels of all patches of a step with `plan`."""
    return plan.batch_size * prod(plan.patch_size)


def probe(
    first_voxels: int,
    plan_of: Callable[[int], Plan],
    measure: Callable[[Plan], tuple[float, float] | None],
    *,
    budget_gb: float,
    fixed_gb: float = 0.0,
) -> Iterator[Outcome]:
    """Trials of plans of more and fewer voxels a step, until the largest that fits `budget_gb` is among them.

    `plan_of` makes the plan for so many voxels, and raises ConfigError for too few; `measure` gives the peak in GB and
    the seconds of a step, None if the memory ran out. `fixed_gb` is what a step takes whatever its voxels. Each next
    number of voxels follows from the peaks so far, which grow in proportion to it.
    """
    wanted, tried = first_voxels, set[int]()
    fitting: Outcome | None = None
    failing: Outcome | None = None
    while len(tried) < MOST_TRIALS:
        try:
            plan = plan_of(wanted)
        except ConfigError:
            if fitting is None and tried:
                return  # even the smallest patch does not fit
            raise
        if voxels_of(plan) in tried:
            return
        tried.add(voxels_of(plan))
        found = measure(plan)
        peak_gb, step_s = found or (None, None)
        outcome = Outcome(plan=plan, peak_gb=peak_gb, step_s=step_s, fits=peak_gb is not None and peak_gb <= budget_gb)
        yield outcome
        if outcome.fits:
            fitting = outcome
        else:
            failing = outcome
        wanted = _next_voxels(fitting, failing, budget_gb=budget_gb, fixed_gb=fixed_gb)
        if fitting is not None and wanted < CLOSE_ENOUGH * fitting.voxels:
            return


def _next_voxels(fitting: Outcome | None, failing: Outcome | None, *, budget_gb: float, fixed_gb: float) -> int:
    """How many voxels to try next: as many as should fit, but fewer than have failed."""
    known = fitting or failing
    assert known is not None
    growing = 0.0 if known.peak_gb is None else known.peak_gb - fixed_gb
    predicted = known.voxels * (budget_gb - fixed_gb) / growing if growing > 0 else known.voxels / 2
    if failing is None:
        return int(predicted)
    if fitting is None:
        return int(min(predicted, 0.9 * failing.voxels))
    between = (fitting.voxels + failing.voxels) / 2
    return int(predicted if predicted < failing.voxels else between)


def measure_steps(trial: Trial) -> tuple[float, float] | None:
    """Peak in GB and seconds of a step with the plan of `trial`, in another process; None if the memory ran out."""
    try:
        return call_in_process(_run_steps, trial)
    except WorkerError:  # ended by the system
        return None


def free_gb(device: str) -> float:
    """Free memory of a GPU in GB, as a process that uses it finds it; VoxelsegError if it cannot be told."""
    free = call_in_process(_free, device)
    if free is None:
        raise VoxelsegError(f"{device}: how much memory is free cannot be told here. Give --memory-gb.")
    return free / 1e9


def _free(device: str) -> int | None:
    return free_memory(torch.device(device))


def _run_steps(trial: Trial) -> tuple[float, float] | None:
    with suppress(OSError):  # only on Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_BE_ENDED)
    device = torch.device(trial.device)
    prepare_torch(trial.config.train, device, 0)
    dataset = read_dataset(trial.data)
    torch.ones(1, device=device)  # the device's own memory is not the training's
    before = _known(resident_bytes())
    try:
        network = build_network(trial.model, dataset, trial.config, trial.plan).to(device)
        alone = Processes.alone(device)
        stepper = Stepper(
            network,
            trial.config.train,
            Segmentation(network, trial.config.train, dataset.labels, alone),
            transfer=trial.config.transfer,
            sparse=trial.config.sparse,
            seed=0,
            processes=alone,
        )
        highest = len(dataset.labels.region_table) if dataset.labels.has_regions else dataset.labels.num_outputs
        seconds = []
        for number in range(STEPS):
            batches = [_noise(trial.plan, highest) for _ in range(trial.config.train.accumulate)]
            began = time.perf_counter()
            stepper.gradients(batches)
            stepper.update(1e-6)
            stepper.finish(step=number + 1, progress=0.0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if memory_ran_out(error):
            return None
        raise
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _known(peak_bytes()) - before
    return peak / 1e9, min(seconds[1:])


def _noise(plan: Plan, num_targets: int) -> Batch:
    image = torch.randn(plan.batch_size, len(plan.channels), *plan.patch_size)
    target = torch.randint(num_targets, (plan.batch_size, *plan.patch_size), dtype=torch.int16)
    return image, target


def _known(size: int | None) -> int:
    """`size`; ConfigError where the system does not say it."""
    if size is None:
        raise ConfigError("the memory of a CPU can be probed on Linux only. Leave out --probe.")
    return size
