"""The summary as a table for the terminal."""

import math

from rich.table import Table
from rich.text import Text

from voxelseg.evaluate.evaluation import Evaluation, Spread
from voxelseg.metrics import METRICS


def class_table(evaluation: Evaluation) -> Table:
    """Table of each class's mean and standard deviation over the cases; the mean over the classes; the notes."""
    cases = len(evaluation.cases)
    reading = (
        f"Mean ± standard deviation over cases; surface Dice at {evaluation.tolerance_mm:g} mm; "
        "n: cases in which the class is in the reference or the prediction."
    )
    table = Table(
        title=f"Scores of {cases} case{'s' if cases != 1 else ''}",
        caption=Text("\n".join((reading, *evaluation.notes)), style="table.caption"),
    )
    table.add_column("Class", overflow="fold")
    for metric in METRICS.values():
        table.add_column(f"{metric.title} ({metric.unit})" if metric.unit else metric.title, justify="right")
    table.add_column("n", justify="right")
    classes = evaluation.classes
    for name in classes:
        spreads = {metric: evaluation.spread(metric, name) for metric in METRICS}
        cells = (mean_and_std(found, METRICS[metric].unit) for metric, found in spreads.items())
        table.add_row(Text(name), *cells, str(spreads["dice"].n), end_section=name == classes[-1])
    means = (format_score(evaluation.mean(metric), METRICS[metric].unit) for metric in METRICS)
    table.add_row("mean", *means, "", style="bold")
    return table


def format_score(value: float, unit: str) -> str:
    """Three decimals for a ratio, two for a length; a dash if undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if unit else f"{value:.3f}"


def mean_and_std(found: Spread, unit: str) -> str:
    """Such as "0.871 ± 0.042"."""
    mean = format_score(found.mean, unit)
    return mean if math.isnan(found.std) else f"{mean} ± {format_score(found.std, unit)}"
