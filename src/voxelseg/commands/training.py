"""The command `train`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from voxelseg.commands.arguments import choose_device, chosen_folds
from voxelseg.commands.configuring import what_to_train
from voxelseg.commands.display import PathLike, counting_bar, say, say_left_out, training_bar
from voxelseg.commands.planning import check_model, measure, plan_from, plan_table, store
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import read_splits, splits_of
from voxelseg.errors import BusyError
from voxelseg.evaluate import class_table, cross_validation_table
from voxelseg.files import make_folder
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan, parse_plan, read_plan
from voxelseg.plan.planner import override_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.recipes import Recipe
from voxelseg.train.config import RunConfig
from voxelseg.train.cross_validation import begun_folds, cross_validate, scored_folds
from voxelseg.train.fold import train_fold, validate_fold
from voxelseg.train.loop.optimizer import build_optimizer
from voxelseg.train.loop.precision import training_precision
from voxelseg.train.loop.tensorboard import summary_writer
from voxelseg.train.machines.distributed import Processes, joined, own_device
from voxelseg.train.machines.estimates import check_needs, disk_needs, memory_need, open_folds
from voxelseg.train.run import PLAN_FILE, RUN_FILE, Run, build_network, open_run, plan_for_network
from voxelseg.train.settings import check_seed
from voxelseg.train.start.initial import check_init
from voxelseg.train.start.transfer import TransferReport

_log = logging.getLogger(__name__)


def train(
    data: PathLike,
    out: PathLike,
    *,
    recipe: str | Recipe | None = None,
    model: str | None = None,
    init: PathLike | None = None,
    grow_kernel: str | None = None,
    fold: str = "0",
    epochs: int | None = None,
    budget: str | None = None,
    seed: int = 0,
    device: str = "auto",
    work: PathLike | None = None,
    splits: PathLike | None = None,
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Run:
    """Train `model` on one fold ("0", "0,1") or "all", then predict and score the held-out cases.

    `recipe` is a paper's training with a `model` (else mednext_s) and settings, yours go before these: its name
    (`voxelseg recipes`), or what a function of its paper's module in `voxelseg.recipes` returns. `init` is a run, a
    pre-training, a model file or an authors' file whose weights the training starts from. `grow_kernel` ("3:5") trains
    with the small kernel first and goes on with the large one. When all folds are finished, whichever processes trained
    them, their scores are pooled and a postprocessing is chosen.

    Plans and preprocesses into `work` (default `out`/work) what has not been done yet; `memory_gb` bounds a training
    step where it is not planned yet. `epochs` or a `budget` of time per fold ("20m") sets the length. `splits` is a
    file with folds. `settings` are "section.key=value". The same command continues after any stop, and a finished fold
    is kept.

    Raises ConfigError for an unknown or impossible option, and for a run in `out` with other settings; DataError for
    data, folds or scans that cannot be used; CheckpointError for a damaged state or model in `out`; WorkerError if a
    background process fails; StoppedError after Ctrl-C in training; VoxelsegError if the training diverges, the memory
    runs out, or a file cannot be written.
    """
    check_seed(seed)
    published, model, config = what_to_train(
        recipe=recipe,
        model=model,
        init=init,
        grow_kernel=grow_kernel,
        epochs=epochs,
        budget=budget,
        settings=settings,
    )
    on = choose_device(own_device(device))
    training_precision(config.train, on)  # refuses what the device does not have
    if config.train.tensorboard:
        summary_writer()  # refuses what is not installed
    dataset = read_dataset(data)
    check_model(model, dataset, config)
    folds = read_splits(Path(splits), dataset.cases) if splits is not None else splits_of(dataset)
    chosen = chosen_folds(fold, len(folds))
    run_folder = Path(out)
    folder = WorkFolder(Path(work) if work is not None else run_folder / "work")
    with joined(on) as processes:
        console = console if processes.is_main else None

        def prepare() -> dict[str, Any]:
            """The plan, once it is written, and with it the cases."""
            say_left_out(console, dataset)
            for remark in [] if published is None else published.remarks(dataset):
                _log.warning("%s", remark)
            make_folder(run_folder)
            fingerprint = measure(folder, dataset, workers=workers, console=console)
            planned = training_plan(run_folder, folder, fingerprint, dataset, model, config, on, memory_gb)
            check_init(model, dataset, config, planned, chosen, run_folder)
            processes.check_batch(planned.batch_size)
            config.train.sampling.check_step(config.train.accumulate * planned.batch_size)
            config.augmentation.check_patch(planned.patch_size)
            run = open_run(
                run_folder,
                dataset=dataset,
                plan=planned,
                fingerprint=fingerprint,
                splits=folds,
                model=model,
                config=config,
                seed=seed,
                device=on,
            )
            if console is not None:
                console.print(plan_table(planned))
            _check_needs(run, chosen, fingerprint, folder.store_path(planned), processes, console)
            store(folder, dataset, planned, workers=workers, console=console)
            return planned.model_dump(mode="json")

        planned = parse_plan(processes.from_main(prepare), source=str(run_folder / PLAN_FILE))
        run = Run(
            folder=run_folder,
            dataset=dataset,
            plan=planned,
            splits=folds,
            model=model,
            config=config,
            seed=seed,
            device=on,
        )
        stored = {case.id: StoredCase(case.id, folder.store_path(planned) / case.id) for case in dataset.cases}
        mine = _train_and_score(run, chosen, stored, processes, workers=workers, console=console)
        if processes.is_main and len(folds) > 1:
            _cross_validate(run, chosen, workers=workers, console=console)
        processes.barrier()  # `torchrun` of a machine whose processes have ended gives the others five minutes
    say(
        console,
        f"Wrote {', '.join(str(run.model_file(number)) for number in mine)}.",
        ["report", out, "--out", run_folder / "report.html"],
        ["predict", out, "--input", "SCANS", "--output", "DIR"],
    )
    return run


def _check_needs(
    run: Run, folds: Sequence[int], fingerprint: Fingerprint, store: Path, processes: Processes, console: Console | None
) -> None:
    """Say what the training takes of disks and memory, and what may not be enough; VoxelsegError if it cannot fit."""
    memory = memory_need(run, processes) if open_folds(run, folds) else None
    needs = [*disk_needs(run, folds, fingerprint, store=store), *([] if memory is None else [memory])]
    for warning in check_needs(needs):
        _log.warning("%s", warning)
    if console is not None:
        for need in needs:
            console.print(str(need), soft_wrap=True, highlight=False, markup=False)


def _train_and_score(
    run: Run,
    folds: Sequence[int],
    stored: Mapping[str, StoredCase],
    processes: Processes,
    *,
    workers: int,
    console: Console | None,
) -> list[int]:
    """Train and score each of the folds; returns those that no other process works on at the moment.

    A fold that another process works on is left to that; BusyError if all of them are.
    """
    mine = []
    for fold in folds:
        try:
            _train_and_score_fold(run, fold, stored, processes, workers=workers, console=console)
            mine.append(fold)
        except BusyError:
            if fold == folds[-1] and not mine:
                raise
            if processes.is_main:
                _log.warning("%s: another voxelseg process works on fold %d, which is left to it.", run.folder, fold)
    return mine


def _train_and_score_fold(
    run: Run,
    fold: int,
    stored: Mapping[str, StoredCase],
    processes: Processes,
    *,
    workers: int,
    console: Console | None,
) -> None:
    """All processes train; the main one then predicts and scores."""
    with training_bar(console, f"training fold {fold}") as show:
        train_fold(
            run,
            fold,
            stored,
            processes=processes,
            on_progress=show if processes.is_main else None,
            on_transfer=lambda report: _show_transfer(report, console),
        )
    if not processes.is_main:
        return
    held_out = len(run.splits[fold].validation)
    with counting_bar(console, f"validating fold {fold}", total=held_out) as update:
        scores = validate_fold(run, fold, workers=workers, progress=lambda done, case: update(done, note=case))
    if console is not None:
        console.print(class_table(scores))


def _show_transfer(report: TransferReport, console: Console | None) -> None:
    if console is not None:
        console.print(report.table())
        return
    for warning in report.warnings:
        _log.warning("%s: %s", report.path, warning)
    for note in report.notes:
        _log.info("%s: %s", report.path, note)


def _cross_validate(run: Run, folds: Sequence[int], *, workers: int, console: Console | None) -> None:
    """Pool all folds of the run if they are finished; else name those that are not, if several are trained."""
    scored = scored_folds(run)
    waiting = [fold for fold in range(len(run.splits)) if fold not in scored]
    if not waiting:
        with counting_bar(console, "pooling all folds") as update:
            found = cross_validate(run, scored, workers=workers, progress=update)
        if console is not None:
            console.print(cross_validation_table(found))
    elif console is not None and (len(folds) > 1 or len(begun_folds(run)) > 1):
        trained = [fold for fold in waiting if run.model_file(fold).is_file()]
        sentences = {
            "Not finished": [fold for fold in waiting if fold not in trained],
            "Not scored, or with other settings of `predict`": trained,
        }
        console.print(
            *(f"{what}: fold {', '.join(map(str, which))}." for what, which in sentences.items() if which),
            "The process that finishes the last one pools the scores; so does this command with --fold all.",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def training_plan(
    run: Path,
    work: WorkFolder,
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: RunConfig,
    device: torch.device,
    memory_gb: float | None,
) -> Plan:
    """The plan of `voxelseg plan` with the user's values, or else that of the run in `run`, or else a fresh one.

    The patch is made to fit `model`. ConfigError for options that this network cannot have.
    """
    if work.plan_path.is_file():
        planned = override_plan(work.plan(), fingerprint, config.plan)
    elif (run / RUN_FILE).is_file():
        planned = read_plan(run / PLAN_FILE)
    else:
        planned = plan_from(fingerprint, dataset, model, config, device, memory_gb)
    with torch.device("meta"):
        network = build_network(model, dataset, config, planned)
    build_optimizer(network, config.train, config.transfer)  # refuses patterns that choose nothing
    return plan_for_network(planned, network)
