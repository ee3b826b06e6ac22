"""What each network of a benchmark costs on this machine: counted, and measured in processes of its own.

Latency is that of a prediction of one patch, as `voxelseg predict` runs it: every network runs in turn, several times
over, so that what else the machine does meets all of them, and the median counts. Memory is the peak of a process that
does nothing else, beyond what it held before it built the network.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from voxelseg.benchmark.fair_plan import Contender
from voxelseg.compare.cost import Cost
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import DataError, VoxelsegError, WorkerError, memory_ran_out
from voxelseg.files import read_json, sha256_of_json, write_json
from voxelseg.nets.complexity import Complexity, count
from voxelseg.parallel import call_in_process
from voxelseg.plan.plan import Plan
from voxelseg.predict.precision import half_precision
from voxelseg.train.config import RunConfig
from voxelseg.train.fitting import prepare_torch
from voxelseg.train.machines.probe import Trial, measure_steps
from voxelseg.train.machines.resources import peak_bytes, resident_bytes
from voxelseg.train.run import build_network

Found = TypeVar("Found")

COSTS_FILE = "costs.json"
ROUNDS = 3
"""So often every network has its turn, each time in a fresh process."""
MOST_REPEATS = 10
"""Timed predictions of a turn, at most; one before them is not counted."""
LONGEST_TURN_S = 2.0
"""A turn ends after the prediction with which it has taken so long, and after two at least."""


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is equal for all networks."""

    data: Path
    plan: Plan
    device: str
    threads: int


@dataclass(frozen=True)
class Turn:
    """One turn of one network."""

    seconds: tuple[float, ...]
    """Of each timed prediction."""
    peak_bytes: int | None


def measured_costs(
    measuring: Measuring,
    contenders: Mapping[str, Contender],
    file: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
) -> dict[str, Cost]:
    """Cost of each network; what `file` has of the same network, patch, device and threads is kept.

    What cannot be measured is None, and a note says why. `progress` is called with the number of networks that are done
    and what is in work.
    """
    tell = progress or (lambda *_: None)
    known = _known(file)
    keys = {name: _key(measuring, one) for name, one in contenders.items()}
    costs = {name: cost for name, (key, cost) in known.items() if keys.get(name) == key}
    missing = {name: one for name, one in contenders.items() if name not in costs}
    dataset = read_dataset(measuring.data)
    turns: dict[str, list[Turn | str]] = {name: [] for name in missing}
    for number in range(ROUNDS):
        for name, one in missing.items():
            tell(len(costs), f"{name}: prediction, turn {number + 1} of {ROUNDS}")
            turns[name].append(_found_or_fault(partial(call_in_process, _predict, (measuring, one))))
    for name, one in missing.items():
        tell(len(costs), f"{name}: training step")
        training = _found_or_fault(partial(_train, measuring, one))
        counted = _found_or_fault(partial(_counted, measuring, one, dataset))
        costs[name] = _cost(measuring, counted, turns[name], training)
        stored = {other: {"measured_for": keys[other], "cost": cost.to_dict()} for other, cost in costs.items()}
        others = {other: {"measured_for": key, "cost": cost.to_dict()} for other, (key, cost) in known.items()}
        write_json(file, {**others, **stored})
    return {name: costs[name] for name in contenders}


def _known(file: Path) -> dict[str, tuple[str, Cost]]:
    """Name -> what it was measured for, and its cost; nothing of a damaged file, which is written again."""
    if not file.is_file():
        return {}
    with suppress(DataError, KeyError, TypeError, AttributeError):
        return {name: (one["measured_for"], Cost.from_dict(one["cost"])) for name, one in read_json(file).items()}
    return {}


def _key(measuring: Measuring, one: Contender) -> str:
    plan = measuring.plan.model_dump(mode="json", exclude={"notes"})
    where = [platform.node(), measuring.device, measuring.threads]  # times of two machines are not to be compared
    return sha256_of_json([one.model, one.config.model_dump(mode="json"), plan, *where])


def _found_or_fault(measure: Callable[[], Found]) -> Found | str:
    """What `measure` finds, or why it finds nothing."""
    try:
        return measure()
    except WorkerError:
        return "the system ended the process, which mostly means that the memory ran out"
    except VoxelsegError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a network does here, the trainings must get their page
        if memory_ran_out(error):
            return "the memory ran out"
        return ": ".join((type(error).__name__, *str(error).splitlines()[:1]))


def _predict(task: tuple[Measuring, Contender]) -> Turn:
    """Timed predictions of one patch of noise, and the most that the process came to hold."""
    measuring, one = task
    device = torch.device(measuring.device)
    prepare_torch(_with_threads(one.config, measuring.threads).train, device, 0)
    dataset = read_dataset(measuring.data)
    torch.ones(1, device=device)  # the device's own memory is not the network's
    before = resident_bytes()
    network = build_network(one.model, dataset, one.config, measuring.plan).to(device).eval()
    if network.deep_supervision:
        network.deep_supervision = False
    half = half_precision(device)
    patch = torch.randn(1, len(measuring.plan.channels), *measuring.plan.patch_size, device=device)
    seconds: list[float] = []
    with torch.inference_mode(), nullcontext() if half is None else torch.autocast(device.type, dtype=half):
        network(patch)
        while len(seconds) < 2 or (len(seconds) < MOST_REPEATS and sum(seconds) < LONGEST_TURN_S):
            _finish(device)
            began = time.perf_counter()
            network(patch)
            _finish(device)
            seconds.append(time.perf_counter() - began)
    return Turn(tuple(seconds), _peak(device, before))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device, before: int | None) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = peak_bytes()
    return None if peak is None or before is None else peak - before


def _train(measuring: Measuring, one: Contender) -> Turn:
    """Real training steps, in a process of their own; MemoryError if the memory ran out."""
    found = measure_steps(
        Trial(
            data=measuring.data,
            model=one.model,
            config=_with_threads(one.config, measuring.threads),
            plan=measuring.plan,
            device=measuring.device,
        )
    )
    if found is None:
        raise MemoryError
    peak_gb, step_s = found
    return Turn((step_s,), round(peak_gb * 1e9))


def _with_threads(config: RunConfig, threads: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"threads": threads})})


def _cost(measuring: Measuring, counted: Complexity | str, turns: Sequence[Turn | str], training: Turn | str) -> Cost:
    found = [turn for turn in turns if isinstance(turn, Turn)]
    peaks = [turn.peak_bytes for turn in found if turn.peak_bytes is not None]
    seconds = [second for turn in found for second in turn.seconds]
    faults = dict.fromkeys(f"Prediction: {turn}." for turn in turns if isinstance(turn, str))
    if isinstance(counted, str):
        faults[f"Counting: {counted}."] = None
    notes = [f"Latency: median of {len(seconds)} predictions in {len(found)} turns with the others."] if found else []
    if isinstance(training, str):
        faults[f"Training step: {training}."] = None
    return Cost(
        parameters=counted.parameters if isinstance(counted, Complexity) else None,
        macs=counted.macs if isinstance(counted, Complexity) else None,
        patch_size=measuring.plan.patch_size,
        batch_size=measuring.plan.batch_size,
        device=measuring.device,
        threads=measuring.threads,
        latency_s=median(seconds) if seconds else None,
        peak_memory_bytes=max(peaks, default=None),
        training_memory_bytes=training.peak_bytes if isinstance(training, Turn) else None,
        step_s=training.seconds[0] if isinstance(training, Turn) else None,
        notes=(*notes, *faults),
    )


def _counted(measuring: Measuring, one: Contender, dataset: Dataset) -> Complexity:
    """What follows from the network alone."""
    plain = one.config.model_copy(update={"train": one.config.train.model_copy(update={"deep_supervision": False})})
    with torch.device("meta"):
        network = build_network(one.model, dataset, plain, measuring.plan)
    return count(network, measuring.plan.patch_size)
