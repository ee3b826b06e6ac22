"""The command `evaluate`."""

from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate import evaluate as evaluate_folders
from voxelseg.evaluate.evaluation import CASES_FILE, SUMMARY_FILE
from voxelseg.files import locked
from voxelseg.metrics.surface import check_tolerance


def evaluate(
    prediction: PathLike,
    reference: PathLike,
    out: PathLike,
    *,
    tolerance_mm: float = 1.0,
    allow_missing: bool = False,
    workers: int = 2,
    console: Console | None = None,
) -> Evaluation:
    """Dice, surface Dice, HD95 and volumes of predicted label maps; writes `out`/cases.csv and `out`/summary.json.

    Every reference needs a prediction of the same name, unless `allow_missing`.
    """
    check_tolerance(tolerance_mm)
    folder = Path(out)
    with locked(folder), counting_bar(console, "scoring") as update:
        evaluation = evaluate_folders(
            Path(prediction),
            Path(reference),
            folder,
            tolerance_mm=tolerance_mm,
            allow_missing=allow_missing,
            workers=workers,
            progress=update,
        )
    say(console, f"Wrote {folder / CASES_FILE} and {folder / SUMMARY_FILE}.")
    return evaluation
