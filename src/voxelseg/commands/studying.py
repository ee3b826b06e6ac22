"""The command `label-study`: how many labels a training needs, from scratch and from other weights."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from voxelseg.commands.arguments import choose_device
from voxelseg.commands.configuring import DEFAULT_MODEL, what_to_train
from voxelseg.commands.display import PathLike, say_left_out
from voxelseg.commands.planning import check_model, measure, store
from voxelseg.commands.running import run_with_bar
from voxelseg.commands.training import training_plan
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import Split, read_splits, splits_of
from voxelseg.errors import ConfigError
from voxelseg.files import make_folder
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.study.design import OF_INIT, Design
from voxelseg.study.results import Study, collect
from voxelseg.study.starts import parse_starts
from voxelseg.study.subsets import Subset, check_shares, nested_subsets
from voxelseg.study.tables import write_study
from voxelseg.train.config import RunConfig
from voxelseg.train.fitting import input_sha256
from voxelseg.train.machines.resources import num_cores
from voxelseg.train.settings import check_seed
from voxelseg.train.start.initial import check_init
from voxelseg.train.start.origin import leaks, origin_file, read_origin, seen_inputs, seen_without_labels

_log = logging.getLogger(__name__)
_NOT_HERE = {
    "transfer.init": "--start says what the trainings start from",
    "train.threads": "--threads says that",
}


def label_study(
    data: PathLike,
    out: PathLike,
    *,
    start: Sequence[str],
    shares: str = "5,10,25,100",
    seeds: str = "0,1,2",
    model: str | None = None,
    fold: int = 0,
    epochs: int | None = None,
    budget: str | None = None,
    jobs: int = 1,
    threads: int | None = None,
    device: str = "auto",
    splits: PathLike | None = None,
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Study:
    """Train from each `start` with `shares` percent of the labels, with several `seeds`, and compare with scratch.

    `start` holds "scratch" and paths of pre-trainings, runs or files of weights, also as "NAME=PATH". Every training is
    one of `voxelseg train` with the same plan, preprocessed cases, settings, length and held-out cases of `fold`; for a
    seed all starts have the same labelled cases, and smaller shares lie within larger ones. `jobs` trainings run at a
    time, with `threads` each (by default the cores divided by `jobs`).

    What is finished is kept: the same command goes on, tries again what failed, and takes further starts, shares and
    seeds. Written into `out` are study.json, table.csv, cases.csv, study.md and the figure.

    Raises ConfigError for unknown or impossible options, and for another study in `out`; DataError for data that cannot
    be used; CheckpointError for weights that do not fit; KeyboardInterrupt after Ctrl-C, once the trainings have saved
    their states. A training that fails does not stop the others: see `Study.faults`.
    """
    starts, share_list, seed_list = parse_starts(start), _shares(shares), _seeds(seeds)
    model = model or DEFAULT_MODEL
    _check_counts(jobs=jobs, **({} if threads is None else {"threads": threads}))
    _refuse_settings(settings)
    config = _config(model, None, epochs, budget, settings)
    on, threads = choose_device(device), threads or max(num_cores() // jobs, 1)
    dataset = read_dataset(data)
    check_model(model, dataset, config)
    chosen = _fold(dataset, fold, splits)
    patients = {case.id: case.patient for case in dataset.cases}
    _check_held_out({patients[case] for case in chosen.validation}, fold)
    check_shares(share_list, len({patients[case] for case in chosen.train}))
    files = {one.name: origin_file(str(one.init), fold) for one in starts if one.init is not None}
    folder = Path(out)
    make_folder(folder)
    say_left_out(console, dataset)
    work = WorkFolder(folder / "work")
    fingerprint = measure(work, dataset, workers=workers, console=console)
    planned = training_plan(folder, work, fingerprint, dataset, model, config, on, memory_gb)
    checksums = {name: read_origin(file, model=model).checksum for name, file in files.items()}
    for file in files.values():
        check_init(model, dataset, _config(model, file, epochs, budget, settings), planned, [0], folder)
    design = Design(
        folder=folder,
        data=dataset.source,
        model=model,
        fold=fold,
        starts=starts,
        shares=share_list,
        seeds=seed_list,
        subsets=_subsets(dataset, chosen, fingerprint, share_list, seed_list),
        num_training_cases=len(chosen.train),
        held_out={case: patients[case] for case in chosen.validation},
        length={name: value for name, value in (("epochs", epochs), ("budget", budget)) if value is not None},
        pace={} if config.train.budget_s is None else {"device": str(on), "jobs": jobs, "threads": threads},
        settings=tuple(settings),
        device=str(on),
        files=files,
        checksums=checksums,
    )
    design.record()
    work.write_plan(planned)
    stored = store(work, dataset, planned, workers=workers, console=console)
    remarks = _seen(design, model, stored, chosen.train)
    for remark in remarks:
        _log.warning("%s", remark)
    faults = _train(design, jobs=jobs, threads=threads, workers=workers, console=console)
    study = collect(design, faults, remarks)
    _write(study, console)
    return study


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--shares {text!r}: expected percents such as 5,10,25,100.") from error
    if len(set(shares)) < len(shares):
        raise ConfigError(f"--shares {text}: names a share twice.")
    return tuple(sorted(shares))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r}: expected whole numbers such as 0,1,2.") from error
    for seed in seeds:
        check_seed(seed)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}: names a seed twice.")
    return seeds


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"--{name} {count}: expected 1 or more.")


def _refuse_settings(settings: Sequence[str]) -> None:
    """ConfigError for settings that an option of the study decides."""
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in _NOT_HERE:
            raise ConfigError(f"--set {key}: {_NOT_HERE[key]}. Leave it out.")


def _config(
    model: str, init: Path | None, epochs: int | None, budget: str | None, settings: Sequence[str]
) -> RunConfig:
    """Configuration of the trainings of a start."""
    kept = [one for one in settings if init is not None or one.partition("=")[0].strip() not in OF_INIT]
    _, _, config = what_to_train(
        recipe=None, model=model, init=init, grow_kernel=None, epochs=epochs, budget=budget, settings=kept
    )
    return config


def _fold(dataset: Dataset, fold: int, splits: PathLike | None) -> Split:
    folds = read_splits(Path(splits), dataset.cases) if splits is not None else splits_of(dataset)
    if not 0 <= fold < len(folds):
        raise ConfigError(f"fold {fold}: the data set has folds 0 to {len(folds) - 1}.")
    return folds[fold]


def _check_held_out(patients: set[str], fold: int) -> None:
    if len(patients) < 2:
        raise ConfigError(
            f"fold {fold} holds out one patient only, so no difference could be told from chance. Choose folds with "
            "more held-out patients (--splits FILE), or another --fold."
        )


def _subsets(
    dataset: Dataset, chosen: Split, fingerprint: Fingerprint, shares: Sequence[float], seeds: Sequence[int]
) -> dict[tuple[float, int], Subset]:
    """Labelled cases by share and seed."""
    cases = [case for case in dataset.cases if case.id in set(chosen.train)]
    classes_of = {
        case.id: [name for name, volume in fingerprint.cases[case.id].class_volumes_ml.items() if volume > 0]
        for case in cases
    }
    drawn = {seed: nested_subsets(cases, classes_of, shares, seed) for seed in seeds}
    return {(share, seed): drawn[seed][share] for share in shares for seed in seeds}


def _seen(design: Design, model: str, stored: Mapping[str, StoredCase], training: Sequence[str]) -> list[str]:
    """Remarks on starts that have seen labels of training cases, so that they know more than a share, or scans of
    held-out ones.
    """
    inputs = {case: input_sha256(stored[case]) for case in (*training, *design.held_out)}
    remarks: list[str] = []
    noted: dict[str, list[str]] = {}  # names of starts by what holds for all of them
    for name, file in design.files.items():
        origin = read_origin(file, model=model)
        known = sum(inputs[case][0] in seen_inputs(origin).labelled for case in training)
        if known:
            remarks.append(
                f"{name} was trained with the labels of {known} of the {len(training)} training cases: it knows more "
                "than the share. Pre-train without labels (voxelseg pretrain), or start from weights of other data."
            )
        held_out = {case: inputs[case] for case in design.held_out}
        for note in (*leaks(origin, held_out), *seen_without_labels(origin, held_out)):
            noted.setdefault(note, []).append(name)
    return [*remarks, *(f"{', '.join(names)}: {note}" for note, names in noted.items())]


def _train(design: Design, *, jobs: int, threads: int, workers: int, console: Console | None) -> dict[str, str]:
    """Run the trainings that are not finished; returns what went wrong, by name."""
    trainings = design.trainings
    missing = [training for training in trainings if design.outcome(training) is None]
    faults = run_with_bar(
        [design.job(training, threads=threads, workers=workers) for training in missing],
        done=len(trainings) - len(missing),
        places=[()] * jobs,
        threads=threads,
        console=console,
    )
    lost = [one for one in missing if one.name not in faults and design.outcome(one) is None]
    return faults | {
        one.name: f"ended well, but {design.run_folder(one)} lacks scores or log. Delete that folder to train it again."
        for one in lost
    }


def _write(study: Study, console: Console | None) -> None:
    from voxelseg.study.figure import write_figure  # matplotlib takes a while to load

    paths = write_study(study)
    if study.outcomes:
        paths += write_figure(study)
    if console is not None:
        text = f"Wrote {', '.join(map(str, paths))}."
        console.print(text, soft_wrap=True, highlight=False, markup=False)
