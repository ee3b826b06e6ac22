"""The summary as a table for the terminal."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from voxelseg.data.wording import counted
from voxelseg.evaluate.cross_validation import MEANING, OPTIMISM, CrossValidation
from voxelseg.evaluate.evaluation import Evaluation, Spread
from voxelseg.metrics import Column
from voxelseg.metrics import column as column_of
from voxelseg.statistics.intervals import Interval


def class_table(evaluation: Evaluation) -> Table:
    """Table of each class's mean and standard deviation over the cases; the mean over the classes; the notes."""
    cases = len(evaluation.cases)
    reading = (
        "Mean ± standard deviation over cases; n: cases in which the class is in the reference or the prediction. "
        "Further metrics are in the files."
    )
    table = Table(
        title=f"Scores of {counted(cases, 'case')}",
        caption=Text("\n".join((reading, *evaluation.notes)), style="table.caption"),
    )
    table.add_column("Class", overflow="fold")
    columns, classes = evaluation.main_columns, evaluation.classes
    for column in columns:
        table.add_column(column.heading, justify="right")
    table.add_column("n", justify="right")
    for name in classes:
        cells = (mean_and_std(evaluation.spread(column.key, name), column.unit) for column in columns)
        count = str(evaluation.spread("dice", name).n)
        table.add_row(Text(name), *cells, count, end_section=name == classes[-1])
    means = (format_score(evaluation.mean(column.key), column.unit) for column in columns)
    table.add_row("mean", *means, "", style="bold")
    return table


def cross_validation_table(found: CrossValidation) -> Group:
    """Each class's mean Dice over all held-out cases, its interval, and both after the postprocessing; then remarks."""
    after = found.postprocessed
    cases, patients = counted(len(found.pooled.cases), "held-out case"), counted(found.patients, "patient")
    dice = column_of("dice", tolerance_mm=found.pooled.tolerance_mm)
    spread = f"Mean Dice of the folds: {fold_spread(found, dice)}."
    lines = [f"Interval: {MEANING}", spread, postprocessing_in_words(found), *found.pooled.notes]
    title = f"Cross-validation: {cases} of {patients} in {len(found.folds)} folds"
    table = Table()
    table.add_column("Class", overflow="fold")
    for heading in ("Dice", "95 % interval", *(("Postprocessed", "95 % interval") if after else ())):
        table.add_column(heading, justify="right")
    before, later = found.intervals["dice"], found.postprocessed_intervals.get("dice")
    classes = found.pooled.classes
    for name in classes:
        cells = [format_score(found.pooled.spread("dice", name).mean, ""), format_interval(before.classes[name], "")]
        if after is not None and later is not None:
            cells += [format_score(after.spread("dice", name).mean, ""), format_interval(later.classes[name], "")]
        table.add_row(Text(name), *cells, end_section=name == classes[-1])
    cells = [format_score(found.pooled.mean("dice"), ""), format_interval(before.mean, "")]
    if after is not None and later is not None:
        cells += [format_score(after.mean("dice"), ""), format_interval(later.mean, "")]
    table.add_row("mean", *cells, style="bold")
    remarks = Text("\n".join(line for line in lines if line), style="table.caption")
    return Group(Text(title, style="table.title"), table, remarks)


def fold_spread(found: CrossValidation, column: Column) -> str:
    """Such as "0.861 to 0.884, standard deviation 0.009"."""
    means = [fold.mean[column.key] for fold in found.folds.values() if not math.isnan(fold.mean[column.key])]
    if not means:
        return "–"
    ends = (min(means), max(means), found.fold_std(column.key))
    low, high, std = (format_score(value, column.unit) for value in ends)
    return f"{low} to {high}, standard deviation {std}"


def postprocessing_in_words(found: CrossValidation) -> str:
    """What was chosen, in sentences; empty if nothing was looked for."""
    chosen = found.postprocessing
    if chosen is None:
        return ""
    if not chosen:
        return (
            "Postprocessing: none, since keeping only largest components raised no mean Dice without lowering another."
        )
    kept = ["of all classes together only the largest component is kept"] if chosen.foreground else []
    kept += [f"only the largest component of each of these is kept: {', '.join(chosen.classes)}"] * bool(chosen.classes)
    return f"Postprocessing: {'; then '.join(kept)}. {OPTIMISM}"


def format_interval(found: Interval, unit: str) -> str:
    """Such as "0.861 to 0.884"; a dash if there is none."""
    if math.isnan(found.low):
        return "–"
    return f"{format_score(found.low, unit)} to {format_score(found.high, unit)}"


def format_score(value: float, unit: str) -> str:
    """Three decimals for a ratio, two for a length; a dash if undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if unit else f"{value:.3f}"


def mean_and_std(found: Spread, unit: str) -> str:
    """Such as "0.871 ± 0.042"."""
    mean = format_score(found.mean, unit)
    return mean if math.isnan(found.std) else f"{mean} ± {format_score(found.std, unit)}"
