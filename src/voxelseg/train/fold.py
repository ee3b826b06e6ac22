"""One fold of a run: training to a model file, then predictions and scores of the held-out cases."""

import dataclasses
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.dataset import Case
from voxelseg.errors import VoxelsegError
from voxelseg.evaluate import Evaluation, evaluate_pairs, read_evaluation
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.files import read_json, unfinished, write_json
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
    """Train one fold, or what is left of it; returns the model file. A finished fold is kept as it is."""
    folder = run.fold_folder(fold)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished(folder)
    model_path = run.model_file(fold)
    if model_path.is_file():
        load_checkpoint(model_path)  # a damaged one is reported, not built upon
        return model_path
    trainer = _trainer(run, fold, stored, on_progress)
    trainer.load_state()
    try:
        trainer.fit()
    except torch.OutOfMemoryError as error:
        raise VoxelsegError(
            f"{folder}: the GPU's memory ran out ({str(error).partition('. ')[0]}). Train into another --out with a "
            "smaller memory budget (--memory-gb) or batch (--set plan.batch_size=...)."
        ) from error
    save_checkpoint(model_path, _checkpoint(run, fold, stored, trainer))
    return model_path


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

    Scores that are newer than the predictions and the reference label maps are read back. `progress` is called with the
    number of cases predicted, which may be fractional, and the case in work.
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
        return read_evaluation(folder)
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
