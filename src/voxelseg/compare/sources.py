"""Folders that scores come from: evaluations, trainings, and label maps of any tool that are scored here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from voxelseg.compare.cost import Cost
from voxelseg.data.dataset import Dataset
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.data.layouts.description import visible_files
from voxelseg.data.wording import counted, some
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation, evaluate_pairs, read_evaluation
from voxelseg.evaluate.case import LabelPair
from voxelseg.evaluate.evaluation import CASES_FILE, SUMMARY_FILE
from voxelseg.evaluate.folders import description_near, label_maps_in
from voxelseg.evaluate.held_out import PAIRS_FILE, VALIDATION_FOLDER, CaseFiles, fold_folders, fold_name, read_pairs
from voxelseg.evaluate.pooling import case_of, pool
from voxelseg.files import read_json, read_json_lines
from voxelseg.io import is_image, read_label
from voxelseg.io.labels import values_of

RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
COST_FILE = "cost.json"
_TRAIN_REMEDY = "Run the same `voxelseg train` command again: it scores the held-out cases anew."


Event = Mapping[str, Any]
"""One line of a training's log."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Scores of one training or tool."""

    scores: Evaluation
    """All folds pooled, with the patients as far as they are known."""
    files: Mapping[str, CaseFiles] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: str = ""
    """Empty if it is not known."""
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    labels: LabelScheme | None = None
    channel: str = ""
    logs: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    """By fold."""


@dataclass(frozen=True, kw_only=True)
class References:
    """Label maps that predictions are scored against."""

    files: Mapping[str, Path]
    """By case."""
    labels: LabelScheme
    images: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Scans by case; none where nobody said where they are."""
    patients: Mapping[str, str] = field(default_factory=dict)
    """By case; none where nobody said whose it is."""
    channel: str = ""
    """Name of the scans' first channel."""
    tolerances_mm: tuple[float, ...] = (1.0,)
    """Of the surface Dice; one or several."""


def references_in(
    folder: Path, *, tolerances_mm: tuple[float, ...] = (1.0,), dataset: Dataset | None = None
) -> References:
    """The label maps in a folder; classes are those of a description beside them, or else the values that occur.

    That description says whose the cases are, too. `dataset` says so where it does not, and where the scans are.
    DataError if there is no label map, one cannot be read, or all are empty.
    """
    files = label_maps_in(folder, "reference")
    known = {} if dataset is None else {case.id: case for case in (*dataset.cases, *dataset.test_cases)}
    described = description_near(folder)
    labels = described.labels or (dataset.labels if dataset is not None and dataset.labelled else None)
    patients = {**{case: one.patient for case, one in known.items()}, **described.patients}
    return References(
        files=files,
        labels=labels or _values_of(files),
        images={case: known[case].images for case in files if case in known},
        patients={case: patients[case] for case in files if case in patients},
        channel="" if dataset is None else dataset.channels[0],
        tolerances_mm=tolerances_mm,
    )


def references_of(dataset: Dataset, *, tolerances_mm: tuple[float, ...] = (1.0,)) -> References:
    """The label maps of a data set, those of its test cases too; DataError if it has none."""
    cases = [case for case in (*dataset.cases, *dataset.test_cases) if case.label is not None]
    if not cases or not dataset.labelled:
        raise DataError(f"{dataset.source}: has no label maps to score against. Give --reference, a folder of them.")
    return References(
        files={case.id: case.label for case in cases if case.label is not None},
        labels=dataset.labels,
        images={case.id: case.images for case in cases},
        patients={case.id: case.patient for case in cases},
        channel=dataset.channels[0],
        tolerances_mm=tolerances_mm,
    )


def _values_of(files: Mapping[str, Path]) -> LabelScheme:
    """A class for each value of the references, named by its number: one that only a tool has is its mistake."""
    values = sorted({value for path in files.values() for value in values_of(read_label(path).array)} - {0})
    if not values:
        raise DataError(f"{next(iter(files.values())).parent}: no reference has a value other than 0.")
    return LabelScheme(tuple(LabelClass(str(value), (value,), value) for value in values))


def read_source(
    folder: Path,
    references: References | None,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """What a folder says; see `read_contestants`. DataError if it is none of the three, damaged or not readable."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Give a folder that you may read.") from error
    if (folder / CASES_FILE).is_file() and (folder / SUMMARY_FILE).is_file():
        return _of_evaluation(folder)
    if (folder / RUN_FILE).is_file():
        return _of_run(folder)
    if any(is_image(file) for file in visible_files(folder)):
        return _of_label_maps(folder, references, workers=workers, progress=progress)
    inside = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    hint = f" It has the folders {some(inside)}." if inside else ""
    raise DataError(
        f"{folder}: neither scores ({CASES_FILE} and {SUMMARY_FILE} of `voxelseg evaluate`), nor a run of `voxelseg "
        f"train`, nor label maps.{hint} Give one of these."
    )


def _of_evaluation(folder: Path) -> Source:
    scores, files = read_evaluation(folder), read_pairs(folder / PAIRS_FILE)
    return Source(
        scores=replace(scores, patients={**_patients_of(files), **scores.patients}),
        files=files,
        settings={"scores": str(folder)},
        notes=scores.notes,
        origins={name: case for name in scores.cases if (case := case_of(name)) != name},
    )


def _patients_of(files: Mapping[str, CaseFiles]) -> dict[str, str]:
    """Case -> patient, where its files say so."""
    return {case: one.patient for case, one in files.items() if one.patient}


def _of_run(folder: Path) -> Source:
    info = read_json(folder / RUN_FILE)
    if not isinstance(info, dict):
        raise DataError(f"{folder / RUN_FILE}: expected an object, found {type(info).__name__}.")
    begun = {fold_name(one): one / VALIDATION_FOLDER for one in fold_folders(folder)}
    scored = {
        name: read_evaluation(validation, remedy=_TRAIN_REMEDY)
        for name, validation in begun.items()
        if (validation / SUMMARY_FILE).is_file()
    }
    if not scored:
        raise DataError(f"{folder}: no fold has scores yet. Let `voxelseg train` come to its end there.")
    pooled, origin = pool(scored)
    pairs = {name: read_pairs(begun[name] / PAIRS_FILE) for name in scored}
    waiting = [name for name in begun if name not in scored]
    logs = {name: read_json_lines(folder / f"fold_{name}" / LOG_FILE) for name in scored}
    dataset = info.get("dataset") or {}
    notes = [f"Folds without scores are left out: {', '.join(waiting)}."] if waiting else []
    files = {name: pairs[fold][case] for name, (case, fold) in origin.items() if case in pairs[fold]}
    return Source(
        scores=replace(pooled, patients={**_patients_of(files), **pooled.patients}),
        files=files,
        settings=info,
        seed=str(info.get("seed", "")),
        cost=_cost_of_run(folder, list(logs.values())),
        notes=(*pooled.notes, *notes),
        origins={name: case for name, (case, _) in origin.items() if case != name},
        labels=_labels_of_run(dataset),
        channel=next(iter(dataset.get("channels") or ()), ""),
        logs=logs,
    )


def _labels_of_run(dataset: Mapping[str, Any]) -> LabelScheme | None:
    return LabelScheme.from_dict(dataset["labels"]) if dataset.get("labels") else None


def _cost_of_run(folder: Path, logs: Sequence[Sequence[Event]]) -> Cost:
    """What was measured of it by a benchmark, if one was; time and steps of its training in any case."""
    measured = Cost.from_dict(read_json(folder / COST_FILE)) if (folder / COST_FILE).is_file() else Cost()
    last = [epochs[-1] for log in logs if (epochs := [one for one in log if one.get("event") == "epoch"])]
    if not last:
        return measured
    return replace(
        measured,
        training_s=fmean(float(one["elapsed_s"]) for one in last),
        steps=fmean(float(one["step"]) for one in last),
    )


def mean_cost(costs: Sequence[Cost]) -> Cost | None:
    """The first one, with the means over all where trainings differ; None without any."""
    if not costs:
        return None
    return replace(
        costs[0],
        training_s=_mean_of_known([one.training_s for one in costs]),
        steps=_mean_of_known([one.steps for one in costs]),
        seconds_per_case=_mean_of_known([one.seconds_per_case for one in costs]),
    )


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _of_label_maps(
    folder: Path, references: References | None, *, workers: int, progress: Callable[[int, int], None] | None
) -> Source:
    if references is None:
        raise DataError(
            f"{folder}: holds label maps without scores ({CASES_FILE}). Say what to score them against: --reference, a "
            "folder of label maps, or --data, a data set."
        )
    predictions = label_maps_in(folder, "prediction")
    pairs = [
        LabelPair(case, predictions[case], label, patient=references.patients.get(case, ""))
        for case, label in references.files.items()
        if case in predictions
    ]
    if not pairs:
        raise DataError(
            f"{folder}: no label map is named as a reference is, the suffix aside: found {some(sorted(predictions))}; "
            f"references are {some(sorted(references.files))}. Rename them alike."
        )
    scores = evaluate_pairs(
        pairs,
        None,
        labels=references.labels,
        tolerance_mm=references.tolerances_mm,
        workers=workers,
        progress=progress,
    )
    files = {
        one.case: CaseFiles(references.images.get(one.case, ()), one.reference, one.prediction, one.patient)
        for one in pairs
    }
    notes = _notes(folder, predictions, references)
    return Source(
        scores=scores,
        files=files,
        settings={"label maps": str(folder)},
        notes=(*scores.notes, *notes),
        labels=references.labels,
        channel=references.channel,
    )


def _notes(folder: Path, predictions: Mapping[str, Path], references: References) -> Sequence[str]:
    """What has no counterpart on the other side."""
    missing = [case for case in references.files if case not in predictions]
    extra = [case for case in predictions if case not in references.files]
    notes = []
    if missing:
        notes.append(f"{counted(len(missing), 'reference has', 'references have')} no prediction: {some(missing)}.")
    if extra:
        notes.append(f"Left out because they have no reference: {some(extra)}.")
    return notes
