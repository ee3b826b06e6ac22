"""The command `evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate import evaluate as evaluate_folders
from voxelseg.evaluate.evaluation import CASES_FILE, SUMMARY_FILE
from voxelseg.files import locked
from voxelseg.metrics.column import tolerances


def evaluate(
    prediction: PathLike,
    reference: PathLike,
    out: PathLike,
    *,
    tolerance_mm: float | Sequence[float] = 1.0,
    probabilities: PathLike | None = None,
    allow_missing: bool = False,
    workers: int = 2,
    console: Console | None = None,
) -> Evaluation:
    """All metrics and the volumes of predicted label maps; writes `out`/cases.csv and `out`/summary.json.

    Names of classes and patients of the cases come from the description beside the references, where there is one.
    `tolerance_mm` is that of the surface Dice, or several. `probabilities` is the folder of the 4D files that `predict`
    wrote on request: then calibration is scored, too. Every reference needs a prediction of the same name, unless
    `allow_missing`.
    """
    tolerance_mm = tolerances(tolerance_mm)
    folder = Path(out)
    with locked(folder), counting_bar(console, "scoring") as update:
        evaluation = evaluate_folders(
            Path(prediction),
            Path(reference),
            folder,
            tolerance_mm=tolerance_mm,
            probabilities=None if probabilities is None else Path(probabilities),
            allow_missing=allow_missing,
            workers=workers,
            progress=update,
        )
    say(console, f"Wrote {folder / CASES_FILE} and {folder / SUMMARY_FILE}.")
    return evaluation
