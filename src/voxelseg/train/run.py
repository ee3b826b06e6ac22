"""A run: one model trained on one or more folds of one data set, and everything that says how.

RUN/run.json        command, versions, seed, device, data set, configuration, plan, fingerprint
RUN/splits.json     the folds
RUN/plan.json       the plan as it is used
RUN/fold_K/         model.safetensors, best.safetensors, training_state.pt, log.jsonl, validation/; transfer.json if it
                    started from other weights, small_kernel.safetensors if its kernels grew
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxelseg.checkpoint import BEST_FILE, MODEL_FILE
from voxelseg.data.dataset import Dataset
from voxelseg.data.splits import Split, read_splits, write_splits
from voxelseg.errors import ConfigError
from voxelseg.files import locked, read_json, write_json
from voxelseg.nets import Network, create_model, find_network
from voxelseg.nets.network import Levels
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import fitting_patch
from voxelseg.train.config import NetworkConfig, RunConfig
from voxelseg.train.record import MAY_CHANGE, differences, made_with, refuse_others
from voxelseg.train.sparse.settings import make_sparse, sparsity_option
from voxelseg.train.start.origin import origin_checksums

RUN_FILE = "run.json"
SPLITS_FILE = "splits.json"
PLAN_FILE = "plan.json"
_MAY_CHANGE = (*MAY_CHANGE, "config.predict")
"""What another call may set otherwise for a run that is there: the weights depend on it by rounding at most."""
_ORDERED = ("config.transfer.lr_factors",)
"""Of several patterns that fit the last one counts."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all folds of a run share."""

    folder: Path
    dataset: Dataset
    plan: Plan
    splits: list[Split]
    model: str
    config: RunConfig
    seed: int
    device: torch.device

    def fold_folder(self, fold: int) -> Path:
        """RUN/fold_K."""
        return self.folder / f"fold_{fold}"

    def model_file(self, fold: int) -> Path:
        """RUN/fold_K/model.safetensors."""
        return self.fold_folder(fold) / MODEL_FILE

    def best_file(self, fold: int) -> Path:
        """RUN/fold_K/best.safetensors."""
        return self.fold_folder(fold) / BEST_FILE

    def build_model(self, *, kernel_size: int | None = None) -> Network:
        """The network with fresh weights, drawn from the run's seed; with kernels of another size if asked for."""
        torch.manual_seed(self.seed)
        config = self.config
        if kernel_size is not None:
            config = config.model_copy(update={"model": {**config.model, "kernel_size": kernel_size}})
        return build_network(self.model, self.dataset, config, self.plan)


def build_network(model: str, dataset: Dataset, config: NetworkConfig, plan: Plan | None = None) -> Network:
    """Network for the channels and classes of `dataset` with the options of `config`.

    One whose topology follows the data takes it from `plan`, or keeps its own without; one for a single input size
    takes the plan's patch. ConfigError for an unknown model or option, an impossible value, a network of slices, and
    a network or loss that does not take regions.
    """
    entry = find_network(model)
    if entry.exclusive and dataset.labels.has_regions:
        raise ConfigError(
            f"{model} tells classes apart that exclude each other, and those here are regions that may overlap. "
            "`voxelseg models` lists others."
        )
    if config.dice_background and dataset.labels.has_regions:
        raise ConfigError("train.dice_background: regions have no background. Give --set train.dice_background=false.")
    known = {field.name for field in dataclasses.fields(entry.config)}
    options: dict[str, Any] = {}
    if "deep_supervision" in known:
        options["deep_supervision"] = config.deep_supervision
    if config.train.checkpointing is not None:
        options["checkpointing"] = _checkpointing(model, config, known)
    if plan is not None and "image_size" in known:
        options["image_size"] = plan.patch_size
    if "sparsity" in known:
        options |= sparsity_option(config.sparse, config.model)
    topology = {} if plan is None else topology_options(model, config, plan.strides, plan.kernels)
    given = {"in_channels": len(dataset.channels), "num_classes": dataset.labels.num_outputs}
    user_options = _user_options(model, config)
    fixed = given.keys() & config.model.keys()
    if fixed:
        raise ConfigError(f"model.{', model.'.join(sorted(fixed))}: the data set decides this. Leave it out.")
    network = create_model(model, **given, **{**options, **user_options, **topology})
    if len(network.divisor) != 3:
        remedy = "Leave out model.spatial_dims." if "spatial_dims" in known else "`voxelseg models` lists others."
        raise ConfigError(f"{model} with these options takes slices, not volumes. {remedy}")
    make_sparse(network, config.sparse)
    return network


def _checkpointing(model: str, config: NetworkConfig, known: Collection[str]) -> bool:
    """The setting, if the network has such an option and the user's model options agree; else ConfigError."""
    wanted = config.train.checkpointing
    assert wanted is not None
    if "checkpointing" not in known:
        raise ConfigError(
            f"train.checkpointing: {model} cannot recompute its activations. Leave it out; a smaller patch or batch "
            "with train.accumulate spares memory, too."
        )
    if config.model.get("checkpointing", wanted) != wanted:
        raise ConfigError("train.checkpointing and model.checkpointing are the same setting, and differ. Give one.")
    return wanted


def _user_options(model: str, config: NetworkConfig) -> dict[str, Any]:
    """The network's options in `config`, with the size that its kernels grow to.

    ConfigError if kernels are to grow in a network that has no option for their size, or from an impossible one.
    """
    entry, growth = find_network(model), config.grow_kernel
    given = dict(config.model)
    if hasattr(entry.config, "plan_options") and given.get("strides", ()) is None:
        del given["strides"]  # null: the plan's, or the network's own before there is a plan
    if growth is None:
        return given
    known = {field.name for field in dataclasses.fields(entry.config)}
    if "kernel_size" not in known:
        raise ConfigError(f"train.grow_kernel: {model} has no kernel_size. Leave it out, or train a MedNeXt.")
    tried = {name: value for name, value in given.items() if name in known}
    for size in growth:
        entry.config(in_channels=1, num_classes=2, **{**entry.options, **tried, "kernel_size": size})
    return {"kernel_size": growth[1], **given}


def topology_options(model: str, config: NetworkConfig, strides: Levels, kernels: Levels) -> dict[str, Any]:
    """Options that the network takes from a plan with these strides and kernels; none if its topology is its own.

    Strides of the user are kept with all that goes with them, and so is what comes level by level; one kernel size
    for all levels is what the plan spreads over them.
    """
    entry = find_network(model)
    if not hasattr(entry.config, "plan_options") or config.model.get("strides") is not None:
        return {}
    options = {**entry.options, **_user_options(model, config)}
    planned: dict[str, Any] = entry.config.plan_options(options, strides, kernels)
    return {name: value for name, value in planned.items() if not isinstance(config.model.get(name), list | tuple)}


def plan_for_network(plan: Plan, network: Network) -> Plan:
    """`plan` with a patch that `network` can take: each axis rounded up to its divisor, and noted."""
    patch = fitting_patch(plan.patch_size, network.divisor)
    if patch == plan.patch_size:
        return plan
    note = f"The patch was rounded up from {list(plan.patch_size)} to what the network takes."
    return plan.changed(patch_size=patch, notes=(*plan.notes, note))


def open_run(
    folder: Path,
    *,
    dataset: Dataset,
    plan: Plan,
    fingerprint: Fingerprint,
    splits: list[Split],
    model: str,
    config: RunConfig,
    seed: int,
    device: torch.device,
) -> Run:
    """Start a run in `folder`, or continue the one that is there.

    Raises ConfigError naming what differs if the folder holds a run with another model, configuration, plan, seed, data
    set or folds. Workers, threads, TensorBoard and `predict` may differ: the record then gets the new ones.
    """
    identity = {
        "model": model,
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
        "dataset": {
            "name": dataset.name,
            "layout": dataset.layout,
            "root": str(dataset.source.absolute()),
            "num_cases": len(dataset.cases),
            "channels": list(dataset.channels),
            "labels": dataset.labels.to_dict(),
        },
    }
    with locked(folder, wait=True):
        path = folder / RUN_FILE
        if path.is_file():
            stored = read_json(path, remedy="Choose another --out.")
            known = {key: stored.get(key) for key in identity}
            differing = differences(known, identity, may_change=_MAY_CHANGE, ordered=_ORDERED)
            if not differing and read_splits(folder / SPLITS_FILE, dataset.cases) != splits:
                differing = [f"the folds are not those of {SPLITS_FILE}"]
            if not differing and stored.get("fingerprint") != fingerprint.model_dump(mode="json"):
                differing = ["the scans or label maps have changed since"]
            refuse_others(folder, differing)
            current = {"config": identity["config"], "init": _origins(config, stored.get("init", {}))}
            if {key: stored.get(key) for key in current} != current:
                write_json(path, {**stored, **current})
        else:
            write_splits(folder / SPLITS_FILE, splits)
            plan.write(folder / PLAN_FILE)
            init, measured = _origins(config, {}), fingerprint.model_dump(mode="json")
            write_json(path, {**made_with(device), **identity, "init": init, "fingerprint": measured})
    return Run(
        folder=folder, dataset=dataset, plan=plan, splits=splits, model=model, config=config, seed=seed, device=device
    )


def _origins(config: RunConfig, known: Mapping[str, str]) -> dict[str, str]:
    """Checksums of the files that folds may start from, by name, those of `known` as they were."""
    init = config.transfer.init
    return dict(known) if init is None else {**origin_checksums(init, known), **known}
