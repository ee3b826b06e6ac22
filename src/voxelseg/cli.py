"""The command line: one verb per function of `voxelseg.commands`; parsing and printing only.

What a command is asked for goes to standard output, progress, remarks and errors to standard error.
"""

import inspect
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from voxelseg import commands
from voxelseg.errors import ConfigError, StoppedError
from voxelseg.version import __version__


class _Commands(TyperGroup):
    """Lets Ctrl-C end in our message and exit code (see `__main__`), where typer ends in silence."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _stoppable():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _stoppable():
            return super().invoke(ctx)


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError from error


app = typer.Typer(
    cls=_Commands,
    name="voxelseg",
    help="3D medical image segmentation: from labelled scans to a trained model, predictions, scores and a report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="An MSD, nnU-Net or images/ + labels/ folder, or a JSON or CSV list.")
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that `voxelseg train` or `voxelseg pretrain` wrote.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="Network; `voxelseg models` lists them.")]
ModelOrDefault = Annotated[
    str | None, typer.Option(metavar="NAME", help="Network; `voxelseg models` lists them. [default: mednext_s]")
]
RecipeName = Annotated[
    str | None, typer.Option(metavar="NAME", help="A paper's training; `voxelseg recipes` lists them.")
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Length of each training in time instead, such as 20m or 1h30m."),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Of the weights and all that is drawn.")]
Work = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of `voxelseg plan`, for prepared scans. [default: work in --out]"),
]
Splits = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON file with folds, as nnU-Net's splits_final.json.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N, or auto.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of docs/reference/configuration.md, as in train.lr=1e-3; may be repeated.",
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(metavar="GB", help="Memory budget of a training step, for a new plan. [default: cpu 3, cuda 8]"),
]
Pictures = Annotated[
    bool, typer.Option("--pictures/--no-pictures", show_default=False, help="Slices of scans on the page.")
]
Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes that read and prepare cases.")]
Json = Annotated[bool, typer.Option("--json/--no-json", show_default=False, help="Print JSON for machines.")]


def _progress_console() -> Console:
    return Console(stderr=True)


@app.command(short_help="The whole main job on an embedded data set.")
def demo(
    out: Out = Path("demo"),
    budget: Annotated[str, typer.Option(metavar="TIME", help="Training time, such as 4m.")] = "4m",
) -> None:
    """Do the whole main job on an embedded data set: make, check, train, predict, evaluate, report."""
    from voxelseg.evaluate import class_table

    scores = commands.demo(out, budget=budget, console=_progress_console())
    Console().print(class_table(scores))
    print(f"Mean foreground Dice on {len(scores.cases)} test cases: {scores.mean('dice'):.3f}")


@app.command(short_help="Find every problem of a data set before it costs time.")
def check(data: Data, as_json: Json = False, workers: Workers = 2) -> None:
    """Find every problem of a data set before it costs time; exit code 1 if training would be wrong."""
    from voxelseg.data.checks import print_report

    report = commands.check(data, workers=workers, console=None if as_json else _progress_console())
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, Console())
    raise typer.Exit(report.exit_code)


@app.command(short_help="Decide spacing, normalisation, patch, batch and mirroring.")
def plan(
    data: Data,
    out: Out,
    recipe: RecipeName = None,
    model: ModelOrDefault = None,
    device: Device = "auto",
    memory_gb: Memory = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--no-probe",
            show_default=False,
            help="Find the largest patch or batch that fits --memory-gb, or a GPU's free memory, by real steps.",
        ),
    ] = False,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Measure a data set and decide spacing, normalisation, patch, batch and mirroring."""
    from voxelseg.commands.planning import plan_table

    planned = commands.plan(
        data,
        out,
        recipe=recipe,
        model=model,
        device=device,
        memory_gb=memory_gb,
        probe=probe,
        settings=settings or [],
        workers=workers,
        console=_progress_console(),
    )
    Console().print(plan_table(planned))


@app.command(short_help="Prepare all cases of a planned data set for training.")
def preprocess(
    work: Annotated[Path, typer.Argument(metavar="WORK", help="Folder that `voxelseg plan` wrote.")],
    workers: Workers = 2,
) -> None:
    """Prepare all cases of a planned data set for training; what is ready is kept."""
    commands.preprocess(work, workers=workers, console=_progress_console())


@app.command(short_help="Let a network learn from scans without labels.")
def pretrain(
    scans: Annotated[
        Path, typer.Argument(metavar="SCANS", help="Folder with scans in it, or a data set; labels are not read.")
    ],
    out: Out,
    model: Model = "mednext_s",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="masked-clusters, simmim, rubik, rubik-cls, simclr or mae.")
    ] = "masked-clusters",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Length in epochs of one crop of each scan. [default: 100]")
    ] = None,
    budget: Budget = None,
    seed: Seed = 0,
    device: Device = "auto",
    work: Work = None,
    memory_gb: Memory = None,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Let a network learn from scans without labels; `voxelseg train --init` may then need fewer labelled ones.

    Plans and preprocesses first where needed. The same command continues after any interruption.
    """
    commands.pretrain(
        scans,
        out,
        model=model,
        method=method,
        epochs=epochs,
        budget=budget,
        seed=seed,
        device=device,
        work=work,
        memory_gb=memory_gb,
        settings=settings or [],
        workers=workers,
        console=_progress_console(),
    )


@app.command(short_help="Train a network and score the held-out cases.")
def train(
    data: Data,
    out: Out,
    recipe: RecipeName = None,
    model: ModelOrDefault = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Start from the weights of a run, a pre-training or an authors' file."),
    ] = None,
    grow_kernel: Annotated[
        str | None, typer.Option(metavar="K:L", help="Train with kernels of K, grow them to L, train on: 3:5.")
    ] = None,
    fold: Annotated[
        str, typer.Option(metavar="FOLD", help="Held-out fold: 0, a list such as 0,1, or all: cross-validation.")
    ] = "0",
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Length in epochs of train.steps_per_epoch steps. [default: 1000]"),
    ] = None,
    budget: Budget = None,
    seed: Seed = 0,
    device: Device = "auto",
    work: Work = None,
    splits: Splits = None,
    memory_gb: Memory = None,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Train on all folds but one and score the held-out cases, for one fold or several.

    Plans and preprocesses first where needed. The same command continues after any interruption. When all folds are
    finished, their scores are pooled, and it is chosen of which classes predictions keep only the largest component.
    """
    commands.train(
        data,
        out,
        recipe=recipe,
        model=model,
        init=init,
        grow_kernel=grow_kernel,
        fold=fold,
        epochs=epochs,
        budget=budget,
        seed=seed,
        device=device,
        work=work,
        splits=splits,
        memory_gb=memory_gb,
        settings=settings or [],
        workers=workers,
        console=_progress_console(),
    )


@app.command(short_help="Segment scans with a trained run.")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `voxelseg train` wrote, or one model file.")],
    input: Annotated[  # noqa: A002 - the option is called --input
        Path, typer.Option("--input", metavar="PATH", help="Scan, folder of scans, or data set.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the label maps.")],
    fold: Annotated[
        str | None, typer.Option(metavar="FOLDS", help="Folds to average, such as 0,1. [default: all trained]")
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities/--no-probabilities",
            show_default=False,
            help="Also write probabilities, one 4D file per scan.",
        ),
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Weights: last or best. [default: the run's predict.checkpoint]")
    ] = None,
    tta: Annotated[
        bool | None,
        typer.Option("--tta/--no-tta", help="Average over scans mirrored along the plan's axes. [default: the run's]"),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9,
            show_default=False,
            help="Part of a window that the next one covers. [default: the run's]",
        ),
    ] = None,
    postprocess: Annotated[
        bool,
        typer.Option(
            "--postprocess/--no-postprocess",
            show_default=False,
            help="Keep only largest components where the cross-validation chose that; done unless told otherwise.",
        ),
    ] = True,
    device: Device = "auto",
) -> None:
    """Segment scans with a trained run; label maps lie on each scan's own grid.

    What is there already, made by the same models and options from the same scans, is kept.
    """
    commands.predict(
        run,
        input,
        output,
        fold=fold,
        probabilities=probabilities,
        checkpoint=checkpoint,
        tta=tta,
        overlap=overlap,
        postprocess=postprocess,
        device=device,
        console=_progress_console(),
    )


@app.command(short_help="Score label maps against references.")
def evaluate(
    prediction: Annotated[Path, typer.Option(metavar="DIR", help="Folder of predicted label maps.")],
    reference: Annotated[Path, typer.Option(metavar="DIR", help="Folder of reference label maps.")],
    out: Out,
    tolerance_mm: Annotated[
        list[float] | None,
        typer.Option(metavar="MM", min=0.0, show_default="1", help="Of surface Dice; may be given several times."),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of 4D files by `voxelseg predict --probabilities`: score calibration, too.",
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing/--no-allow-missing", show_default=False, help="Leave out references without prediction."
        ),
    ] = False,
    workers: Workers = 2,
) -> None:
    """Score predictions per case and class: overlap, distances, volumes, detection."""
    from voxelseg.evaluate import class_table

    evaluation = commands.evaluate(
        prediction,
        reference,
        out,
        tolerance_mm=tolerance_mm or 1.0,
        probabilities=probabilities,
        allow_missing=allow_missing,
        workers=workers,
        console=_progress_console(),
    )
    Console().print(class_table(evaluation))


@app.command(short_help="Compare scores or label maps of several models or tools.")
def compare(
    contestants: Annotated[
        list[str],
        typer.Argument(
            metavar="EVALS",
            help="PATH or NAME=PATH,PATH (other seeds): a folder of `evaluate` or `train`, or of label maps.",
        ),
    ],
    out: Out,
    reference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Reference label maps, to score label maps against.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Data set with references, scans for pictures, and patients.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV table with the columns case and patient.")
    ] = None,
    metric: Annotated[str, typer.Option(metavar="NAME", help="Ranks by this one, as cases.csv calls it.")] = "dice",
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METRIC=]NUMBER",
            show_default="0.005",
            help="What difference does not matter, of ratios or of one metric as in hd95_mm=0.5; may be repeated.",
        ),
    ] = None,
    missing: Annotated[
        str, typer.Option(metavar="HOW", help="A missing prediction: refuse, worst (counts as it) or leave-out.")
    ] = "refuse",
    tolerance_mm: Annotated[
        list[float] | None,
        typer.Option(metavar="MM", min=0.0, show_default="1", help="Of surface Dice of label maps; may be repeated."),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Of the page.")] = "",
    pictures: Pictures = True,
    workers: Workers = 2,
) -> None:
    """Compare models or tools on the same cases, and write one page: which is best, and how sure that is.

    All that the page says is in files beside it, too: numbers as JSON and CSV, figures, Markdown.
    """
    from voxelseg.commands.comparing import comparison_table

    found = commands.compare(
        contestants,
        out,
        reference=reference,
        data=data,
        patients=patients,
        metric=metric,
        margin=margin or [],
        missing=missing,
        tolerance_mm=tolerance_mm or 1.0,
        title=title,
        pictures=pictures,
        workers=workers,
        console=_progress_console(),
    )
    Console().print(comparison_table(found))


@app.command(short_help="Write one HTML page about a run or a pre-training.")
def report(
    run: RunFolder, out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML page about a run or a pre-training: curves, scores, pictures, plan, versions."""
    commands.report(run, out, console=_progress_console())


@app.command(short_help="Probe what pre-trained features tell apart.")
def probe(
    pre: Annotated[Path, typer.Argument(metavar="PRE", help="Folder that `voxelseg pretrain` wrote.")],
    data: Annotated[Path, typer.Option(metavar="DATA", help="Labelled data set of any layout.")],
    fold: Annotated[int, typer.Option(metavar="FOLD", min=0, help="Fold whose held-out cases are scored.")] = 0,
    cases: Annotated[int, typer.Option(metavar="N", min=2, help="Most cases to fit on, and to score.")] = 10,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
) -> None:
    """Tell the classes of single voxels by frozen features, pre-trained and fresh; the report then shows it."""
    from voxelseg.commands.voxel_probe import probe_table

    found = commands.probe(
        pre,
        data,
        fold=fold,
        cases=cases,
        seed=seed,
        device=device,
        workers=workers,
        console=_progress_console(),
    )
    Console().print(probe_table(found))


@app.command("label-study", short_help="Compare starts of a training with few and many labels.")
def label_study(
    data: Data,
    out: Out,
    start: Annotated[
        list[str],
        typer.Option(metavar="START", help="scratch, a folder of weights, or NAME=FOLDER; give it for each start."),
    ],
    shares: Annotated[str, typer.Option(metavar="LIST", help="Percents of the training cases.")] = "5,10,25,100",
    seeds: Annotated[str, typer.Option(metavar="LIST", help="Seeds, each with subsets of its own.")] = "0,1,2",
    model: ModelOrDefault = None,
    fold: Annotated[int, typer.Option(metavar="FOLD", min=0, help="The fold that is held out.")] = 0,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Length of each training in epochs.")] = None,
    budget: Budget = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each training. [default: cores / jobs]")
    ] = None,
    device: Device = "auto",
    splits: Splits = None,
    memory_gb: Memory = None,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Train from scratch and from other weights with few and many labels, with several seeds, and compare.

    All else is the same: held-out cases, subsets, length, settings. The same command goes on after any interruption;
    exit code 1 if a training failed.
    """
    from voxelseg.study.tables import study_table

    study = commands.label_study(
        data,
        out,
        start=start,
        shares=shares,
        seeds=seeds,
        model=model,
        fold=fold,
        epochs=epochs,
        budget=budget,
        jobs=jobs,
        threads=threads,
        device=device,
        splits=splits,
        memory_gb=memory_gb,
        settings=settings or [],
        workers=workers,
        console=_progress_console(),
    )
    Console().print(study_table(study))
    raise typer.Exit(1 if study.faults else 0)


def _list_grids(asked: bool) -> None:
    if asked:
        from voxelseg.benchmark.grids import GRIDS
        from voxelseg.commands.listing import grids_page

        Console().print(grids_page(GRIDS))
        raise typer.Exit


@app.command(short_help="Train many networks alike, and compare them.")
def benchmark(
    data: Data,
    out: Out,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Contestants, such as unet,mednext_s:kernel_size=5,NAME=uxnet; or a JSON or YAML file."
        ),
    ] = None,
    grid: Annotated[
        str | None, typer.Option(metavar="NAME", help="An ablation of a paper instead; --list-grids shows them.")
    ] = None,
    list_grids: Annotated[
        bool,
        typer.Option(
            "--list-grids", callback=_list_grids, is_eager=True, show_default=False, help="Show all grids and exit."
        ),
    ] = False,
    budget: Budget = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Length of each training in steps.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Length of each training in epochs.")] = None,
    seeds: Annotated[str, typer.Option(metavar="N", help="How many seeds, or a list such as 0,1,2.")] = "2",
    folds: Annotated[str, typer.Option(metavar="FOLDS", help="Held-out folds: 0, a list such as 0,1, or all.")] = "0",
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Trainings at a time. [default: one on each device]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each training. [default: cores / jobs]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAMES", help="cpu, cuda, auto, or several: cuda:0,cuda:1.")] = "auto",
    splits: Splits = None,
    memory_gb: Memory = None,
    settings: Settings = None,
    nnunet_env: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Environment with nnU-Net v2, for the contestant nnunet.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs/--no-costs", help="Measure time and memory of each network on this machine.")
    ] = True,
    pictures: Pictures = True,
    slurm: Annotated[
        bool,
        typer.Option("--slurm/--no-slurm", show_default=False, help="Write a script of jobs instead of training here."),
    ] = False,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Of each such job, as --gpus-per-node=1 or --time=8:00:00."),
    ] = None,
    env_setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line before each such training, to load modules."),
    ] = None,
    workers: Workers = 2,
) -> None:
    """Train networks on the same folds, patches, recipe and budget, with several seeds, and compare them.

    One of --budget, --steps and --epochs is the length of each training. The same command goes on after any
    interruption, and compares what is finished; exit code 1 if a training failed.
    """
    found = commands.benchmark(
        data,
        out,
        models=models,
        grid=grid,
        budget=budget,
        steps=steps,
        epochs=epochs,
        seeds=seeds,
        folds=folds,
        jobs=jobs,
        threads=threads,
        device=device,
        splits=splits,
        memory_gb=memory_gb,
        settings=settings or [],
        nnunet_env=nnunet_env,
        costs=costs,
        pictures=pictures,
        slurm=slurm,
        sbatch=sbatch or [],
        env_setup=env_setup or [],
        workers=workers,
        console=_progress_console(),
    )
    if found.comparison is not None:
        from voxelseg.commands.comparing import comparison_table

        Console().print(comparison_table(found.comparison))
    raise typer.Exit(1 if found.faults else 0)


@app.command(short_help="Write a script that trains on a cluster under SLURM.")
def slurm(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Script to write.")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- DATA --out RUN", help="All that `voxelseg train` is to be given.")
    ],
    nodes: Annotated[int, typer.Option(metavar="N", min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(metavar="N", min=0, help="Of each machine; 0 for CPUs.")] = 1,
    folds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Cross-validation as an array of N jobs, a fold each.")
    ] = None,
    time: Annotated[str | None, typer.Option(metavar="TIME", help="Limit of a job, such as 24:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Of the cluster.")] = None,
    cpus_per_task: Annotated[int | None, typer.Option(metavar="N", min=1, help="Cores of each machine.")] = None,
    mem: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each machine, such as 64G.")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="Any other, as --account=NAME; may be repeated.")
    ] = None,
    env_setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line before the training, to load modules; may be repeated."),
    ] = None,
) -> None:
    """Write a batch script that trains on a cluster and queues itself again before its time limit."""
    from voxelseg.commands.configuring import what_to_train

    # What a training cannot be given is said now, not when the job has come to its turn.
    training = typer.main.get_group(app).commands["train"]
    with training.make_context("voxelseg train", [*arguments, *(["--fold=0"] if folds is not None else [])]) as context:
        given = {**context.params, "settings": context.params["settings"] or []}
        what_to_train(**{name: given[name] for name in inspect.signature(what_to_train).parameters})
    commands.slurm(
        out,
        arguments,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        folds=folds,
        time=time,
        partition=partition,
        cpus_per_task=cpus_per_task,
        mem=mem,
        sbatch=sbatch or [],
        env_setup=env_setup or [],
        console=_progress_console(),
    )


@app.command(short_help="List the networks and what they cost.")
def models(
    as_json: Json = False,
    size: Annotated[
        str, typer.Option(metavar="VOXELS", help="Patch: voxels along each axis, or D,H,W as 64,160,160.")
    ] = "96",
) -> None:
    """List the networks: parameters, multiply-accumulates and memory of a patch, for 1 channel and 14 classes."""
    found = commands.models(size, console=_progress_console())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from voxelseg.commands.listing import models_table

    Console().print(models_table(found, size))


@app.command(short_help="List the papers' trainings, or show all of one.")
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Recipe to show in full.")] = None,
    as_json: Json = False,
) -> None:
    """List the published trainings that --recipe knows, or show all of one: values, source, data, command."""
    from voxelseg.commands.listing import recipe_page, recipes_table

    found = commands.recipes(name)
    if as_json:
        print(json.dumps([one.to_dict() for one in found] if name is None else found[0].to_dict(), indent=2))
    else:
        Console().print(recipes_table(found) if name is None else recipe_page(found[0]))


data_app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(
    data_app,
    name="data",
    short_help="Public data sets: where they come from, and their conversion.",
    help="Public data sets that the papers use: where they come from, and their conversion into a folder to train on.",
)
PublicData = Annotated[str, typer.Argument(metavar="NAME", help="Public data set; `voxelseg data list` lists them.")]


@data_app.command("list", short_help="List the public data sets.")
def list_data(as_json: Json = False) -> None:
    """List the public data sets that the papers use: channels, classes and numbers of cases."""
    from voxelseg.commands.data import data_table

    if as_json:
        print(json.dumps(commands.list_data(), indent=2))
    else:
        Console().print(data_table())


@data_app.command("show", short_help="Say all about one: classes, source, licence, folder.")
def show_data(name: PublicData, as_json: Json = False) -> None:
    """Say all about one public data set: classes, where to get it, licence, pitfalls, what its folder looks like."""
    from voxelseg.commands.data import print_data

    if as_json:
        print(json.dumps(commands.show_data(name), indent=2))
    else:
        print_data(name, Console())


@data_app.command("convert", short_help="Make a data set folder from the makers' own.")
def convert_data(
    name: PublicData,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder as the makers hand it out, unpacked.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Data set folder to make.")],
    how: Annotated[
        str, typer.Option(metavar="HOW", help="link: images as hard links, label maps as copies; copy: copies.")
    ] = "link",
) -> None:
    """Make a data set folder from a public data set as its makers hand it out; no file is changed.

    Everything that is missing or wrong is listed before anything is written. The same command continues after an
    interruption.
    """
    commands.convert_data(name, source, out, how=how, console=_progress_console())


DATA_COMMANDS: dict[str, Callable[..., Any]] = {"list": list_data, "show": show_data, "convert": convert_data}


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "check": check,
    "plan": plan,
    "preprocess": preprocess,
    "pretrain": pretrain,
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "probe": probe,
    "label-study": label_study,
    "benchmark": benchmark,
    "models": models,
    "slurm": slurm,
    "recipes": recipes,
}


def _version(asked: bool) -> None:
    if asked:
        print(f"voxelseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of all commands."""
    # Asked without torch, which takes long to load.
    several = "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and context.invoked_subcommand not in ("train", "pretrain"):
        raise ConfigError(
            "torchrun is for `voxelseg train` and `voxelseg pretrain`. Run "
            f"`voxelseg {context.invoked_subcommand}` without it."
        )
