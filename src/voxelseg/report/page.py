"""The report: reads a run folder, draws, and fills the template."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from voxelseg.data.labels import LabelScheme
from voxelseg.data.wording import counted
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.evaluation import definitions
from voxelseg.evaluate.table import format_interval, format_score
from voxelseg.files import write_text
from voxelseg.metrics import Column
from voxelseg.report.cross_validation import cross_validation_part
from voxelseg.report.curves import learning_curves
from voxelseg.report.facts import (
    config_facts,
    dataset_facts,
    duration,
    plan_facts,
    provenance_facts,
    title_of,
)
from voxelseg.report.overlay import View, case_views
from voxelseg.report.pretraining import is_pretraining, render_pretraining
from voxelseg.report.run import LOG_FILE, Run, read_run
from voxelseg.report.sparse import sparse_folds
from voxelseg.report.strip import axis, length_range, ratio_range, strip
from voxelseg.report.template import filled
from voxelseg.report.transfer import fold_transfers

_TEMPLATE = "report.html"
_EXAMPLE_TITLES = {1: "The only case", 2: "Worst and best case"}


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of one metric."""

    name: str
    strip: Markup
    cells: tuple[str, ...]
    """Mean, standard deviation, median, smallest, largest, number of cases."""


@dataclass(frozen=True)
class MetricTable:
    """One metric of every class."""

    title: str
    hint: str
    axis: Markup
    rows: tuple[ClassRow, ...]
    mean: str


@dataclass(frozen=True)
class Example:
    """One case shown in pictures."""

    rank: str
    case: str
    fold: str
    mean_dice: str
    dice: tuple[tuple[str, str], ...]
    views: tuple[View, ...]
    fault: str
    """Why there are no pictures; empty if there are."""


def write_report(run: Path, out: Path) -> Path:
    """Write one self-contained HTML file about the run or the pre-training in folder `run`; returns its path.

    `out` is the file, or an existing folder for report.html. A run that is not finished is reported as far as it has
    come; scans that are gone are named in place of their pictures.
    Raises DataError if `run` is no such folder or its files are damaged, VoxelsegError if `out` cannot be written.
    """
    out = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    write_text(out, render_pretraining(Path(run)) if is_pretraining(Path(run)) else render(read_run(Path(run))))
    return out


def render(run: Run) -> str:
    """HTML of the report."""
    evaluation = run.evaluation
    dataset = run.info.get("dataset") or {}
    classes = _class_names(dataset, evaluation)
    plan, plan_notes = plan_facts(run)
    examples = _examples(run, evaluation, dataset) if evaluation else ()
    return filled(
        _TEMPLATE,
        name=dataset.get("name") or run.folder.name,
        subtitle=_subtitle(run),
        headline=_headline(run, evaluation),
        status=_status(run, evaluation),
        cross_validation=cross_validation_part(run.cross_validation) if run.cross_validation else None,
        curves=learning_curves(run.folds, classes),
        curve_text=_curve_text(run),
        sparse=sparse_folds(run.folds),
        transfers=fold_transfers(run.folds),
        evaluation=evaluation,
        tables=_metric_tables(evaluation) if evaluation else (),
        volumes=_volume_rows(evaluation) if evaluation else (),
        fold_titles=[column.heading for column in _fold_columns(run)],
        fold_rows=_fold_rows(run) if len(run.folds) > 1 else (),
        examples=examples,
        example_title=_EXAMPLE_TITLES.get(len(examples), "Worst, median and best case"),
        all_cases=_all_cases(run, evaluation) if evaluation else (),
        definitions=_definitions(evaluation) if evaluation else (),
        about=(("Data set", dataset_facts(run)), ("Plan", plan)),
        plan_notes=plan_notes,
        config=config_facts(run),
        provenance=provenance_facts(run),
    )


def _definitions(evaluation: Evaluation) -> list[tuple[str, str]]:
    titles = {column.key: column.title for column in evaluation.main_columns}
    return [(titles.get(key) or title_of(key), text) for key, text in definitions(evaluation.main_columns).items()]


def _class_names(dataset: Mapping[str, Any], evaluation: Evaluation | None) -> tuple[str, ...]:
    if evaluation is not None:
        return evaluation.classes
    return tuple(str(one["name"]) for one in (dataset.get("labels") or {}).get("classes") or ())


def _subtitle(run: Run) -> str:
    folds = [fold.name for fold in run.folds]
    which = f", fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}" if folds else ""
    return f"Segmentation with {run.info.get('model') or 'an unnamed model'}{which}"


def _headline(run: Run, evaluation: Evaluation | None) -> list[tuple[str, str, str]]:
    """Big numbers: title, value, small print."""
    numbers = []
    if evaluation is not None:
        scored = (
            f"{counted(len(evaluation.classes), 'class', 'classes')}, {counted(len(evaluation.cases), 'held-out case')}"
        )
        notes = {"dice": scored, "surface_dice": f"at {evaluation.tolerance_mm:g} mm", "hd95_mm": "lower is better"}
        for column in evaluation.main_columns:
            value = format_score(evaluation.mean(column.key), column.unit)
            note = "; ".join(part for part in (_interval_text(run, column), notes[column.key]) if part)
            numbers.append((f"Mean {column.metric.title}", f"{value} {column.unit}".strip(), note))
    if run.cross_validation is not None and run.cross_validation.postprocessed is not None:
        value = format_score(run.cross_validation.postprocessed.mean("dice"), "")
        numbers.append(("Postprocessed Dice", value, "on the cases that the postprocessing was chosen on"))
    trained = [fold for fold in run.folds if fold.epochs]
    if trained:
        steps = counted(sum(fold.steps for fold in trained), "step")
        of_folds = f" in {len(trained)} folds" if len(trained) > 1 else ""
        numbers.append(("Training time", duration(sum(fold.elapsed_s for fold in trained)), steps + of_folds))
    return numbers


def _interval_text(run: Run, column: Column) -> str:
    """Such as "95 % interval 0.861 to 0.884"; empty if the folds are not pooled."""
    if run.cross_validation is None:
        return ""
    interval = format_interval(run.cross_validation.intervals[column.key].mean, column.unit)
    return f"95\u00a0% interval {interval}"


def _status(run: Run, evaluation: Evaluation | None) -> str:
    """What is not finished, in a sentence; empty if everything is."""
    trained = any(fold.epochs for fold in run.folds)
    if evaluation is None and not trained:
        return "Training has not finished its first epoch: there are no curves and no scores yet."
    if evaluation is None:
        return "No fold has been validated yet, so there are no scores. The curves show the training so far."
    waiting = [fold.name for fold in run.folds if fold.evaluation is None]
    lost = [fold.name for fold in run.folds if fold.evaluation is not None and not fold.epochs]
    sentences = [f"Not validated yet and left out of the scores: fold {', '.join(waiting)}."] if waiting else []
    sentences += [f"Without learning curves, since {LOG_FILE} is gone: fold {', '.join(lost)}."] if lost else []
    begun = {fold.name for fold in run.folds}
    missing = [str(fold) for fold in range(run.num_folds) if str(fold) not in begun]
    if len(begun) > 1 and missing:
        sentences.append(f"Not trained yet: fold {', '.join(missing)} of {run.num_folds}.")
    elif len(begun) > 1 and not waiting and run.cross_validation is None:
        sentences.append("The folds were not pooled since they were scored; the same train command does that.")
    return " ".join(sentences)


def _curve_text(run: Run) -> str:
    best = [(value, epoch, fold) for fold in run.folds for epoch, value in zip(*fold.curve("mean_dice"), strict=True)]
    if not best:
        return "There was no running validation yet."
    value, epoch, fold = max(best, key=lambda item: item[0])
    where = f" of fold {fold.name}" if len(run.folds) > 1 else ""
    predict = (run.info.get("config") or {}).get("predict") or {}
    used = "best running validation" if predict.get("checkpoint") == "best" else "last epoch"
    return (
        f"Running Dice is pooled over patches of held-out cases. Its best mean is {value:.3f}, in epoch {epoch}{where}."
        f" The held-out cases are predicted with the weights of the {used}."
    )


def _metric_tables(evaluation: Evaluation) -> tuple[MetricTable, ...]:
    tables = []
    for column in evaluation.main_columns:
        values = {name: evaluation.values(column.key, name) for name in evaluation.classes}
        all_values = [value for of_class in values.values() for value in of_class.values()]
        low, high = length_range(all_values) if column.unit else ratio_range(all_values)
        rows = []
        for name, of_class in values.items():
            found = evaluation.spread(column.key, name)
            numbers = (found.mean, found.std, found.median, found.min, found.max)
            cells = (*(format_score(number, column.unit) for number in numbers), str(found.n))
            rows.append(ClassRow(name, strip(of_class, low, high), cells))
        tolerance = "" if column.tolerance_mm is None else f"at {column.tolerance_mm:g} mm, "
        unit = f"in {column.unit}, " if column.unit else ""
        tables.append(
            MetricTable(
                title=column.metric.title,
                hint=f"{tolerance}{unit}{'higher' if column.higher_is_better else 'lower'} is better",
                axis=axis(low, high),
                rows=tuple(rows),
                mean=format_score(evaluation.mean(column.key), column.unit),
            )
        )
    return tuple(tables)


def _volume_rows(evaluation: Evaluation) -> tuple[tuple[str, ...], ...]:
    """Class, mean volumes in ml and their difference, then cases missed, invented, absent in both."""
    rows = []
    for name, found in evaluation.summary()["classes"].items():
        reference, prediction = found["volume_reference_mm3"] / 1000, found["volume_prediction_mm3"] / 1000
        difference = f"{100 * (prediction - reference) / reference:+.1f} %".replace("-", "−") if reference else "–"
        empty = found["empty"]
        counts = (str(empty[kind]) for kind in ("prediction_only", "reference_only", "both"))
        rows.append((name, f"{reference:.2f}", f"{prediction:.2f}", difference, *counts))
    return tuple(rows)


def _fold_columns(run: Run) -> tuple[Column, ...]:
    """What the table of the folds shows of their scores."""
    return run.evaluation.main_columns if run.evaluation else ()


def _fold_rows(run: Run) -> tuple[tuple[str, ...], ...]:
    """Fold, held-out cases, mean of each main metric, epochs, the best of them, time."""
    rows, columns = [], _fold_columns(run)
    for fold in run.folds:
        scores = fold.evaluation
        means = (format_score(scores.mean(column.key), column.unit) if scores else "–" for column in columns)
        cases = str(len(scores.cases)) if scores else "–"
        best = "–" if fold.best_epoch is None else str(fold.best_epoch)
        rows.append((fold.name, cases, *means, str(len(fold.epochs)), best, duration(fold.elapsed_s)))
    return tuple(rows)


def _ranked(evaluation: Evaluation) -> list[tuple[str, float]]:
    """Cases with a mean Dice, worst first."""
    means = evaluation.case_means("dice").items()
    return sorted(((case, mean) for case, mean in means if not math.isnan(mean)), key=lambda item: item[1])


def _examples(run: Run, evaluation: Evaluation, dataset: Mapping[str, Any]) -> tuple[Example, ...]:
    ranked = _ranked(evaluation)
    chosen: dict[int, str]
    match len(ranked):
        case 0:
            chosen = {}
        case 1:
            chosen = {0: "Only case"}
        case 2:
            chosen = {0: "Worst", 1: "Best"}
        case count:
            chosen = {0: "Worst", (count - 1) // 2: "Median", count - 1: "Best"}
    return tuple(_example(run, dataset, *ranked[index], rank) for index, rank in chosen.items())


def _example(run: Run, dataset: Mapping[str, Any], name: str, mean: float, rank: str) -> Example:
    case, fold = run.held_out[name].case, run.held_out[name].fold
    views: tuple[View, ...] = ()
    fault = ""
    try:
        if case not in fold.files:
            raise DataError(f"fold {fold.name} does not say where the files of case {case} lie (pairs.json).")
        labels = LabelScheme.from_dict(dataset["labels"])
        views = case_views(fold.files[case], labels, channel=(dataset.get("channels") or [""])[0])
    except DataError as error:
        fault = str(error)
    except KeyError:
        fault = "run.json does not describe the labels."
    return Example(
        rank=rank,
        case=case,
        fold=fold.name if len(run.folds) > 1 else "",
        mean_dice=format_score(mean, ""),
        dice=tuple((score.name, format_score(score.metrics["dice"], "")) for score in run.held_out[name].scores),
        views=views,
        fault=fault,
    )


def _all_cases(run: Run, evaluation: Evaluation) -> tuple[tuple[str, ...], ...]:
    """Case, fold, mean Dice, then the Dice of each class; worst first, cases without any class last."""
    of_case: dict[str, dict[str, str]] = {case: {} for case in evaluation.cases}
    for score in evaluation.scores:
        of_case[score.case][score.name] = format_score(score.metrics["dice"], "")
    ranked = _ranked(evaluation)
    undefined = [(case, math.nan) for case in evaluation.cases if case not in dict(ranked)]
    rows = []
    for name, mean in [*ranked, *undefined]:
        dice = [of_case[name].get(one, "–") for one in evaluation.classes]
        rows.append((run.held_out[name].case, run.held_out[name].fold.name, format_score(mean, ""), *dice))
    return tuple(rows)
