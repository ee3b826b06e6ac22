"""The command `train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from voxelseg.commands.arguments import choose_device, parse_duration, parse_folds
from voxelseg.commands.display import PathLike, counting_bar, say, say_left_out, training_bar
from voxelseg.commands.planning import check_model, measure, plan_from, plan_table, store
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import read_splits, splits_of
from voxelseg.errors import ConfigError
from voxelseg.evaluate import class_table
from voxelseg.files import make_folder
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan, read_plan
from voxelseg.plan.planner import override_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.train.config import RunConfig, build_config, check_seed
from voxelseg.train.fold import train_fold, validate_fold
from voxelseg.train.loop import training_precision
from voxelseg.train.run import PLAN_FILE, RUN_FILE, Run, build_network, open_run, plan_for_network


def train(
    data: PathLike,
    out: PathLike,
    *,
    model: str = "mednext_s",
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
    config = build_config(list(settings), epochs=epochs, budget_s=None if budget is None else parse_duration(budget))
    on = choose_device(device)
    training_precision(config.train, on)  # refuses what the device does not have
    dataset = read_dataset(data)
    say_left_out(console, dataset)
    check_model(model, dataset, config)
    folds = read_splits(Path(splits), dataset.cases) if splits is not None else splits_of(dataset)
    chosen = _chosen_folds(fold, len(folds))
    run_folder = Path(out)
    make_folder(run_folder)
    folder = WorkFolder(Path(work) if work is not None else run_folder / "work")
    fingerprint = measure(folder, dataset, workers=workers, console=console)
    planned = _training_plan(run_folder, folder, fingerprint, dataset, model, config, on, memory_gb)
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
    stored = store(folder, dataset, planned, workers=workers, console=console)
    for number in chosen:
        _train_and_score(run, number, stored, workers=workers, console=console)
    say(
        console,
        f"Wrote {', '.join(str(run.model_file(number)) for number in chosen)}.",
        ["report", out, "--out", run_folder / "report.html"],
        ["predict", out, "--input", "SCANS", "--output", "DIR"],
    )
    return run


def _train_and_score(
    run: Run, fold: int, stored: Mapping[str, StoredCase], *, workers: int, console: Console | None
) -> None:
    with training_bar(console, f"training fold {fold}") as show:
        train_fold(run, fold, stored, on_progress=show)
    held_out = len(run.splits[fold].validation)
    with counting_bar(console, f"validating fold {fold}", total=held_out) as update:
        scores = validate_fold(run, fold, workers=workers, progress=lambda done, case: update(done, note=case))
    if console is not None:
        console.print(class_table(scores))


def _chosen_folds(text: str, count: int) -> list[int]:
    chosen = parse_folds(text)
    if chosen is None:
        return list(range(count))
    wrong = [fold for fold in chosen if not 0 <= fold < count]
    if wrong:
        raise ConfigError(f"fold {wrong[0]}: the data set has folds 0 to {count - 1}.")
    return chosen


def _training_plan(
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

    The patch is made to fit `model`.
    """
    if work.plan_path.is_file():
        planned = override_plan(work.plan(), fingerprint, config.plan)
    elif (run / RUN_FILE).is_file():
        planned = read_plan(run / PLAN_FILE)
    else:
        planned = plan_from(fingerprint, dataset, model, config, device, memory_gb)
    with torch.device("meta"):
        network = build_network(model, dataset, config, planned)
    return plan_for_network(planned, network)
