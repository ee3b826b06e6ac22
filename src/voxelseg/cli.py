"""The command line: one verb per function of `voxelseg.commands`; parsing and printing only."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from voxelseg.errors import VoxelsegError
from voxelseg.version import __version__

app = typer.Typer(
    name="voxelseg",
    help="3D medical image segmentation: from labelled scans to a trained model, predictions, scores and a report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Argument(help="Data set: an MSD, nnU-Net or images/+labels/ folder, or a JSON/CSV list.")]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Model = Annotated[str, typer.Option(help="Network; `voxelseg models` lists them.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, repeatable, as in train.lr=1e-3.")]
Memory = Annotated[float | None, typer.Option(help="Memory budget of a training step in GB. [default: cpu 3, cuda 8]")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that read and prepare cases.")]


def _console() -> Console:
    return Console(stderr=True)


@app.command()
def demo(
    out: Out = Path("demo"),
    budget: Annotated[str, typer.Option(help="Training time, such as 4m.")] = "4m",
) -> None:
    """Do the whole main job on an embedded data set: make, check, train, predict, evaluate, report."""
    from voxelseg.demo import demo as run_demo

    run_demo(out, budget=budget, console=_console())


@app.command()
def check(
    data: Data,
    as_json: Annotated[bool, typer.Option("--json/--no-json", help="Print JSON for machines.")] = False,
    workers: Workers = 2,
) -> None:
    """Find every problem of a data set before it costs time; exits 1 if training would be wrong."""
    from voxelseg import commands
    from voxelseg.data.checks import print_report

    report = commands.check(data, workers=workers, console=None if as_json else _console())
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, Console())
    raise typer.Exit(report.exit_code)


@app.command()
def plan(
    data: Data,
    out: Out,
    model: Model = "mednext_s",
    device: Device = "auto",
    memory_gb: Memory = None,
    settings: Set = None,
    workers: Workers = 2,
) -> None:
    """Measure a data set and decide spacing, normalisation, patch, batch and mirroring."""
    from voxelseg import commands

    commands.plan(
        data,
        out,
        model=model,
        device=device,
        memory_gb=memory_gb,
        settings=settings or [],
        workers=workers,
        console=_console(),
    )


@app.command()
def preprocess(
    work: Annotated[Path, typer.Argument(help="Folder that `voxelseg plan` wrote.")], workers: Workers = 2
) -> None:
    """Prepare all cases of a planned data set for training; what is ready is kept."""
    from voxelseg import commands

    commands.preprocess(work, workers=workers, console=_console())


@app.command()
def train(
    data: Data,
    out: Out,
    model: Model = "mednext_s",
    fold: Annotated[str, typer.Option(help="Held-out fold: 0, a list such as 0,1, or all.")] = "0",
    epochs: Annotated[int | None, typer.Option(min=1, help="Length in epochs of 250 steps. [default: 1000]")] = None,
    budget: Annotated[str | None, typer.Option(help="Length in time for each fold, such as 20m or 1h30m.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    work: Annotated[Path | None, typer.Option(help="Folder of `voxelseg plan`. [default: OUT/work]")] = None,
    splits: Annotated[Path | None, typer.Option(help="JSON file with folds, as nnU-Net's splits_final.json.")] = None,
    memory_gb: Memory = None,
    settings: Set = None,
    workers: Workers = 2,
) -> None:
    """Train on all folds but one and score the held-out one; plans and preprocesses first where needed."""
    from voxelseg import commands

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
        console=_console(),
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a model.safetensors.")],
    input: Annotated[Path, typer.Option("--input", help="Scan, folder of scans, or data set.")],  # noqa: A002
    output: Annotated[Path, typer.Option("--output", help="Folder for the label maps.")],
    fold: Annotated[str | None, typer.Option(help="Folds to average, such as 0,1. [default: all trained]")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities/--no-probabilities", help="Also write one 4D file of probabilities.")
    ] = False,
    tta: Annotated[
        bool, typer.Option("--tta/--no-tta", help="Average over mirrored scans along axes where that is harmless.")
    ] = False,
    overlap: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of a window that the next covers.")] = 0.5,
    device: Device = "auto",
) -> None:
    """Segment scans with a trained run; outputs lie on each scan's own grid."""
    from voxelseg import commands

    commands.predict(
        run,
        input,
        output,
        fold=fold,
        probabilities=probabilities,
        tta=tta,
        overlap=overlap,
        device=device,
        console=_console(),
    )


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Option(help="Folder of predicted label maps.")],
    reference: Annotated[Path, typer.Option(help="Folder of reference label maps.")],
    out: Out,
    tolerance_mm: Annotated[float, typer.Option(min=0.0, help="Of surface Dice, in mm.")] = 1.0,
    workers: Workers = 2,
) -> None:
    """Score predictions: Dice, surface Dice, HD95 and volumes per case and class."""
    from voxelseg import commands

    commands.evaluate(prediction, reference, out, tolerance_mm=tolerance_mm, workers=workers, console=_console())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about a run."""
    from voxelseg import commands

    commands.report(run, out, console=_console())


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json/--no-json", help="Print JSON for machines.")] = False,
) -> None:
    """List the networks."""
    from voxelseg import commands

    found = commands.models()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("model", "parameters", "divisor", "what it is", title="Networks (1 channel, 14 classes)")
    for one in found:
        table.add_row(
            one["name"], f"{one['parameters'] / 1e6:.2f} M", "x".join(map(str, one["divisor"])), one["summary"]
        )
    Console().print(table)


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


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 2, never in a traceback."""
    console = _console()
    try:
        app()
    except VoxelsegError as error:
        console.print("[bold red]error:[/] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped. What is finished is kept; the same command continues.", highlight=False)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        details = Path.cwd() / "voxelseg-error.log"
        try:
            details.write_text(traceback.format_exc(), encoding="utf-8")
            where = f"Details are in {details}; please report them."
        except OSError:
            where = traceback.format_exc()
        console.print(f"internal error: {type(error).__name__}: {error}\n{where}", markup=False, soft_wrap=True)
        sys.exit(2)
