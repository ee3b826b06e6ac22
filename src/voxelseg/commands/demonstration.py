"""The command `demo`: the whole main job on the embedded data set."""

from pathlib import Path

from rich.console import Console

from voxelseg.commands.arguments import parse_duration
from voxelseg.commands.checking import check
from voxelseg.commands.display import PathLike, counting_bar
from voxelseg.commands.predicting import predict
from voxelseg.commands.reporting import report
from voxelseg.commands.scoring import evaluate
from voxelseg.commands.training import train
from voxelseg.data.checks import print_report
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.files import make_folder
from voxelseg.phantom import make_phantom

MODEL = "mednext_xs"
SETTINGS = (
    "plan.spacing_mm=[4.0,3.3,3.3]",  # a little coarser than the scans, so that minutes hold hundreds of steps
    "plan.patch_size=[32,48,64]",
    "plan.batch_size=2",
    "train.lr=2e-3",
    "train.warmup=0.05",
)


def demo(out: PathLike = "demo", *, budget: str = "4m", seed: int = 0, console: Console | None = None) -> Evaluation:
    """Scores of a small MedNeXt on phantom cases that it never saw, after training for `budget`.

    Everything lies in `out`: the data set, the run, the predictions, the scores and report.html. The same call
    continues an interrupted demo.
    """
    parse_duration(budget)  # refused before anything is made
    folder = Path(out)
    make_folder(folder)
    words = console or Console(quiet=True)
    words.rule("1. An embedded data set: abdominal CT phantoms", align="left")
    with counting_bar(console, "making") as update:
        data = make_phantom(folder / "data", seed=seed, progress=update)
    words.print(f"Wrote {data}.", highlight=False, markup=False, soft_wrap=True)

    words.rule("2. Check it", align="left")
    found = check(data, console=console)
    print_report(found, words)
    if not found.ok:
        raise DataError(f"{data}: the embedded data set has errors. Delete {folder} and run the demo again.")

    words.rule(f"3. Plan, preprocess, train {MODEL} for {budget}, score the held-out fold", align="left")
    run = train(data, folder / "run", model=MODEL, budget=budget, seed=seed, settings=SETTINGS, console=console)

    words.rule("4. Predict and score the test cases", align="left")
    predictions = folder / "predictions"
    predict(run.folder, data / "imagesTs", predictions, console=console)
    scores = evaluate(predictions, data / "labelsTs", folder / "scores", console=console)

    words.rule("5. Report", align="left")
    page = report(run.folder, folder / "report.html")
    for what, where in (
        ("data set", data),
        ("model", run.model_file(0)),
        ("predictions", predictions),
        ("scores", folder / "scores" / SUMMARY_FILE),
        ("report", page),
    ):
        words.print(f"{what:>12}  {where}", highlight=False, markup=False, soft_wrap=True)
    return scores
