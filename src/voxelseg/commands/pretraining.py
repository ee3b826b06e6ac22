"""The command `pretrain`."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.commands.arguments import choose_device, parse_duration
from voxelseg.commands.configuring import DEFAULT_MODEL
from voxelseg.commands.display import PathLike, preparing_bar, say, training_bar
from voxelseg.commands.planning import check_model, measure, plan_from, plan_table, store
from voxelseg.data.dataset import Dataset
from voxelseg.files import locked
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan, parse_plan, read_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.pretrain.backbone import build_backbone, check_pretrainable
from voxelseg.pretrain.config import PretrainingConfig, build_pretraining
from voxelseg.pretrain.crops import crop_warnings
from voxelseg.pretrain.following import repeated_settings
from voxelseg.pretrain.pretraining import check_method, check_watching, is_finished, prepare_method
from voxelseg.pretrain.pretraining import pretrain as train_pretext
from voxelseg.pretrain.run import Pretraining, check_num_classes, has_begun, open_pretraining, with_classes
from voxelseg.pretrain.scan_checks import scan_warnings
from voxelseg.pretrain.scans import read_scans
from voxelseg.train.loop.log import LOG_FILE, read_log
from voxelseg.train.loop.precision import training_precision
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.loop.tensorboard import summary_writer
from voxelseg.train.machines.distributed import Processes, joined, own_device
from voxelseg.train.machines.estimates import (
    Need,
    by_disk,
    check_needs,
    saved_bytes,
    step_need,
    still_to_write,
    store_part,
)
from voxelseg.train.run import PLAN_FILE, plan_for_network
from voxelseg.train.settings import check_seed

DEFAULT_METHOD = "masked-clusters"
CACHE_FOLDER = "pretraining"
"""In the work folder: what methods make before the first step."""
_log = logging.getLogger(__name__)


def pretrain(
    scans: PathLike,
    out: PathLike,
    *,
    model: str = DEFAULT_MODEL,
    method: str = DEFAULT_METHOD,
    epochs: int | None = None,
    budget: str | None = None,
    seed: int = 0,
    device: str = "auto",
    work: PathLike | None = None,
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Pretraining:
    """Let `model` learn by `method` from the scans in a folder or data set, whose labels are neither needed nor read.

    Writes `out`/model.safetensors, which `train --init` starts from. Plans and preprocesses into `work` (default
    `out`/work) what has not been done yet; `memory_gb` bounds a training step where it is not planned yet. `epochs` or
    a `budget` of time ("20m") sets the length. `settings` are "section.key=value". The same command continues after any
    stop, and a finished pre-training is kept.

    Raises ConfigError for an unknown or impossible option, and for a pre-training in `out` with other settings;
    DataError for scans that cannot be used; CheckpointError for a damaged state or model in `out`; WorkerError if a
    background process fails; BusyError if another process works in `out`; StoppedError after Ctrl-C in training;
    VoxelsegError if the training diverges, the memory runs out, or a file cannot be written.
    """
    check_seed(seed)
    budget_s = None if budget is None else parse_duration(budget)
    config = build_pretraining(method, settings, epochs=epochs, budget_s=budget_s)
    on = choose_device(own_device(device))
    training_precision(config.train, on)  # refuses what the device does not have
    if config.train.tensorboard:
        summary_writer()  # refuses what is not installed
    dataset = read_scans(scans, channel=config.pretrain.channel)
    _check_model(model, dataset, config)
    folder = Path(out)
    work_folder = WorkFolder(Path(work) if work is not None else folder / "work")
    with joined(on) as processes, ExitStack() as held:
        console = console if processes.is_main else None

        def prepare() -> dict[str, Any]:
            """The plan, once it is written, and with it the scans."""
            held.enter_context(locked(folder))
            fingerprint = measure(work_folder, dataset, workers=workers, console=console)
            planned = _plan(folder, fingerprint, dataset, model, config, on, memory_gb)
            processes.check_batch(planned.batch_size)
            run = running(planned)
            check_watching(run)
            check_method(run, stored_where(run))
            open_pretraining(run, fingerprint)
            if console is not None:
                console.print(plan_table(planned))
            _check_needs(run, fingerprint, work_folder.store_path(planned), processes, console)
            _warn(scan_warnings(dataset, fingerprint, slice_axis=planned.axes[config.pretrain.slice_axis]))
            stored = store(work_folder, dataset, planned, workers=workers, console=console)
            _warn(crop_warnings(list(stored.values()), planned.patch_size))
            return planned.model_dump(mode="json")

        def running(planned: Plan) -> Pretraining:
            return Pretraining(
                folder=folder, scans=dataset, plan=planned, model=model, config=config, seed=seed, device=on
            )

        def stored_where(run: Pretraining) -> dict[str, StoredCase]:
            path = work_folder.store_path(run.plan)
            return {case.id: StoredCase(case.id, path / case.id) for case in dataset.cases}

        run = running(parse_plan(processes.from_main(prepare), source=str(folder / PLAN_FILE)))
        if not is_finished(run, processes):
            cache = work_folder.folder / CACHE_FOLDER
            _train(run, stored_where(run), cache, processes, workers=workers, console=console)
        processes.barrier()  # `torchrun` of a machine whose processes have ended gives the others five minutes
    if console is not None:
        _show_scores(run, console)
    say(
        console,
        f"Wrote {run.model_file}.",
        ["report", out, "--out", run.folder / "report.html"],
        ["train", "DATA", "--out", "RUN", "--model", model, *repeated_settings(config.record()), "--init", out],
    )
    return run


def _check_model(model: str, dataset: Dataset, config: PretrainingConfig) -> None:
    """ConfigError for an unknown model or option, or one that cannot be pre-trained, at once."""
    check_pretrainable(model)
    check_model(model, with_classes(dataset, config), config)
    with torch.device("meta"):
        build_backbone(model, with_classes(dataset, config), config, None, "all")
    check_num_classes(model, dataset, config)


def _plan(
    folder: Path,
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: PretrainingConfig,
    device: torch.device,
    memory_gb: float | None,
) -> Plan:
    """The plan of the pre-training in the folder if it has begun, or else a fresh one."""
    if has_begun(folder):
        planned = read_plan(folder / PLAN_FILE)
    else:
        planned = plan_from(fingerprint, with_classes(dataset, config), model, config, device, memory_gb)
    with torch.device("meta"):
        network = build_backbone(model, with_classes(dataset, config), config, planned, "all")
    return plan_for_network(planned, network)


def _check_needs(
    run: Pretraining, fingerprint: Fingerprint, store_path: Path, processes: Processes, console: Console | None
) -> None:
    """Say what the pre-training takes of disks and memory, without what the method adds to the network.

    What may not be enough is warned of; VoxelsegError if it cannot fit.
    """
    needs: list[Need] = []
    parts = [store_part(run.scans, fingerprint, run.plan, store_path)]
    if not run.model_file.is_file():
        with torch.device("meta"):
            network = run.build_network()
        weights, state = saved_bytes(network, run.config.train)
        written = state + still_to_write(run.folder / STATE_FILE, state)
        models = weights * (1 + run.config.train.save_best)
        parts += [(run.folder, "states", written, written), (run.folder, "models", models, models)]
        memory = step_need(network, run.plan, run.config.train, processes)
        needs += [] if memory is None else [memory]
    needs = [*by_disk(parts), *needs]
    for warning in check_needs(needs):
        _log.warning("%s", warning)
    if console is not None:
        for need in needs:
            console.print(str(need), soft_wrap=True, highlight=False, markup=False)
        if not run.model_file.is_file():
            own = f"What {run.config.method} itself adds comes on top: heads, and what it makes before the first step."
            console.print(own, soft_wrap=True, highlight=False, markup=False)


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        _log.warning("%s", sentence)


def _train(
    run: Pretraining,
    stored: Mapping[str, StoredCase],
    cache: Path,
    processes: Processes,
    *,
    workers: int,
    console: Console | None,
) -> None:
    with preparing_bar(console, run.config.method) as preparing:
        prepared = prepare_method(run, stored, cache=cache, workers=workers, processes=processes, progress=preparing)
    with training_bar(console, "pre-training", score="score") as show:
        train_pretext(run, stored, prepared, processes=processes, on_progress=show if processes.is_main else None)


def _show_scores(run: Pretraining, console: Console) -> None:
    """Print the scores of the last running validation, if there was one."""
    epochs = [event for event in read_log(run.folder / LOG_FILE) if event["event"] == "epoch"]
    scores = next((one["validation_scores"] for one in reversed(epochs) if one["validation_scores"]), None)
    if scores is None:
        return
    table = Table("held-out crops", run.config.method, title="Last running validation", title_justify="left")
    for name, value in scores.items():
        table.add_row(Text(name), "" if value is None else f"{value:.3f}")
    console.print(table)
