"""All folds of a run together: pooled scores of the held-out cases, and the postprocessing that they speak for.

Every fold may be trained by a process of its own, on any machine that sees the run's folder, in any order: the one that
finds all of them finished pools. What is there and current is read back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxelseg.checkpoint import store_postprocessing
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation, evaluate_pairs
from voxelseg.evaluate.case import LabelPair
from voxelseg.evaluate.components import Choice, choose_postprocessing
from voxelseg.evaluate.cross_validation import (
    OPTIMISM,
    CrossValidation,
    FoldScores,
    read_cross_validation,
    scores_state,
)
from voxelseg.evaluate.held_out import VALIDATION_FOLDER
from voxelseg.evaluate.intervals import bootstrap_intervals
from voxelseg.evaluate.pooling import pool
from voxelseg.files import locked
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.train.fold import current_scores, held_out_cases, predicting_file
from voxelseg.train.run import Run

CROSS_VALIDATION_FOLDER = "cross_validation"
Progress = Callable[[int, int], None]


def begun_folds(run: Run) -> list[int]:
    """Folds that some process has worked on."""
    return [fold for fold in range(len(run.splits)) if run.fold_folder(fold).is_dir()]


def scored_folds(run: Run) -> dict[int, Evaluation]:
    """Scores of the folds that are trained and scored with the run's `predict` settings; CheckpointError for damage."""
    found = {fold: current_scores(run, fold) for fold in range(len(run.splits))}
    return {fold: scores for fold, scores in found.items() if scores is not None}


def cross_validate(
    run: Run, folds: Mapping[int, Evaluation], *, workers: int = 1, progress: Progress | None = None
) -> CrossValidation:
    """Pool the scores of all `folds` of `run`, and choose the postprocessing if that is wanted; writes both.

    Written are RUN/cross_validation, and the choice into the model file of each fold. `progress` is called with the
    numbers of cases looked at and in all, first in choosing, then in scoring again. Waits while another process does
    the same. DataError for label maps that cannot be read, CheckpointError for a damaged model file, VoxelsegError if
    something cannot be written.
    """
    assert len(folds) == len(run.splits)
    folder = run.folder / CROSS_VALIDATION_FOLDER
    with locked(folder, wait=True):
        inputs = {str(fold): scores_state(run.fold_folder(fold) / VALIDATION_FOLDER) for fold in folds}
        result = _known(run, folder, inputs)
        if result is None:
            result = _pooled(run, folds, inputs, workers=workers, progress=progress)
            result.write(folder)
        for fold in folds:
            with locked(run.fold_folder(fold), wait=True):
                _store(run, fold, result.postprocessing)
    return result


def _store(run: Run, fold: int, chosen: Postprocessing | None) -> None:
    """Let the model file that predicts say what was chosen; None takes back what any file of the fold says."""
    if chosen is not None:
        store_postprocessing(predicting_file(run, fold), chosen.to_dict())
        return
    for path in (run.model_file(fold), run.best_file(fold)):
        if path.is_file():
            store_postprocessing(path, None)


def _known(run: Run, folder: Path, inputs: Mapping[str, str]) -> CrossValidation | None:
    """The cross-validation in `folder` if it is of these scores and complete."""
    try:
        found = read_cross_validation(folder, run.dataset.labels)
    except DataError:  # damaged, or of an earlier version: made again
        return None
    if found is None or found.inputs != inputs:
        return None
    if not found.pooled.patients:  # of an earlier version: made again
        return None
    return found if (found.postprocessing is not None) == run.config.predict.postprocess else None


def _pooled(
    run: Run, folds: Mapping[int, Evaluation], inputs: Mapping[str, str], *, workers: int, progress: Progress | None
) -> CrossValidation:
    evaluation, origin = pool({str(fold): scores for fold, scores in folds.items()})
    patients = {case.id: case.patient for case in run.dataset.cases}
    groups = {name: patients[case] for name, (case, _) in origin.items()}
    evaluation = replace(evaluation, patients=groups)
    pooled = _with_note_on_never_held_out(run, evaluation, {case for case, _ in origin.values()})
    pairs = _pairs(run, origin)
    choice: Choice | None = None
    if run.config.predict.postprocess:
        choice = choose_postprocessing(pairs, run.dataset.labels, workers=workers, progress=progress)
    kept = choice.postprocessing if choice is not None else Postprocessing()
    postprocessed: Evaluation | None = None
    if choice is not None and kept:
        postprocessed = _scored_again(run, pooled, pairs, choice, workers=workers, progress=progress)
    return CrossValidation(
        inputs=inputs,
        folds={
            str(fold): FoldScores(len(scores.cases), {one.key: scores.mean(one.key) for one in pooled.columns})
            for fold, scores in folds.items()
        },
        patients=len(set(groups.values())),
        pooled=pooled,
        intervals=bootstrap_intervals(pooled, groups, seed=run.seed),
        postprocessing=None if choice is None else kept,
        candidates=() if choice is None else choice.candidates,
        postprocessed=postprocessed,
        postprocessed_intervals=bootstrap_intervals(postprocessed, groups, seed=run.seed) if postprocessed else {},
    )


def _with_note_on_never_held_out(run: Run, pooled: Evaluation, held_out: set[str]) -> Evaluation:
    never = len({case.id for case in run.dataset.cases} - held_out)
    if not never:
        return pooled
    words = "1 case is" if never == 1 else f"{never} cases are"
    return replace(pooled, notes=(*pooled.notes, f"{words} held out in no fold, and so not among these."))


def _pairs(run: Run, origin: Mapping[str, tuple[str, str]]) -> list[LabelPair]:
    """Files of each scored case, by its name among the pooled ones."""
    folders = {str(fold): run.fold_folder(fold) / VALIDATION_FOLDER for fold in range(len(run.splits))}
    labels = {case.id: case.label for fold in range(len(run.splits)) for case in held_out_cases(run, fold)}
    pairs = []
    for name, (case, fold) in origin.items():
        label = labels[case]
        assert label is not None, "a case without a label map has no score"
        pairs.append(LabelPair(name, folders[fold] / f"{case}{run.dataset.file_ending}", label))
    return pairs


def _scored_again(
    run: Run,
    pooled: Evaluation,
    pairs: Sequence[LabelPair],
    choice: Choice,
    *,
    workers: int,
    progress: Progress | None,
) -> Evaluation:
    """`pooled` as the chosen postprocessing leaves it: cases from which it may remove something are scored anew.

    A note says that it was chosen on these cases.
    """
    changed = evaluate_pairs(
        [pair for pair in pairs if pair.case in choice.changed],
        None,
        labels=run.dataset.labels,
        tolerance_mm=pooled.tolerance_mm,
        postprocessing=choice.postprocessing,
        workers=workers,
        progress=progress,
    )
    anew = {(score.case, score.name): score for score in changed.only(pooled.columns).scores}
    scores = tuple(anew.get((score.case, score.name), score) for score in pooled.scores)
    return replace(pooled, scores=scores, notes=(*pooled.notes, OPTIMISM))
