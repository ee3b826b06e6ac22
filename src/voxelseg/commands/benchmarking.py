"""The command `benchmark`: many networks trained alike, and compared."""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from voxelseg.benchmark.collecting import collect, keep_costs
from voxelseg.benchmark.costs import COSTS_FILE, Measuring, measured_costs
from voxelseg.benchmark.design import BENCHMARK_FILE, Design, wait_for_others
from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.fair_plan import Contender, check_memory, each_contestant, fair_plan
from voxelseg.benchmark.fairness import fairness, seen_before
from voxelseg.benchmark.inputs import INPUTS_FILE, unchanged_inputs
from voxelseg.benchmark.jobs import Resources, missing_jobs
from voxelseg.benchmark.length import Length
from voxelseg.benchmark.machines import unequal_devices
from voxelseg.benchmark.pretraining import check_pretraining
from voxelseg.commands.arguments import chosen_folds
from voxelseg.commands.benchmark_options import (
    chosen_devices,
    chosen_entrants,
    chosen_nnunet,
    chosen_pace,
    contender_of,
    parse_seeds,
    planning_device,
    refuse_settings,
    refuse_without_slurm,
)
from voxelseg.commands.cluster import slurm_array
from voxelseg.commands.display import PathLike, counting_bar, say, say_left_out
from voxelseg.commands.planning import check_model, measure, plan_table, store
from voxelseg.commands.running import run_with_bar
from voxelseg.compare.comparison import Comparison
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.compare.patients import patients_of
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import Split, read_splits, splits_of, write_splits
from voxelseg.data.wording import counted
from voxelseg.files import locked, write_json
from voxelseg.preprocess.work import WorkFolder
from voxelseg.side_by_side.jobs import Job
from voxelseg.train.fitting import input_sha256
from voxelseg.train.record import made_with
from voxelseg.train.start.initial import check_init

_log = logging.getLogger(__name__)
SCRIPT_FILE = "slurm.sh"
PRETRAINING_SCRIPT_FILE = "slurm_pretraining.sh"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What came of it."""

    design: Design
    contestants: Sequence[Contestant]
    comparison: Comparison | None
    """None while no contestant has a whole seed."""
    faults: Mapping[str, str]
    """What went wrong, by the names of the trainings that failed."""


def benchmark(
    data: PathLike,
    out: PathLike,
    *,
    models: str | None = None,
    grid: str | None = None,
    budget: str | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seeds: str = "2",
    folds: str = "0",
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    splits: PathLike | None = None,
    memory_gb: float | None = None,
    settings: Sequence[str] = (),
    nnunet_env: PathLike | None = None,
    costs: bool = True,
    pictures: bool = True,
    slurm: bool = False,
    sbatch: Sequence[str] = (),
    env_setup: Sequence[str] = (),
    workers: int = 2,
    console: Console | None = None,
) -> Benchmark:
    """Train all `models` on the same folds with the same plan, recipe and length, with several seeds, and compare them.

    `models` is a list such as "unet,mednext_s:kernel_size=5", or a JSON or YAML file: see
    `voxelseg.benchmark.entrants`; `grid` names an ablation of a paper instead. Every training is one of `voxelseg
    train`. One of `budget`, `steps` and `epochs` sets the length of all; `seeds` is their number or a list, `folds` is
    "0", "0,1" or "all". `device` may name several, such as "cuda:0,cuda:1"; `jobs` trainings run at a time, by default
    one on each, with `threads` each (by default the cores divided by `jobs`). `settings` are those of all contestants.
    nnU-Net v2 takes part as the model "nnunet", from its own environment in folder `nnunet_env`. `costs` are measured
    once on this machine. With `pictures` the page shows slices of scans. With `slurm` what is missing is not trained
    here, but put into a script for `sbatch`, with its options `sbatch` and the shell lines `env_setup`; afterwards the
    same call collects.

    What is finished is kept: the same call goes on, tries again what failed, and takes further contestants, seeds and
    folds. Written into `out` is also what `voxelseg compare` writes.

    Raises ConfigError for unknown or impossible options, naming all contestants that cannot take part, and for another
    benchmark in `out`, or one of data that have changed since; DataError for data that cannot be used; BusyError if
    another process works in `out`; KeyboardInterrupt after Ctrl-C, once the trainings have saved their states. A
    training that fails does not stop the others: see `Benchmark.faults`.
    """
    length = Length(budget=budget, steps=steps, epochs=epochs)
    entrants, seed_list = chosen_entrants(models, grid, length), parse_seeds(seeds)
    refuse_settings(settings, length)
    refuse_without_slurm(slurm, sbatch=sbatch, env_setup=env_setup)
    devices = [name.strip() for name in device.split(",")] if slurm else chosen_devices(device)
    at_once, threads = chosen_pace(jobs, threads, devices, length, sbatch=sbatch if slurm else None)
    pace = {"device": devices[0].partition(":")[0], "jobs": at_once, "threads": threads}
    ours = {one.name: one for one in entrants if not one.is_nnunet}
    contenders = each_contestant(ours, lambda one: contender_of(one, settings, length))
    with_nnunet = chosen_nnunet(entrants, nnunet_env, list(contenders.values()), Path(out))
    learning = {one.name: one for one in entrants if one.pretrain is not None}
    each_contestant(learning, lambda one: check_pretraining(one, settings, length))
    dataset = read_dataset(data)
    each_contestant(contenders, lambda one: check_model(one.model, dataset, one.config))
    all_folds = read_splits(Path(splits), dataset.cases) if splits is not None else splits_of(dataset)
    chosen = chosen_folds(folds, len(all_folds))
    folder = Path(out)
    with locked(folder):
        say_left_out(console, dataset)
        inputs = unchanged_inputs(folder, dataset)
        work = WorkFolder(folder / "work")
        fingerprint = measure(work, dataset, workers=workers, console=console)
        on, memory_gb = planning_device(devices[0], memory_gb)
        planned, reasons = fair_plan(
            fingerprint,
            dataset,
            contenders,
            device=on,
            memory_gb=memory_gb,
            fixed=next(iter(contenders.values())).config.plan,
            known=work.plan() if work.plan_path.is_file() else None,
            begun=work.plan_path.is_file() and (folder / BENCHMARK_FILE).is_file(),
        )
        on_one = at_once // len(devices) if on.type == "cuda" else at_once
        for warning in [] if slurm else check_memory(contenders, dataset, planned, on, at_once=max(on_one, 1)):
            _log.warning("%s", warning)
        design = Design(
            folder=folder,
            data=dataset.source,
            dataset=dataset.name,
            entrants=entrants,
            folds=chosen,
            seeds=seed_list,
            held_out=_held_out(dataset, all_folds, chosen),
            trained_on={fold: all_folds[fold].train for fold in chosen},
            length=length,
            settings=tuple(settings),
            pace=pace if length.in_minutes else {},
            plan=planned,
            reasons={name: asdict(reason) for name, reason in reasons.items()},
        )
        each_contestant(ours, lambda one: _check_init(design, one, contenders[one.name], dataset))
        design.record({**made_with(on), "fairness": fairness(design)})
        write_json(folder / INPUTS_FILE, inputs)
        write_splits(design.splits, all_folds)
        work.write_plan(planned)
        if console is not None:
            console.print(plan_table(planned))
        stored = store(work, dataset, planned, workers=workers, console=console)
        seen = seen_before(design, {case: input_sha256(one) for case, one in stored.items()})
        for warning in seen:
            _log.warning("%s", warning)
        resources = Resources(threads=threads, workers=workers)
        missing = missing_jobs(design, dataset, all_folds, with_nnunet, resources)
        faults: dict[str, str] = {}
        if slurm:
            _write_scripts(design, missing, devices[0], jobs, sbatch=sbatch, env_setup=env_setup, console=console)
        else:
            places = [("--device", devices[number % len(devices)]) for number in range(at_once)]
            faults = _train(design, missing, places, threads=threads, console=console)
        measured = _costs(design, contenders, on, threads, console=console) if costs else {}
        keep_costs(design, measured)
        contestants = collect(design, faults, measured, labels=dataset.labels, channel=dataset.channels[0])
        comparison = _compare(design, contestants, dataset, remarks=seen, pictures=pictures, console=console)
    return Benchmark(design=design, contestants=contestants, comparison=comparison, faults=faults)


def _held_out(dataset: Dataset, folds: Sequence[Split], chosen: Sequence[int]) -> dict[int, dict[str, str]]:
    patients = {case.id: case.patient for case in dataset.cases}
    return {fold: {case: patients[case] for case in folds[fold].validation} for fold in chosen}


def _check_init(design: Design, entrant: Entrant, one: Contender, dataset: Dataset) -> None:
    """ConfigError or CheckpointError for weights that a training which has not begun cannot start from."""
    for cell in (cell for cell in design.cells if cell.entrant == entrant):
        check_init(one.model, dataset, one.config, design.plan, [cell.fold], design.cell_folder(cell))


def _train(
    design: Design,
    missing: tuple[list[Job], list[Job]],
    places: Sequence[tuple[str, ...]],
    *,
    threads: int,
    console: Console | None,
) -> dict[str, str]:
    """Run the trainings that are not finished; returns what went wrong, by name."""
    before, trainings = missing
    wait_for_others(design)
    faults = run_with_bar(
        [*before, *trainings],
        done=len(design.cells) - len(trainings),
        places=places,
        threads=threads,
        console=console,
    )
    lost = [one for one in design.cells if one.name not in faults and design.outcome(one) is None]
    remedy = "Delete that folder to train it again."
    return faults | {
        one.name: f"ended well, but {design.cell_folder(one)} lacks scores or log. {remedy}" for one in lost
    }


def _write_scripts(
    design: Design,
    missing: tuple[list[Job], list[Job]],
    device: str,
    jobs: int | None,
    *,
    sbatch: Sequence[str],
    env_setup: Sequence[str],
    console: Console | None,
) -> None:
    """Scripts of the trainings that are not finished, and of the pre-trainings that come first."""
    before, trainings = missing
    if not trainings:
        return
    words = []
    for name, some in ((PRETRAINING_SCRIPT_FILE, before), (SCRIPT_FILE, trainings)):
        if not some:
            continue
        tasks = [(*job.command, "--device", device) for job in some]
        path = slurm_array(design.folder / name, tasks, at_once=jobs, sbatch=sbatch, env_setup=env_setup)
        after = ["--dependency=afterok:JOB"] if before and some is trainings else []
        words.append(shlex.join(["sbatch", *after, str(path)]))
    if console is not None:
        text = f"Wrote {counted(len(trainings), 'training')} for a cluster.\nNext:\n  " + "\n  ".join(words)
        if before:
            text += "\nwhere JOB is the number that the first command prints."
        text += "\nThen the same command again, which compares what is finished."
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def _costs(
    design: Design, contenders: Mapping[str, Contender], device: torch.device, threads: int, *, console: Console | None
) -> dict[str, Cost]:
    measuring = Measuring(data=design.data, plan=design.plan, device=str(device), threads=threads)
    with counting_bar(console, "measuring costs", total=len(contenders)) as update:
        return measured_costs(
            measuring, contenders, design.folder / COSTS_FILE, progress=lambda done, what: update(done, note=what)
        )


def _compare(
    design: Design,
    contestants: Sequence[Contestant],
    dataset: Dataset,
    *,
    remarks: Sequence[str],
    pictures: bool,
    console: Console | None,
) -> Comparison | None:
    """Compare what is finished, and write the files of a comparison; None if nothing is."""
    if not any(one.runs for one in contestants):
        if console is not None:
            console.print("Nothing to compare yet: no contestant has finished all folds of a seed.")
        return None
    from voxelseg.report.comparison import write_comparison  # matplotlib takes a while to load
    from voxelseg.report.comparison.writing import MARKDOWN_FILE, PAGE_FILE

    comparison = write_comparison(
        contestants,
        design.folder,
        patients=patients_of(contestants, {case.id: case.patient for case in dataset.cases}),
        title=f"{dataset.name}: {len(contestants)} contestants, {design.length}",
        command=shlex.join(["voxelseg", *sys.argv[1:]]),
        notes=[*fairness(design), *remarks],
        warnings=unequal_devices(design),
        pictures=pictures,
    )
    say(console, f"Wrote {design.folder / PAGE_FILE}, {design.folder / MARKDOWN_FILE}, comparison.json and tables.")
    return comparison
