"""A folder of predictions against a folder of references."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxelseg.data.labels import LabelScheme
from voxelseg.data.layouts.description import DESCRIPTION_FILE, Description, read_description, visible_files
from voxelseg.data.layouts.pairs import labels_beside
from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.evaluate.case import CaseScores, ClassScore, LabelPair, score_files
from voxelseg.evaluate.evaluation import Evaluation
from voxelseg.evaluate.probabilities import probability_files, require_names
from voxelseg.geometry import HARMFUL_VOXELS
from voxelseg.io import is_image, strip_suffix
from voxelseg.metrics import Column, columns
from voxelseg.metrics.column import tolerances
from voxelseg.parallel import map_unordered
from voxelseg.predict.postprocess import Postprocessing

_OFF_GRID = f"Compared voxel by voxel though their headers place the voxels up to {HARMFUL_VOXELS:g} of a voxel apart"
_SHEARED = "Distances are as if the scan's axes were at right angles, which they are not (gantry tilt)"


def evaluate(
    prediction: Path,
    reference: Path,
    out: Path,
    *,
    labels: LabelScheme | None = None,
    tolerance_mm: float | Sequence[float] = 1.0,
    probabilities: Path | None = None,
    allow_missing: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Scores of the label maps in folder `prediction` against those in folder `reference`; writes them into `out`.

    Files belong together if their names are equal without the suffix; formats may differ. Two files make one case.
    `labels` names the classes; None takes those of `description_near`, which also says whose the cases are, else each
    label value is a class. `tolerance_mm` is that of the surface Dice, or several. `probabilities` is the folder of
    what `voxelseg predict --probabilities` wrote with the label maps: then calibration is scored, too. References
    without prediction are an error, unless `allow_missing` leaves them out; predictions without reference are left out
    and noted. Grids that differ by less than half a voxel, and sheared ones, are noted too.

    `workers` processes each hold one case; `progress` is called with the numbers of cases done and in all.
    Raises DataError listing every case that cannot be scored; nothing is then written.
    """
    prediction, reference = Path(prediction), Path(reference)
    pairs, notes = match_files(prediction, reference, allow_missing=allow_missing)
    described = description_near(reference)
    if labels is None:
        labels = described.labels
    pairs = [replace(pair, patient=described.patients.get(pair.case, "")) for pair in pairs]
    if probabilities is not None:
        require_names(labels, probabilities)
        files = probability_files(Path(probabilities), [pair.case for pair in pairs])
        pairs = [replace(pair, probabilities=files[pair.case]) for pair in pairs]
    return evaluate_pairs(
        pairs, out, labels=labels, tolerance_mm=tolerance_mm, workers=workers, notes=notes, progress=progress
    )


def evaluate_pairs(
    pairs: Sequence[LabelPair | tuple[str, Path, Path]],
    out: Path | None,
    *,
    labels: LabelScheme | None,
    tolerance_mm: float | Sequence[float] = 1.0,
    postprocessing: Postprocessing | None = None,
    workers: int = 1,
    notes: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Scores of (case id, prediction file, reference file), cases sorted by id; see `evaluate`.

    Predictions are scored as `postprocessing` leaves them. Probabilities are there for all of the pairs, or for none.
    Written into folder `out` unless that is None.
    """
    tolerance_mm = tolerances(tolerance_mm)
    ordered = sorted(
        (pair if isinstance(pair, LabelPair) else LabelPair(*pair) for pair in pairs), key=lambda p: p.case
    )
    results: dict[int, CaseScores | str] = {}
    score = partial(_scores_or_fault, labels=labels, tolerance_mm=tolerance_mm, postprocessing=postprocessing)
    for index, result in map_unordered(score, ordered, workers=workers, name=lambda pair: f"case {pair.case}"):
        results[index] = result
        if progress is not None:
            progress(len(results), len(ordered))
    faults = [fault for _, fault in sorted(results.items()) if isinstance(fault, str)]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(ordered)} cases cannot be scored; nothing was written.\n" + _listed(faults)
        )
    found = [result for _, result in sorted(results.items()) if not isinstance(result, str)]
    scores = [result.scores for result in found]
    off_grid = [pair.case for pair, result in zip(ordered, found, strict=True) if result.off_grid]
    if labels is None:
        scores = _with_all_values(scores, [pair.case for pair in ordered], columns(tolerance_mm))
    if not any(scores):
        raise DataError("no label map has a value other than 0, and no class is named: there is nothing to score.")
    sheared = [pair.case for pair, result in zip(ordered, found, strict=True) if result.sheared]
    if off_grid:
        notes = [*notes, f"{_OFF_GRID}: {some(off_grid)}."]
    if sheared:
        notes = [*notes, f"{_SHEARED}: {some(sheared)}."]
    patients = {pair.case: pair.patient for pair in ordered if pair.patient}
    evaluation = Evaluation(tuple(score for case in scores for score in case), tolerance_mm[0], tuple(notes), patients)
    if out is not None:
        evaluation.write(Path(out))
    return evaluation


def _scores_or_fault(
    pair: LabelPair, *, labels: LabelScheme | None, tolerance_mm: Sequence[float], postprocessing: Postprocessing | None
) -> CaseScores | str:
    try:
        return score_files(pair, labels, tolerance_mm=tolerance_mm, postprocessing=postprocessing)
    except DataError as error:
        return str(error)


def _with_all_values(
    scores: list[tuple[ClassScore, ...]], cases: list[str], wanted: Sequence[Column]
) -> list[tuple[ClassScore, ...]]:
    """Adds, to every case, the values that occur only in other cases: both masks are empty there."""
    names = sorted({score.name for case in scores for score in case}, key=int)
    completed = []
    for case, found in zip(cases, scores, strict=True):
        known = {score.name: score for score in found}
        undefined = {column.key: math.nan for column in wanted}
        completed.append(tuple(known.get(name, ClassScore(case, name, undefined, 0.0, 0.0)) for name in names))
    return completed


def match_files(
    prediction: Path, reference: Path, *, allow_missing: bool = False
) -> tuple[list[LabelPair], tuple[str, ...]]:
    """Pairs of files with equal names (suffix aside), and a note on predictions without reference.

    Raises DataError if a folder has no label map or two of one name, or listing the references without prediction.
    """
    if reference.is_file() and prediction.is_file():
        return [LabelPair(strip_suffix(reference.name), prediction, reference)], ()
    references, predictions = label_maps_in(reference, "reference"), label_maps_in(prediction, "prediction")
    missing = [case for case in references if case not in predictions]
    if missing and (len(missing) == len(references) or not allow_missing):
        raise DataError(
            f"{prediction}: {len(missing)} of {len(references)} cases of {reference} have no prediction: "
            f"{', '.join(missing)}. Files belong together if their names are equal without the suffix. Predict these "
            "cases too, or score only those with a prediction (--allow-missing)."
        )
    extra = [case for case in predictions if case not in references]
    notes = [f"Left out because they have no reference: {some(extra)}."] if extra else []
    if missing:
        notes.append(f"Left out because they have no prediction: {some(missing)}.")
    pairs = [LabelPair(case, predictions[case], references[case]) for case in references if case in predictions]
    return pairs, tuple(notes)


def label_maps_in(folder: Path, role: str) -> dict[str, Path]:
    """Case -> its label map in the `role` folder, sorted; DataError if there is none, or two of one case."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: the {role} folder {found}. Give a folder of label maps (or two files to compare).")
    try:
        files = [file for file in visible_files(folder) if is_image(file)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Check the folder's permissions.") from error
    if not files:
        inside = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
        hint = f" Did you mean one of its folders {inside}?" if inside else ""
        raise DataError(f"{folder}: no label map (NIfTI, NRRD, MetaImage) in the {role} folder.{hint}")
    count = Counter(strip_suffix(file.name) for file in files)
    twice = [file.name for file in files if count[strip_suffix(file.name)] > 1]
    if twice:
        raise DataError(f"{folder}: several files of one case: {', '.join(twice)}. Keep one per case.")
    return {strip_suffix(file.name): file for file in files}


def description_near(reference: Path) -> Description:
    """Classes and patients described in the folder of the references, or else the one above it; empty without any.

    Descriptions are dataset.json and, as beside plain pairs, labels.json and labels.txt, which know of no patients.
    Raises DataError if one of them is damaged.
    """
    folder = (reference if reference.is_dir() else reference.parent).absolute()
    found = Description()
    for place in (folder, folder.parent):
        file = place / DESCRIPTION_FILE
        if file.is_file():
            found = found.completed_by(read_description(file))
        if found.labels is None:
            found = replace(found, labels=labels_beside(place))
    return found


def _listed(faults: Sequence[str]) -> str:
    return "\n".join(f"- {fault}" for fault in faults)
