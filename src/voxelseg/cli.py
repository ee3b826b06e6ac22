"""The command line: one verb per function of `voxelseg.commands`; parsing and printing only.

What a command is asked for goes to standard output, progress, remarks and errors to standard error.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from voxelseg import commands
from voxelseg.errors import StoppedError
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
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `voxelseg train` wrote.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="Network; `voxelseg models` lists them.")]
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
    model: Model = "mednext_s",
    device: Device = "auto",
    memory_gb: Memory = None,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Measure a data set and decide spacing, normalisation, patch, batch and mirroring."""
    from voxelseg.commands.planning import plan_table

    planned = commands.plan(
        data,
        out,
        model=model,
        device=device,
        memory_gb=memory_gb,
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


@app.command(short_help="Train a network and score the held-out cases.")
def train(
    data: Data,
    out: Out,
    model: Model = "mednext_s",
    fold: Annotated[str, typer.Option(metavar="FOLD", help="Held-out fold: 0, a list such as 0,1, or all.")] = "0",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Length in epochs of 250 steps. [default: 1000]")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Length in time for each fold instead, such as 20m or 1h30m.")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Of the weights and all that is drawn.")
    ] = 0,
    device: Device = "auto",
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of `voxelseg plan`. [default: work in --out]")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file with folds, as nnU-Net's splits_final.json.")
    ] = None,
    memory_gb: Memory = None,
    settings: Settings = None,
    workers: Workers = 2,
) -> None:
    """Train on all folds but one and score the held-out one.

    Plans and preprocesses first where needed. The same command continues after any interruption.
    """
    commands.train(
        data,
        out,
        model=model,
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
    tta: Annotated[
        bool,
        typer.Option("--tta/--no-tta", show_default=False, help="Average over scans mirrored along the plan's axes."),
    ] = False,
    overlap: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=0.9, help="Part of a window that the next one covers.")
    ] = 0.5,
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
        tta=tta,
        overlap=overlap,
        device=device,
        console=_progress_console(),
    )


@app.command(short_help="Score label maps against references.")
def evaluate(
    prediction: Annotated[Path, typer.Option(metavar="DIR", help="Folder of predicted label maps.")],
    reference: Annotated[Path, typer.Option(metavar="DIR", help="Folder of reference label maps.")],
    out: Out,
    tolerance_mm: Annotated[float, typer.Option(metavar="MM", min=0.0, help="Of surface Dice.")] = 1.0,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing/--no-allow-missing", show_default=False, help="Leave out references without prediction."
        ),
    ] = False,
    workers: Workers = 2,
) -> None:
    """Score predictions: Dice, surface Dice, HD95 and volumes per case and class."""
    from voxelseg.evaluate import class_table

    evaluation = commands.evaluate(
        prediction,
        reference,
        out,
        tolerance_mm=tolerance_mm,
        allow_missing=allow_missing,
        workers=workers,
        console=_progress_console(),
    )
    Console().print(class_table(evaluation))


@app.command(short_help="Write one HTML page about a run.")
def report(
    run: RunFolder, out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML page about a run: curves, scores, pictures, plan, versions."""
    commands.report(run, out, console=_progress_console())


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


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "check": check,
    "plan": plan,
    "preprocess": preprocess,
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
    "report": report,
    "models": models,
}


def _version(asked: bool) -> None:
    if asked:
        print(f"voxelseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of all commands."""
