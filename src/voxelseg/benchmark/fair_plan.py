"""One plan for all contestants: a patch that every network takes, in the memory of the hungriest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import lcm
from typing import TypeVar

import torch

from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError, VoxelsegError
from voxelseg.nets import Network
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import Levels, PlanLimits, fitting_patch, make_plan, override_plan
from voxelseg.train.config import RunConfig
from voxelseg.train.loop.optimizer import build_optimizer
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.machines.estimates import Need, check_needs, step_need
from voxelseg.train.machines.memory import plan_limits
from voxelseg.train.run import build_network

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Contender:
    """A network with its configuration: what decides the plan."""

    model: str
    config: RunConfig


@dataclass(frozen=True)
class Reason:
    """What one contestant asks of the plan."""

    divisor: tuple[int, ...]
    """Multiple that each axis of a patch must be."""
    voxels_per_step: int | None
    """What fits into its memory; None where the plan was there before, and this was not asked."""
    deep_supervision: bool
    """Whether lower resolutions of its decoder are trained, too: some networks have no heads there."""


def each_contestant(items: Mapping[str, Item], check: Callable[[Item], Value]) -> dict[str, Value]:
    """What `check` returns for each; ConfigError that names all contestants with whom something is wrong, and what."""
    found, wrong = {}, []
    for name, one in items.items():
        try:
            found[name] = check(one)
        except VoxelsegError as error:
            wrong.append(f"{name}: {error}")
    if len(wrong) == 1:
        raise ConfigError(wrong[0])
    if wrong:
        raise ConfigError("\n  ".join([f"{len(wrong)} contestants cannot take part:", *wrong]))
    return found


def fair_plan(
    fingerprint: Fingerprint,
    dataset: Dataset,
    contenders: Mapping[str, Contender],
    *,
    device: torch.device,
    memory_gb: float | None,
    fixed: Mapping[str, object],
    known: Plan | None,
    begun: bool,
) -> tuple[Plan, dict[str, Reason]]:
    """The plan of all, and what each asked of it; `fixed` are the user's values.

    They replace those of `known`, a plan that was made before; if a benchmark was `begun` with it, it stays as it is.
    Without `known` a step has as many voxels as fit into `memory_gb`, or the device's default, with the hungriest
    network. ConfigError for what a network cannot have, and if a patch that stays does not suit all.
    """
    limits: dict[str, PlanLimits] = {}
    if known is None:
        limits = each_contestant(
            contenders, lambda one: plan_limits(one.model, dataset, one.config, device, memory_gb=memory_gb)
        )
        planned = make_plan(fingerprint, common_limits(list(limits.values())), fixed)
    else:
        planned = known if begun else override_plan(known, fingerprint, fixed)
    networks = each_contestant(contenders, lambda one: _checked_network(one, dataset, planned))
    divisors = {name: network.divisor for name, network in networks.items()}
    fitted = _fitted(planned, divisors)
    if begun and fitted != planned:
        lacking = [name for name, one in divisors.items() if _fitted(planned, {name: one}) != planned]
        raise ConfigError(
            f"{', '.join(lacking)}: takes patches in multiples of {_product(divisors)}, and this benchmark was begun "
            f"with patches of {list(planned.patch_size)}. Compare in another --out, with all from the start."
        )
    each_contestant(contenders, lambda one: _check_patches(one.config, fitted))
    return fitted, {
        name: Reason(tuple(network.divisor), limits[name].voxels_per_step if limits else None, network.deep_supervision)
        for name, network in networks.items()
    }


def check_memory(
    contenders: Mapping[str, Contender], dataset: Dataset, plan: Plan, device: torch.device, *, at_once: int
) -> list[str]:
    """Warnings where the memory that is free may not be enough for trainings `at_once`.

    ConfigError that names the contestants that cannot train alone in it.
    """
    needs: list[Need] = []

    def check(one: Contender) -> list[str]:
        need = step_need(_checked_network(one, dataset, plan), plan, one.config.train, Processes.alone(device))
        if need is None:  # the system does not say what is free
            return []
        needs.append(need)
        return check_needs([need])

    found = each_contestant(contenders, check)
    warnings = [f"{name}: {warning}" for name, listed in found.items() for warning in listed]
    most = max((need.most for need in needs), default=0)
    if not warnings and needs and at_once * most > needs[0].free:
        warnings.append(f"Memory: {at_once} trainings at a time may take more than is free. Lower --jobs if they fail.")
    return warnings


def _check_patches(config: RunConfig, plan: Plan) -> None:
    config.train.sampling.check_step(config.train.accumulate * plan.batch_size)
    config.augmentation.check_patch(plan.patch_size)


def common_limits(limits: list[PlanLimits]) -> PlanLimits:
    """What all of them allow: patches in a multiple of every divisor, and the fewest voxels."""

    def divisor(strides: Levels, kernels: Levels) -> tuple[int, ...]:
        return _least_multiple([tuple(one.divisor(strides, kernels)) for one in limits])

    return PlanLimits(divisor=divisor, voxels_per_step=min(one.voxels_per_step for one in limits))


def _least_multiple(divisors: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(lcm(*axis) for axis in zip(*divisors, strict=True))


def _product(divisors: Mapping[str, tuple[int, ...]]) -> list[int]:
    return list(_least_multiple(list(divisors.values())))


def _checked_network(one: Contender, dataset: Dataset, plan: Plan) -> Network:
    with torch.device("meta"):
        network = build_network(one.model, dataset, one.config, plan)
    build_optimizer(network, one.config.train, one.config.transfer)  # refuses patterns that choose nothing
    return network


def _fitted(plan: Plan, divisors: Mapping[str, tuple[int, ...]]) -> Plan:
    """`plan` with a patch that all networks can take, rounded up and noted."""
    patch = fitting_patch(plan.patch_size, _product(divisors))
    if patch == plan.patch_size:
        return plan
    note = f"The patch was rounded up from {list(plan.patch_size)} to what all contestants take."
    return plan.changed(patch_size=patch, notes=(*plan.notes, note))
