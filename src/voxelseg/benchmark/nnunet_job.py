"""A job of a benchmark in which nnU-Net takes part: preparing its data, or training and scoring one fold.

    python -m voxelseg.benchmark.nnunet_job prepare DATA --work DIR --splits FILE --env DIR --threads N
    python -m voxelseg.benchmark.nnunet_job train DATA --work DIR ... --out RUN --fold F --seed S --minutes M

The second leaves in RUN/fold_F what the benchmark looks for in a run of `voxelseg train`: the end of the log, and in
validation/ the label maps of the held-out cases with their scores. A training that was stopped begins again.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from voxelseg.benchmark.nnunet import TRAINING_FILE, NNUNetWork, nnunet_python
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import read_splits
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.evaluate import evaluate_pairs
from voxelseg.evaluate.evaluation import SUMMARY_FILE
from voxelseg.evaluate.held_out import PAIRS_FILE, VALIDATION_FOLDER, write_pairs
from voxelseg.files import locked, make_folder, read_json, remove_file, write_json, write_text
from voxelseg.train.loop.log import LOG_FILE
from voxelseg.train.loop.trainer import usual_workers
from voxelseg.train.record import made_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the job: 0, or 2 after a message."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nnU-Net's own process ends, too
    options = _parse(arguments)
    try:
        dataset = read_dataset(options.data)
        splits = read_splits(options.splits, dataset.cases)
        work = NNUNetWork(
            python=nnunet_python(options.env), folder=options.work, dataset=dataset, threads=options.threads
        )
        if options.what == "prepare":
            work.prepare(splits, options.work.with_name(f"{options.work.name}.log"))
        else:
            with locked(options.out / f"fold_{options.fold}"):
                _train(work, options, splits[options.fold].validation)
    except VoxelsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "train"))
    parser.add_argument("data", type=Path)
    for name in ("--work", "--splits", "--env"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path)
    for name in ("--fold", "--seed", "--steps", "--batch-size", "--loaders"):
        parser.add_argument(name, type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--tolerance-mm", type=float, default=1.0)
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def _train(work: NNUNetWork, options: argparse.Namespace, held_out: Sequence[str]) -> None:
    """Train one fold, then score its predictions, which are copied from nnU-Net's folders."""
    fold: Path = options.out / f"fold_{options.fold}"
    kind, _, number = options.device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if number:
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible_device(int(number))
    loaders = usual_workers(kind) if options.loaders is None else options.loaders
    given = {"minutes": options.minutes, "steps": options.steps, "batch-size": options.batch_size}
    arguments = [
        *("--seed", str(options.seed), "--device", kind),
        "--mirroring" if options.mirroring else "--no-mirroring",
        *(word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))),
    ]
    found = work.train(options.fold, fold / "nnunet", fold / "nnunet.log", arguments=arguments, workers=loaders)
    training: dict[str, Any] = read_json(found / TRAINING_FILE)
    if kind == "cpu":
        training["device"] = made_with(torch.device("cpu"))["device"]  # as the other trainings call it
    _score(work.dataset, found / "validation", fold / VALIDATION_FOLDER, held_out, options)
    write_json(fold / TRAINING_FILE, training)
    epoch = {"event": "epoch", "step": training["steps"], "elapsed_s": training["training_seconds"]}
    write_text(fold / LOG_FILE, json.dumps(epoch) + "\n")


def _visible_device(number: int) -> str:
    """Name of the GPU of that number among those that this process may use."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[number] if number < len(visible) else str(number)


def _score(
    dataset: Dataset, predictions: Path, out: Path, held_out: Sequence[str], options: argparse.Namespace
) -> None:
    """Scores of the label maps of exactly the held-out cases, beside copies of them."""
    cases = [case for case in dataset.cases if case.id in set(held_out)]
    make_folder(out)
    remove_file(out / SUMMARY_FILE)
    for case in cases:
        name = f"{case.id}{dataset.file_ending}"
        if not (predictions / name).is_file():
            raise DataError(f"{predictions / name}: nnU-Net left no prediction of this held-out case. See its log.")
        shutil.copyfile(predictions / name, out / name)
    write_pairs(out / PAIRS_FILE, cases, file_ending=dataset.file_ending)
    pairs = [(case.id, out / f"{case.id}{dataset.file_ending}", case.label) for case in cases if case.label is not None]
    evaluate_pairs(pairs, out, labels=dataset.labels, tolerance_mm=options.tolerance_mm, workers=options.threads)


if __name__ == "__main__":
    sys.exit(main())
