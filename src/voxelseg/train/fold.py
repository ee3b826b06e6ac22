"""One fold of a run: training to a model file, then predictions and scores of the held-out cases."""

import dataclasses
import os
import random
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.dataset import Case
from voxelseg.errors import CheckpointError, DataError, VoxelsegError, memory_ran_out
from voxelseg.evaluate import Evaluation, evaluate_pairs, read_evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.files import locked, read_json, write_json
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.patches.loader import PatchSource
from voxelseg.predict.folder import PredictionFolder, predict_cases
from voxelseg.predict.predictor import Predictor
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop import Progress, Trainer
from voxelseg.train.run import RUN_FILE, Run
from voxelseg.version import __version__

VALIDATION_FOLDER = "validation"
PAIRS_FILE = "pairs.json"


def train_fold(
    run: Run,
    fold: int,
    stored: Mapping[str, StoredCase],
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train one fold, or what is left of it; returns the model file. A finished fold is kept as it is.

    `stored` has the preprocessed cases by id; a finished fold needs none. Raises StoppedError after Ctrl-C, with the
    state saved; CheckpointError if a state or model that is there is damaged or of another run; VoxelsegError if the
    training diverges, the memory runs out, another process trains the fold, or a file cannot be written; WorkerError or
    DataError if patches cannot be loaded.
    """
    with locked(run.fold_folder(fold)):
        return _train(run, fold, stored, on_progress)


def _train(
    run: Run, fold: int, stored: Mapping[str, StoredCase], on_progress: Callable[[Progress], None] | None
) -> Path:
    folder, model_path = run.fold_folder(fold), run.model_file(fold)
    if model_path.is_file():
        _refuse_other_models(load_checkpoint(model_path), run, fold)
        return model_path
    try:
        trainer = _trainer(run, fold, stored, on_progress)
        trainer.load_state()
        trainer.fit()
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise VoxelsegError(f"{folder}: {_memory_message(error, run.device)}") from error
    save_checkpoint(model_path, _checkpoint(run, fold, stored, trainer))
    return model_path


def _refuse_other_models(found: Checkpoint, run: Run, fold: int) -> None:
    """CheckpointError if a finished fold's model was not trained by this run; a damaged one is found out on loading."""
    own = (run.model, run.plan.changed(notes=()), run.dataset.labels, fold, run.seed)
    recorded = found.provenance.get("run") or {}
    plan, number = found.plan.changed(notes=()), found.provenance.get("fold")
    if own != (found.model, plan, found.labels, number, recorded.get("seed")):
        raise CheckpointError(f"{found.path}: is not of this run and fold. Delete it to train the fold.")


def _memory_message(error: Exception, device: torch.device) -> str:
    what = "the GPU's memory" if device.type == "cuda" else "the memory"
    wanted = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
    detail = f" ({wanted[0].lower()})" if wanted else ""
    return (
        f"{what} ran out{detail}. If other programs take it, end them: the same command continues. Else train into "
        "another --out with a smaller memory budget (--memory-gb), patch (--set plan.patch_size=...) or batch (--set "
        "plan.batch_size=...)."
    )


def _trainer(
    run: Run, fold: int, stored: Mapping[str, StoredCase], on_progress: Callable[[Progress], None] | None
) -> Trainer:
    config, split = run.config.train, run.splits[fold]
    _prepare_torch(config, run.device, run.seed)
    source = PatchSource(
        cases=[stored[case] for case in split.train],
        patch_size=run.plan.patch_size,
        batch_size=run.plan.batch_size,
        foreground_share=config.foreground_share,
        augmentation=run.config.augmentation,
        mirror_axes=run.plan.mirror_axes,
        anisotropic=run.plan.anisotropic,
        seed=run.seed,
        masked_channels=tuple(
            channel for channel, rule in enumerate(run.plan.normalization) if rule.kind == "zscore_nonzero"
        ),
    )
    return Trainer(
        run.build_model(),
        config,
        source,
        validation_cases=[stored[case] for case in split.validation],
        labels=run.dataset.labels,
        folder=run.fold_folder(fold),
        device=run.device,
        on_progress=on_progress,
    )


def _prepare_torch(config: TrainConfig, device: torch.device, seed: int) -> None:
    """Settings of the whole process: allocator, threads, determinism, seeds of libraries that draw globally."""
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
    # Some operations have no such form on a GPU: torch then warns and names them.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=device.type == "cuda")
    torch.backends.cudnn.benchmark = not config.deterministic
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from it must be repeatable too


def _checkpoint(run: Run, fold: int, stored: Mapping[str, StoredCase], trainer: Trainer) -> Checkpoint:
    options: dict[str, Any] = dataclasses.asdict(trainer.result.config)  # type: ignore[call-overload]
    return Checkpoint(
        weights=trainer.result.state_dict(),
        model=run.model,
        model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
        plan=run.plan,
        labels=run.dataset.labels,
        file_ending=run.dataset.file_ending,
        provenance={
            "voxelseg": __version__,
            "torch": torch.__version__,
            "run": read_json(run.folder / RUN_FILE),
            "fold": fold,
            "train_cases_sha256": {case: _input_sha256(stored[case]) for case in run.splits[fold].train},
            "steps": trainer.counters.step,
            "training_s": trainer.counters.elapsed_s,
        },
    )


def _input_sha256(case: StoredCase) -> list[str]:
    """Checksums of the files that a stored case was made from: its images, then its label map."""
    return [str(one["sha256"]) for one in read_json(case.folder / "case.json")["inputs"]]


def validate_fold(
    run: Run, fold: int, *, workers: int = 1, progress: Callable[[float, str], None] | None = None
) -> Evaluation:
    """Predict the held-out cases of a fold with its final model and score them on the scans' own grids.

    Scores that are newer than the predictions and the reference label maps are read back; with other `predict` settings
    than before the cases are predicted or scored again. `progress` is called with the number of cases predicted, which
    may be fractional, and the case in work.

    Raises CheckpointError if there is no good model, DataError naming the scans and label maps that cannot be read,
    VoxelsegError if a file cannot be written, WorkerError if a background process fails.
    """
    folder = run.fold_folder(fold) / VALIDATION_FOLDER
    cases: dict[str, Case] = {case.id: case for case in run.dataset.cases}
    held_out = [cases[case] for case in run.splits[fold].validation]
    checkpoint = load_checkpoint(run.model_file(fold))
    options = run.config.predict
    output = PredictionFolder(
        folder,
        settings={"models": [checkpoint.fingerprint()], "tta": options.tta, "overlap": options.overlap},
        file_ending=run.dataset.file_ending,
    )
    if all(output.holds(case) for case in held_out) and _scores_are_current(output, held_out):
        with suppress(DataError):  # damaged or incomplete: scored again
            scores = read_evaluation(folder)
            if scores.tolerance_mm == options.tolerance_mm:
                return scores
    predictor = Predictor([checkpoint], device=run.device, overlap=options.overlap, tta=options.tta)
    predict_cases(predictor, held_out, output, progress=progress)
    pairs = [
        {
            "case": case.id,
            "images": [str(path.absolute()) for path in case.images],
            "label": str(case.label.absolute()),
            "prediction": output.label_map(case).name,
        }
        for case in held_out
        if case.label is not None
    ]
    write_json(folder / PAIRS_FILE, pairs)
    return evaluate_pairs(
        [(case.id, output.label_map(case), case.label) for case in held_out if case.label is not None],
        folder,
        labels=run.dataset.labels,
        tolerance_mm=options.tolerance_mm,
        workers=workers,
    )


def _scores_are_current(output: PredictionFolder, cases: list[Case]) -> bool:
    summary = output.folder / SUMMARY_FILE
    if not summary.is_file():
        return False
    read = [path for case in cases for path in (output.label_map(case), case.label) if path is not None]
    return summary.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in read)
