"""From stored scans to pre-trained weights: the method is prepared, put on a network, trained and saved."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.labels import NO_LABELS
from voxelseg.errors import CheckpointError, ConfigError, VoxelsegError, memory_ran_out
from voxelseg.files import read_json
from voxelseg.nets import Network
from voxelseg.nets.kernel_masks import sparse_weights
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.backbone import trained_weights
from voxelseg.pretrain.config import find_method
from voxelseg.pretrain.crops import CropSource
from voxelseg.pretrain.methods.method import Prepared, Pretext, Surroundings
from voxelseg.pretrain.pictures import write_pictures
from voxelseg.pretrain.run import PRETRAINING_FILE, Pretraining
from voxelseg.pretrain.watching import PretextLoss, WatchedCrops
from voxelseg.train.fitting import input_sha256, modes_put_back, prepare_torch
from voxelseg.train.fold import memory_message
from voxelseg.train.loop.budget import epochs_done
from voxelseg.train.loop.trainer import Progress, Trainer
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.sparse.settings import HOW_KERNELS_MOVE
from voxelseg.version import __version__


def is_finished(pretraining: Pretraining, processes: Processes) -> bool:
    """Whether its weights are there; all `processes` call it alike. CheckpointError if they are of another one."""
    path = pretraining.model_file
    if not processes.from_main(path.is_file):
        return False
    _refuse_others(load_checkpoint(path), pretraining)
    return True


def _refuse_others(found: Checkpoint, pretraining: Pretraining) -> None:
    """CheckpointError if a file that is there is not of this pre-training; a damaged one is found out on loading."""
    own = (pretraining.model, pretraining.config.method, pretraining.plan.changed(notes=()), pretraining.seed)
    recorded, method = found.provenance.get("run") or {}, (found.pretraining or {}).get("method")
    if own != (found.model, method, found.plan.changed(notes=()), recorded.get("seed")):
        raise CheckpointError(f"{found.path}: is not of this pre-training. Delete it to train again.")


def check_method(pretraining: Pretraining, stored: Mapping[str, StoredCase]) -> None:
    """ConfigError or DataError if method, crops and number of scans cannot go together.

    No scan is read, so that those of `stored` need not be there yet.
    """
    method = find_method(pretraining.config.method)
    refuse = method.check or method.prepare
    refuse(pretraining.config.task, _surroundings(pretraining, stored, cache=pretraining.folder))


def _surroundings(
    pretraining: Pretraining,
    stored: Mapping[str, StoredCase],
    *,
    cache: Path,
    workers: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Surroundings:
    learnt, held_out = ([stored[case.id] for case in cases] for cases in pretraining.parts)
    return Surroundings(
        scans=learnt,
        held_out=held_out,
        batch_size=pretraining.plan.batch_size,
        crop_size=pretraining.plan.patch_size,
        num_channels=len(pretraining.plan.channels),
        slice_axis=pretraining.config.pretrain.slice_axis,
        seed=pretraining.seed,
        cache=cache,
        workers=workers,
        progress=progress,
    )


def prepare_method(
    pretraining: Pretraining,
    stored: Mapping[str, StoredCase],
    *,
    cache: Path,
    workers: int = 1,
    processes: Processes | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Prepared:
    """The method, ready to start; what it makes before the first step lies in `cache`, made with so many `workers`.

    All `processes` call it alike: the main one makes what the others read. `progress` is called with what is being made
    and the share that is done. ConfigError or DataError if the scans do not allow the method, WorkerError if a
    background process fails.
    """
    surroundings = _surroundings(pretraining, stored, cache=cache, workers=workers, progress=progress)
    method, task = find_method(pretraining.config.method), pretraining.config.task
    made: list[Prepared] = []
    (processes or Processes.alone(pretraining.device)).from_main(
        lambda: made.append(method.prepare(task, surroundings))
    )
    return made[0] if made else method.prepare(task, surroundings)


def pretrain(
    pretraining: Pretraining,
    stored: Mapping[str, StoredCase],
    prepared: Prepared,
    *,
    processes: Processes | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Pre-train, or do what is left of it; returns the file with the weights.

    All `processes` call it alike; by default it is this one alone. The folder of the pre-training must be locked.
    `stored` has the preprocessed scans by id.

    Raises StoppedError after Ctrl-C, with the state saved; CheckpointError if a state that is there is damaged or of
    another pre-training; VoxelsegError if the training diverges, the memory runs out, or a file cannot be written;
    WorkerError or DataError if samples cannot be made.
    """
    processes = processes or Processes.alone(pretraining.device)
    try:
        found = _trained(pretraining, stored, prepared, processes, on_progress)
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise VoxelsegError(f"{pretraining.folder}: {memory_message(error, pretraining.device)}") from error
    processes.from_main(lambda: save_checkpoint(pretraining.model_file, found))
    return pretraining.model_file


@modes_put_back()
def _trained(
    pretraining: Pretraining,
    stored: Mapping[str, StoredCase],
    prepared: Prepared,
    processes: Processes,
    on_progress: Callable[[Progress], None] | None,
) -> Checkpoint:
    """What is to be saved at the end of the training, or of what is left of it."""
    run, loop = pretraining, pretraining.loop
    prepare_torch(loop, run.device, run.seed)
    torch.manual_seed(run.seed)
    network = run.build_network(prepared.record["trained"])
    _check_moves(run, network)
    pretext = prepared.build(network)
    learnt, held_out = ([stored[case.id] for case in cases] for cases in run.parts)
    crops = CropSource(
        scans=learnt,
        crop_size=run.plan.patch_size,
        batch_size=run.plan.batch_size,
        drawer=prepared.drawer,
        seed=run.seed,
    )

    def keep_best(trainer: Trainer[Pretext]) -> None:
        done = epochs_done(trainer.config, trainer.counters)  # with the one that has just been validated
        save_checkpoint(run.best_file, _checkpoint(run, stored, prepared, trainer, epochs=done))

    watched = dataclasses.replace(crops, scans=held_out, seed=run.seed + 1) if held_out else None
    trainer = Trainer(
        pretext,
        loop,
        crops,
        objective=PretextLoss(pretext),
        validation=WatchedCrops(watched, count=loop.validation_patches),
        folder=run.folder,
        device=run.device,
        sparse=run.config.sparse,
        processes=processes,
        on_progress=on_progress,
        on_best=keep_best,
    )
    trainer.load_state()
    trainer.fit()
    processes.from_main(lambda: write_pictures(run.folder, trainer.result, watched or crops, device=run.device))
    return _checkpoint(run, stored, prepared, trainer, epochs=trainer.counters.epoch)


def _check_moves(run: Pretraining, network: Network) -> None:
    """ConfigError if it is set how kernels move, and the method trains no sparse layer."""
    idle = sorted(run.config.sparse.set_keys() & HOW_KERNELS_MOVE)
    if idle and not any(weight.requires_grad for weight, _ in sparse_weights(network).values()):
        raise ConfigError(
            f"sparse.{', sparse.'.join(idle)}: {run.config.method} trains no sparse layer of {run.model}, so no kernel "
            "would ever move. Leave it out, or choose a method that trains the decoder, too."
        )


def _checkpoint(
    run: Pretraining, stored: Mapping[str, StoredCase], prepared: Prepared, trainer: Trainer[Pretext], *, epochs: int
) -> Checkpoint:
    network = trainer.result.backbone
    options: dict[str, Any] = dataclasses.asdict(network.config)  # type: ignore[call-overload]
    return Checkpoint(
        weights=trained_weights(network, prepared.record["trained"]),
        model=run.model,
        model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
        plan=run.plan,
        labels=NO_LABELS,
        file_ending=run.scans.file_ending,
        provenance={
            "voxelseg": __version__,
            "torch": torch.__version__,
            "run": read_json(run.folder / PRETRAINING_FILE),
            "train_cases_sha256": {case.id: input_sha256(stored[case.id]) for case in run.parts[0]},
            "epochs": epochs,
            "steps": trainer.counters.step,
            "training_s": trainer.counters.elapsed_s,
        },
        pretraining={
            "method": run.config.method,
            "settings": run.config.task.model_dump(mode="json"),
            "num_classes": run.config.pretrain.num_classes,
            "slice_axis": run.config.pretrain.slice_axis,
            **prepared.record,
        },
    )


FOLLOWING = ("early_stopping", "validation_patches", "validate_every", "watch", "save_best")
"""Keys of `train` that need held-out scans."""


def check_watching(pretraining: Pretraining) -> None:
    """ConfigError if the training is to follow held-out scans and there are none, or if no kernel would ever move."""
    train = pretraining.loop
    following = [f"train.{key}" for key in FOLLOWING if key in train.model_fields_set and getattr(train, key)]
    following += ["train.schedule=plateau"] * (train.schedule == "plateau")
    if following and not pretraining.parts[1]:
        raise ConfigError(
            f"{', '.join(following)}: no scan is held out to validate with. Leave it out, or set pretrain.held_out "
            "above 0 for scans of two patients or more."
        )
    if train.budget_s is None:
        try:
            pretraining.config.sparse.check_length(train.epochs * train.steps_per_epoch)
        except ValueError as error:
            raise ConfigError(f"{error}.") from error
