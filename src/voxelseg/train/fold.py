"""One fold of a run: training to a model file, then predictions and scores of the held-out cases."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.dataset import Case
from voxelseg.errors import CheckpointError, DataError, VoxelsegError, memory_ran_out
from voxelseg.evaluate import Evaluation, evaluate_pairs, read_evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.evaluate.held_out import PAIRS_FILE, VALIDATION_FOLDER, write_pairs
from voxelseg.files import locked
from voxelseg.predict.folder import PredictionFolder, predict_cases
from voxelseg.predict.predictor import Predictor, prediction_settings
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.fitting import FoldTraining, refuse_other_models
from voxelseg.train.loop.trainer import Progress
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.run import Run
from voxelseg.train.start.transfer import TransferReport


def train_fold(
    run: Run,
    fold: int,
    stored: Mapping[str, StoredCase],
    *,
    processes: Processes | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_transfer: Callable[[TransferReport], None] | None = None,
) -> Path:
    """Train one fold, or what is left of it; returns the model file. A finished fold is kept as it is.

    All `processes` call it alike; by default it is this one alone. `stored` has the preprocessed cases by id; a
    finished fold needs none. `on_transfer` is told what became of the weights that the training starts from.

    Raises StoppedError after Ctrl-C, with the state saved; CheckpointError if a state or model that is there is damaged
    or of another run, or if the weights to start from do not fit; VoxelsegError if the training diverges, the memory
    runs out, another process trains the fold, or a file cannot be written; WorkerError or DataError if patches cannot
    be loaded.
    """
    processes = processes or Processes.alone(run.device)
    with ExitStack() as held:
        processes.from_main(lambda: held.enter_context(locked(run.fold_folder(fold))))
        return _train(
            FoldTraining(
                run=run,
                fold=fold,
                stored=stored,
                processes=processes,
                on_progress=on_progress,
                on_transfer=on_transfer,
            )
        )


def _train(training: FoldTraining) -> Path:
    run, fold = training.run, training.fold
    model_path = run.model_file(fold)
    if training.processes.from_main(model_path.is_file):
        refuse_other_models(load_checkpoint(model_path), run, fold)
        return model_path
    try:
        model = training.model()
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise VoxelsegError(f"{training.folder}: {memory_message(error, run.device)}") from error
    training.processes.from_main(lambda: save_checkpoint(model_path, model))
    return model_path


def memory_message(error: Exception, device: torch.device) -> str:
    """What to say of a training for which the memory of its device did not suffice."""
    what = "the GPU's memory" if device.type == "cuda" else "the memory"
    wanted = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
    detail = f" ({wanted[0].lower()})" if wanted else ""
    return (
        f"{what} ran out{detail}. If other programs take it, end them: the same command continues. Else train into "
        "another --out with a smaller memory budget (--memory-gb), patch (--set plan.patch_size=...) or batch (--set "
        "plan.batch_size=...)."
    )


def validate_fold(
    run: Run, fold: int, *, workers: int = 1, progress: Callable[[float, str], None] | None = None
) -> Evaluation:
    """Predict the held-out cases of a fold with its final model and score them on the scans' own grids.

    Nothing is removed from these label maps, since a postprocessing is chosen by them. Scores that are newer than the
    predictions and the reference label maps are read back; with other `predict` settings than before the cases are
    predicted or scored again. `progress` is called with the number of cases predicted, which may be fractional, and the
    case in work. Waits while another process trains or validates the fold.

    Raises CheckpointError if there is no good model, DataError naming the scans and label maps that cannot be read,
    VoxelsegError if a file cannot be written, WorkerError if a background process fails.
    """
    with locked(run.fold_folder(fold), wait=True):
        return _validate(run, fold, workers=workers, progress=progress)


def _validate(run: Run, fold: int, *, workers: int, progress: Callable[[float, str], None] | None) -> Evaluation:
    held_out, options = held_out_cases(run, fold), run.config.predict
    checkpoint = load_checkpoint(predicting_file(run, fold))
    output = _predictions(run, fold, checkpoint)
    known = _known_scores(output, held_out, tolerance_mm=options.tolerance_mm)
    if known is not None:
        return known
    folder = output.folder
    predictor = Predictor([checkpoint], device=run.device, **options.averaging, postprocess=False)
    predict_cases(predictor, held_out, output, progress=progress)
    write_pairs(folder / PAIRS_FILE, held_out, file_ending=run.dataset.file_ending)
    return evaluate_pairs(
        [(case.id, output.label_map(case), case.label) for case in held_out if case.label is not None],
        folder,
        labels=run.dataset.labels,
        tolerance_mm=options.tolerance_mm,
        workers=workers,
    )


def predicting_file(run: Run, fold: int) -> Path:
    """The model file of a fold whose weights predict; CheckpointError if the training has none of that kind."""
    if run.config.predict.checkpoint == "last":
        return run.model_file(fold)
    if run.model_file(fold).is_file() and not run.best_file(fold).is_file():
        raise CheckpointError(
            f"{run.best_file(fold)}: not there. The training had no running validation, or the file was deleted. Use "
            "the weights of its end (--set predict.checkpoint=last), or delete the folder to train the fold again."
        )
    return run.best_file(fold)


def held_out_cases(run: Run, fold: int) -> list[Case]:
    """The cases that a fold validates on."""
    cases: dict[str, Case] = {case.id: case for case in run.dataset.cases}
    return [cases[case] for case in run.splits[fold].validation]


def current_scores(run: Run, fold: int) -> Evaluation | None:
    """Scores of the held-out cases by a fold's final model, with the run's `predict` settings; None before there are.

    CheckpointError if the model file is damaged.
    """
    if not run.model_file(fold).is_file():
        return None
    output = _predictions(run, fold, load_checkpoint(predicting_file(run, fold)))
    return _known_scores(output, held_out_cases(run, fold), tolerance_mm=run.config.predict.tolerance_mm)


def _predictions(run: Run, fold: int, checkpoint: Checkpoint) -> PredictionFolder:
    return PredictionFolder(
        run.fold_folder(fold) / VALIDATION_FOLDER,
        settings=prediction_settings([checkpoint], run.config.predict.averaging, postprocess=False),
        file_ending=run.dataset.file_ending,
    )


def _known_scores(output: PredictionFolder, held_out: list[Case], *, tolerance_mm: float) -> Evaluation | None:
    if not all(output.holds(case) for case in held_out) or not _scores_are_current(output, held_out):
        return None
    with suppress(DataError):  # damaged or incomplete: scored again
        scores = read_evaluation(output.folder)
        if scores.tolerance_mm == tolerance_mm:
            return scores
    return None


def _scores_are_current(output: PredictionFolder, cases: list[Case]) -> bool:
    summary = output.folder / SUMMARY_FILE
    if not summary.is_file():
        return False
    read = [path for case in cases for path in (output.label_map(case), case.label) if path is not None]
    return summary.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in read)
