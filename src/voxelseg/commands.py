"""What each command of the command line does, as a function of the same name.

    from voxelseg import commands
    commands.train("Task04_Hippocampus", out="run", model="mednext_s", fold="0", budget="20m")

All take paths as text or Path. With `console` they show progress and say what they wrote; without it they are silent.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from voxelseg.checkpoint import load_checkpoint
from voxelseg.data.checks import CheckReport, check_dataset
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import read_splits, splits_of
from voxelseg.errors import ConfigError, DataError
from voxelseg.evaluate import Evaluation, class_table
from voxelseg.evaluate import evaluate as evaluate_folders
from voxelseg.nets import create_model, describe_models
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.plan.planner import PlanLimits, make_plan
from voxelseg.predict.inputs import find_cases
from voxelseg.predict.predictor import Predictor, predict_cases
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.train.config import RunConfig, build_config
from voxelseg.train.loop import Progress as TrainingProgress
from voxelseg.train.memory import training_bytes_per_voxel
from voxelseg.train.run import MODEL_FILE, Run, follows_plan, model_options, open_run, train_fold, validate_fold

PathLike = str | Path
MEMORY_GB = {"cpu": 3.0, "cuda": 8.0}
"""Default memory budget of a training step by kind of device."""
CPU_VOXELS_PER_STEP = 300_000
"""On a CPU time, not memory, limits the patch: beyond this a step takes long and a training sees too few of them."""
_SILENT = Console(quiet=True)


def check(data: PathLike, *, workers: int = 2, console: Console | None = None) -> CheckReport:
    """Everything that is wrong or doubtful in the data set at `data`, found before it costs time."""
    with _bar(console, "checking") as update:
        return check_dataset(Path(data), workers=workers, progress=update)


def plan(
    data: PathLike,
    out: PathLike,
    *,
    model: str = "mednext_s",
    device: str = "auto",
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Plan:
    """Measure the data set at `data` and decide spacing, normalisation, patch, batch and mirroring for `model`.

    Writes `out`/fingerprint.json and `out`/plan.json, which may be changed by hand. `memory_gb` bounds a training step;
    `settings` are "plan.key=value".
    """
    config = build_config({}, list(settings))
    dataset = read_dataset(data)
    work = WorkFolder(Path(out))
    fingerprint = _fingerprint(work, Path(data), dataset, workers, console)
    planned = _plan_for(fingerprint, dataset, model, config, _device(device), memory_gb)
    planned.write(work.plan_path)
    _say(console, f"Wrote {work.fingerprint_path} and {work.plan_path}.", f"voxelseg preprocess {out}")
    if console is not None:
        console.print(plan_table(planned))
    return planned


def preprocess(work: PathLike, *, workers: int = 2, console: Console | None = None) -> dict[str, StoredCase]:
    """Preprocess every case of a planned data set into `work`/store; what is there and current is kept."""
    folder = WorkFolder(Path(work))
    dataset = folder.dataset()
    stored = _preprocess(folder, dataset, folder.plan(), workers, console)
    _say(
        console,
        f"Preprocessed {len(stored)} cases in {folder.store_path}.",
        f"voxelseg train {dataset.root} --out RUN --work {work}",
    )
    return stored


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

    Plans and preprocesses into `work` (default `out`/work) what has not been done yet. `epochs` or a `budget` of time
    per fold ("20m") sets the length. `settings` are "section.key=value". The same command continues after any stop.
    """
    if epochs is not None and budget is not None:
        raise ConfigError("give --epochs or --budget, not both.")
    defaults: dict[str, dict[str, Any]] = {"train": {}}
    if epochs is not None:
        defaults["train"]["epochs"] = epochs
    if budget is not None:
        defaults["train"]["budget_s"] = parse_duration(budget)
    config = build_config(defaults, list(settings))
    on = _device(device)
    dataset = read_dataset(data)
    follows_plan(model)  # an unknown name is reported before any work
    folds = read_splits(Path(splits), dataset.cases) if splits is not None else splits_of(dataset)
    chosen = _chosen_folds(fold, len(folds))
    run_folder = Path(out)
    folder = WorkFolder(Path(work) if work is not None else run_folder / "work")
    fingerprint = _fingerprint(folder, Path(data), dataset, workers, console)
    planned = _training_plan(folder, fingerprint, dataset, model, config, on, memory_gb)
    stored = _preprocess(folder, dataset, planned, workers, console)
    run = open_run(
        run_folder,
        dataset=dataset,
        data=Path(data),
        plan=planned,
        fingerprint=fingerprint,
        splits=folds,
        model=model,
        config=config,
        seed=seed,
        device=on,
    )
    for number in chosen:
        with _training_bar(console, f"fold {number}") as show:
            train_fold(run, number, stored, on_progress=show)
        with _case_bar(console, "validating", len(run.splits[number].validation)) as update:
            evaluation = validate_fold(run, number, workers=workers, progress=update)
        if console is not None:
            console.print(class_table(evaluation))
    _say(
        console,
        f"Wrote {', '.join(str(run.fold_folder(number) / MODEL_FILE) for number in chosen)}.",
        f"voxelseg report {out} --out {run_folder / 'report.html'}\n"
        f"  voxelseg predict {out} --input SCANS --output DIR",
    )
    return run


def predict(
    run: PathLike,
    input: PathLike,  # noqa: A002 - named like the option
    output: PathLike,
    *,
    fold: str | None = None,
    probabilities: bool = False,
    tta: bool = False,
    overlap: float = 0.5,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Path]:
    """Label maps of a scan, a folder of scans or a data set, on each scan's own grid; returns their paths by case.

    `run` is a run's folder, whose trained folds (or those in `fold`, "0,1") are averaged, or one model file.
    `probabilities` adds a 4D file per case. `tta` averages over mirrored versions where that is harmless.
    """
    models = _model_files(Path(run), fold)
    checkpoints = [load_checkpoint(path) for path in models]
    predictor = Predictor(checkpoints, device=_device(device), overlap=overlap, tta=tta)
    cases = find_cases(Path(input), num_channels=len(predictor.plan.channels))
    with _case_bar(console, "predicting", len(cases)) as update:
        paths = predict_cases(
            predictor,
            cases,
            Path(output),
            file_ending=checkpoints[0].file_ending,
            probabilities=probabilities,
            settings={"models": [one.fingerprint() for one in checkpoints], "tta": tta, "overlap": overlap},
            progress=update,
        )
    _say(
        console,
        f"Wrote {len(paths)} label maps in {output}.",
        f"voxelseg evaluate --prediction {output} --reference DIR --out DIR",
    )
    return paths


def evaluate(
    prediction: PathLike,
    reference: PathLike,
    out: PathLike,
    *,
    tolerance_mm: float = 1.0,
    workers: int = 2,
    console: Console | None = None,
) -> Evaluation:
    """Dice, surface Dice, HD95 and volumes of predicted label maps; writes `out`/cases.csv and `out`/summary.json."""
    with _bar(console, "scoring") as update:
        evaluation = evaluate_folders(
            Path(prediction), Path(reference), Path(out), tolerance_mm=tolerance_mm, workers=workers, progress=update
        )
    if console is not None:
        console.print(class_table(evaluation))
    _say(console, f"Wrote {Path(out) / 'cases.csv'} and {Path(out) / 'summary.json'}.")
    return evaluation


def report(run: PathLike, out: PathLike, *, console: Console | None = None) -> Path:
    """One self-contained HTML page about a run: curves, scores, worst and best cases, plan, versions."""
    from voxelseg.report import write_report  # draws with matplotlib, which no other command waits for

    path = write_report(Path(run), Path(out))
    _say(console, f"Wrote {path}.")
    return path


def models() -> list[dict[str, Any]]:
    """Every network that `create_model` and --model know, with its parameters for 1 channel and 14 classes."""
    return describe_models()


def parse_duration(text: str) -> float:
    """Seconds of "90s", "20m", "1.5h" or "1h30m"; ConfigError for anything else."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    total, number = 0.0, ""
    for character in text.strip().lower():
        if character in units and number:
            try:
                total += float(number) * units[character]
            except ValueError:
                break
            number = ""
        else:
            number += character
    if number or total <= 0 or total == float("inf"):
        raise ConfigError(f"budget {text!r}: expected a time such as 90s, 20m or 1h30m.")
    return total


def plan_table(planned: Plan) -> Table:
    """The plan for people."""
    table = Table(title="Plan", show_header=False, title_justify="left")
    for key, value in (
        ("spacing (mm)", "  ".join(f"{mm:.3g}" for mm in planned.spacing_mm)),
        ("patch (voxels)", "  ".join(str(size) for size in planned.patch_size)),
        ("batch", str(planned.batch_size)),
        ("median scan (voxels)", "  ".join(str(size) for size in planned.median_shape)),
        (
            "normalisation",
            ", ".join(f"{c}: {n.kind}" for c, n in zip(planned.channels, planned.normalization, strict=True)),
        ),
        ("mirrored axes", ", ".join("DHW"[axis] for axis in planned.mirror_axes) or "none"),
    ):
        table.add_row(key, value)
    for note in planned.notes:
        table.add_row("note", note)
    return table


def _fingerprint(work: WorkFolder, data: Path, dataset: Dataset, workers: int, console: Console | None) -> Fingerprint:
    with _bar(console, "measuring", total=len(dataset.cases)) as update:
        return work.fingerprint(data, dataset, workers=workers, progress=lambda done: update(done, len(dataset.cases)))


def _preprocess(
    work: WorkFolder, dataset: Dataset, planned: Plan, workers: int, console: Console | None
) -> dict[str, StoredCase]:
    with _bar(console, "preprocessing", total=len(dataset.cases)) as update:
        return work.stored_cases(
            dataset, planned, workers=workers, progress=lambda done: update(done, len(dataset.cases))
        )


def _limits(
    dataset: Dataset, model: str, config: RunConfig, device: torch.device, memory_gb: float | None
) -> PlanLimits:
    """What `model` and `device` allow; measured by running the network on a small patch."""
    channels, classes = len(dataset.channels), dataset.labels.num_outputs
    options = {"deep_supervision": config.train.deep_supervision, **config.model}
    network = create_model(model, in_channels=channels, num_classes=classes, **options)
    per_voxel = training_bytes_per_voxel(network, in_channels=channels)
    budget = memory_gb if memory_gb is not None else MEMORY_GB[device.type]
    voxels = int(budget * 1e9 / per_voxel)
    if device.type == "cpu":
        voxels = min(voxels, CPU_VOXELS_PER_STEP)
    d, h, w = network.divisor
    return PlanLimits(divisor=None if follows_plan(model) else (d, h, w), voxels_per_step=max(voxels, 1))


def _plan_for(
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: RunConfig,
    device: torch.device,
    memory_gb: float | None,
) -> Plan:
    return make_plan(fingerprint, _limits(dataset, model, config, device, memory_gb), config.plan)


def _training_plan(
    work: WorkFolder,
    fingerprint: Fingerprint,
    dataset: Dataset,
    model: str,
    config: RunConfig,
    device: torch.device,
    memory_gb: float | None,
) -> Plan:
    """The work folder's plan or a fresh one, with the user's values and a patch that fits `model`."""
    if work.plan_path.is_file():
        planned = work.plan()
        planned = planned.changed(**config.plan) if config.plan else planned
    else:
        planned = _plan_for(fingerprint, dataset, model, config, device, memory_gb)
        planned.write(work.plan_path)
    network = create_model(
        model,
        in_channels=len(dataset.channels),
        num_classes=dataset.labels.num_outputs,
        **model_options(model, config, planned),
    )
    d, h, w = (-(-size // step) * step for size, step in zip(planned.patch_size, network.divisor, strict=True))
    return planned if planned.patch_size == (d, h, w) else planned.changed(patch_size=(d, h, w))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: expected cpu, cuda or cuda:N.") from error
    if device.type not in MEMORY_GB:
        raise ConfigError(f"device {name!r}: expected cpu, cuda or cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: no CUDA device is available here. Use --device cpu.")
    return device


def _chosen_folds(text: str, count: int) -> list[int]:
    if text == "all":
        return list(range(count))
    try:
        folds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"fold {text!r}: expected a number, a list such as 0,1, or all.") from error
    wrong = [fold for fold in folds if not 0 <= fold < count]
    if wrong:
        raise ConfigError(f"fold {wrong[0]}: the data set has folds 0 to {count - 1}.")
    return sorted(set(folds))


def _model_files(run: Path, fold: str | None) -> list[Path]:
    if run.is_file():
        return [run]
    if not run.is_dir():
        raise DataError(f"{run}: not found. Name the folder of a run (--out of `voxelseg train`) or a model file.")
    found = {int(path.parent.name.removeprefix("fold_")): path for path in sorted(run.glob(f"fold_*/{MODEL_FILE}"))}
    if not found:
        raise DataError(f"{run}: holds no trained model. Run `voxelseg train` to its end first.")
    if fold is None or fold == "all":
        return [found[number] for number in sorted(found)]
    try:
        wanted = [int(part) for part in fold.split(",")]
    except ValueError as error:
        raise ConfigError(f"fold {fold!r}: expected a number or a list such as 0,1.") from error
    missing = [number for number in wanted if number not in found]
    if missing:
        raise ConfigError(f"{run}: fold {missing[0]} is not trained; trained are {', '.join(map(str, sorted(found)))}.")
    return [found[number] for number in wanted]


def _say(console: Console | None, wrote: str, following: str | None = None) -> None:
    if console is None:
        return
    console.print(wrote, soft_wrap=True, highlight=False)
    if following:
        console.print(f"Next:\n  {following}", soft_wrap=True, highlight=False)


@contextmanager
def _bar(console: Console | None, title: str, *, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or _SILENT) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, of: progress.update(task, completed=done, total=of)


@contextmanager
def _case_bar(console: Console | None, title: str, total: int) -> Iterator[Callable[[str, float], None]]:
    """Bar over cases that takes (case, share of that case done)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shares: dict[str, float] = {}
    with Progress(*columns, console=console or _SILENT) as progress:
        task = progress.add_task(title, total=total)

        def update(case: str, share: float) -> None:
            shares[case] = share
            progress.update(task, completed=sum(shares.values()), description=f"{title} {case}")

        yield update


@contextmanager
def _training_bar(console: Console | None, title: str) -> Iterator[Callable[[TrainingProgress], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            "{task.percentage:>3.0f}%  step {task.fields[step]}  loss {task.fields[loss]}  Dice {task.fields[dice]}"
        ),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console or _SILENT) as progress:
        task = progress.add_task(f"training {title}", total=1.0, step=0, loss="-", dice="-")

        def show(state: TrainingProgress) -> None:
            dice = "-" if state.mean_dice is None else f"{state.mean_dice:.3f}"
            progress.update(task, completed=state.share, step=state.step, loss=f"{state.loss:.3f}", dice=dice)

        yield show
