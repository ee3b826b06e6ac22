"""The whole main job on the embedded data set: make, check, train, predict, evaluate, report."""

from pathlib import Path

from rich.console import Console

from voxelseg import commands
from voxelseg.data.checks import print_report
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation, class_table
from voxelseg.phantom import make_phantom

MODEL = "mednext_xs"


def demo(out: str | Path = "demo", *, budget: str = "4m", seed: int = 0, console: Console | None = None) -> Evaluation:
    """Scores of a small MedNeXt on phantom cases that it never saw, after training for `budget`.

    Everything lies in `out`: the data set, the run, the predictions, the scores and report.html. The same call continues
    an interrupted demo.
    """
    out = Path(out)
    say = console or Console(quiet=True)
    say.rule("1. An embedded data set: abdominal CT phantoms", align="left")
    data = make_phantom(out / "data", seed=seed)
    say.print(f"Wrote {data}.", highlight=False)

    say.rule("2. Check it", align="left")
    found = commands.check(data, console=console)
    print_report(found, say)
    if not found.ok:
        raise DataError(f"{data}: the embedded data set has errors. Delete {out} and run the demo again.")

    say.rule(f"3. Plan, preprocess, train {MODEL} for {budget}, score the held-out fold", align="left")
    run = commands.train(data, out / "run", model=MODEL, budget=budget, seed=seed, console=console)

    say.rule("4. Predict and score the test cases", align="left")
    predictions = out / "predictions"
    commands.predict(run.folder, data / "imagesTs", predictions, console=console)
    scores = commands.evaluate(predictions, data / "labelsTs", out / "scores", console=None)

    say.rule("5. Report", align="left")
    page = commands.report(run.folder, out / "report.html", console=None)
    say.print(class_table(scores))
    for what, where in (
        ("data set", data),
        ("model", run.folder / "fold_0" / commands.MODEL_FILE),
        ("predictions", predictions),
        ("scores", out / "scores" / "summary.json"),
        ("report", page),
    ):
        say.print(f"{what:>12}  {where}", highlight=False, soft_wrap=True)
    say.print(f"\nMean foreground Dice on {len(scores.cases)} test cases: {scores.mean('dice'):.3f}", highlight=False)
    return scores
