"""What the folds of a run start from if not from fresh weights: checked before long work, and again when one begins."""

from collections.abc import Iterable
from pathlib import Path

from voxelseg.checkpoint import MODEL_FILE
from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError
from voxelseg.files import read_json
from voxelseg.plan.plan import Plan
from voxelseg.train.config import RunConfig
from voxelseg.train.loop.stage import SMALL_KERNEL_FILE, SMALL_KERNEL_STATE_FILE
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.run import RUN_FILE, build_network
from voxelseg.train.start.origin import Origin, origin_file, origin_name, read_origin
from voxelseg.train.start.transfer import match_weights


def check_init(model: str, dataset: Dataset, config: RunConfig, plan: Plan, folds: Iterable[int], run: Path) -> None:
    """Refuse weights that the training of one of `folds` cannot start from, before long work.

    A fold that has begun in the folder `run` needs them no more. ConfigError if there are none or others than when the
    run was started, CheckpointError if they do not fit.
    """
    init, growth = config.transfer.init, config.train.grow_kernel
    if init is None:
        return
    if growth is not None:
        config = config.model_copy(update={"model": {**config.model, "kernel_size": growth[0]}})
    network = build_network(model, dataset, config, plan)
    fresh = {origin_file(init, fold): fold for fold in folds if not _has_begun(run / f"fold_{fold}")}
    for fold in fresh.values():
        origin = unchanged_origin(init, fold, run, model=model)
        match_weights(network, origin, config.transfer, plan=plan, labels=dataset.labels)


def _has_begun(fold: Path) -> bool:
    """Whether the training in the folder of a fold has left anything that it goes on from."""
    return any((fold / name).is_file() for name in (MODEL_FILE, STATE_FILE, SMALL_KERNEL_FILE, SMALL_KERNEL_STATE_FILE))


def unchanged_origin(init: str, fold: int, run: Path, *, model: str) -> Origin:
    """What a fold of the run in the folder `run` starts from.

    ConfigError if it is not there or has changed since the run was started, CheckpointError if it cannot be read.
    """
    origin = read_origin(origin_file(init, fold), model=model)
    record = run / RUN_FILE
    recorded = read_json(record).get("init", {}) if record.is_file() else {}
    if recorded.get(origin_name(init, origin.path), origin.checksum) != origin.checksum:
        raise ConfigError(
            f"transfer.init: {origin.path} has changed since the run {run} was started. Restore it for the folds to "
            "come, or choose another --out."
        )
    return origin
