"""A run: one model trained on one or more folds of one data set, and everything that says how.

RUN/run.json        command, versions, seed, device, data set, configuration, plan, fingerprint
RUN/splits.json     the folds
RUN/plan.json       the plan as it is used
RUN/fold_K/         model.safetensors, training_state.pt, log.jsonl, validation/
"""

import dataclasses
import platform
import random
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.splits import Split, read_splits, write_splits
from voxelseg.errors import ConfigError
from voxelseg.evaluate import Evaluation, evaluate_pairs
from voxelseg.files import read_json, unfinished, write_json
from voxelseg.nets import Network, create_model, find_network
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.patches.loader import PatchSource
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.predict.predictor import Predictor, predict_cases
from voxelseg.preprocess.store import StoredCase
from voxelseg.train.config import RunConfig
from voxelseg.train.loop import Progress, Trainer
from voxelseg.version import __version__

MODEL_FILE = "model.safetensors"
_LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "blosc2", "batchgeneratorsv2")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all folds of a run share."""

    folder: Path
    dataset: Dataset
    plan: Plan
    fingerprint: Fingerprint
    splits: list[Split]
    model: str
    config: RunConfig
    seed: int
    device: torch.device

    def fold_folder(self, fold: int) -> Path:
        """RUN/fold_K."""
        return self.folder / f"fold_{fold}"

    def build_model(self) -> Network:
        """The network with fresh weights, drawn from the run's seed."""
        torch.manual_seed(self.seed)
        return create_model(
            self.model,
            in_channels=len(self.plan.channels),
            num_classes=self.dataset.labels.num_outputs,
            **model_options(self.model, self.config, self.plan),
        )


def model_options(model: str, config: RunConfig, plan: Plan) -> dict[str, Any]:
    """Options of the network: the plan's topology if it follows that, deep supervision, the user's."""
    options: dict[str, Any] = {"deep_supervision": config.train.deep_supervision}
    if follows_plan(model):
        options |= {"strides": plan.strides, "kernels": plan.kernels}
    return options | dict(config.model)


def follows_plan(model: str) -> bool:
    """Whether the network takes its strides and kernels from the plan."""
    fields = {field.name for field in dataclasses.fields(find_network(model).config)}
    return {"strides", "kernels"} <= fields


def open_run(
    folder: Path,
    *,
    dataset: Dataset,
    data: Path,
    plan: Plan,
    fingerprint: Fingerprint,
    splits: list[Split],
    model: str,
    config: RunConfig,
    seed: int,
    device: torch.device,
) -> Run:
    """Start a run in `folder`, or continue the one that is there.

    Raises ConfigError naming what differs if the folder holds a run with another model, configuration, plan, seed or
    data set.
    """
    identity = {
        "model": model,
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
        "dataset": {
            "name": dataset.name,
            "layout": dataset.layout,
            "root": str(data.resolve()),
            "num_cases": len(dataset.cases),
            "channels": list(dataset.channels),
            "labels": dataset.labels.to_dict(),
        },
    }
    record, splits_file = folder / "run.json", folder / "splits.json"
    if record.is_file():
        stored = read_json(record, remedy="Choose another --out.")
        differing = _differences({key: stored.get(key) for key in identity}, identity)
        if differing:
            raise ConfigError(
                f"{folder}: holds a run with other settings ({'; '.join(differing[:6])}). "
                "Choose another --out, or the same settings to continue it."
            )
        splits = read_splits(splits_file, dataset.cases)
    else:
        write_splits(splits_file, splits)
        plan.write(folder / "plan.json")
        write_json(
            record,
            {
                "command": shlex.join(["voxelseg", *sys.argv[1:]]),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "voxelseg": __version__,
                "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
                "device": _device_name(device),
                **identity,
                "fingerprint": fingerprint.model_dump(mode="json"),
            },
        )
    return Run(
        folder=folder,
        dataset=dataset,
        plan=plan,
        fingerprint=fingerprint,
        splits=splits,
        model=model,
        config=config,
        seed=seed,
        device=device,
    )


def _differences(stored: Any, wanted: Any, path: str = "") -> list[str]:
    wanted = list(wanted) if isinstance(wanted, tuple) else wanted
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        keys = sorted({*stored, *wanted}, key=str)
        return [
            difference
            for key in keys
            for difference in _differences(stored.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if stored == wanted else [f"{path} was {stored!r}, now {wanted!r}"]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


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
    model_path = folder / MODEL_FILE
    if model_path.is_file():
        load_checkpoint(model_path)  # a damaged one is reported, not built upon
        return model_path
    config = run.config.train
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    random.seed(run.seed)
    np.random.seed(run.seed)  # noqa: NPY002 - libraries that draw from it must be repeatable too
    model = run.build_model()
    split = run.splits[fold]
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
    trainer = Trainer(
        model,
        config,
        source,
        validation_cases=[stored[case] for case in split.validation],
        labels=run.dataset.labels,
        folder=folder,
        device=run.device,
        on_progress=on_progress,
    )
    trainer.load_state()
    trainer.fit()
    options = dataclasses.asdict(trainer.result.config)  # type: ignore[call-overload]
    save_checkpoint(
        model_path,
        Checkpoint(
            weights=trainer.result.state_dict(),
            model=run.model,
            model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
            plan=run.plan,
            labels=run.dataset.labels,
            file_ending=run.dataset.file_ending,
            provenance={
                "voxelseg": __version__,
                "torch": torch.__version__,
                "run": read_json(run.folder / "run.json"),
                "fold": fold,
                "train_cases": list(split.train),
                "steps": trainer.counters.step,
                "training_s": trainer.counters.elapsed_s,
            },
        ),
    )
    return model_path


def validate_fold(
    run: Run, fold: int, *, workers: int = 1, progress: Callable[[str, float], None] | None = None
) -> Evaluation:
    """Predict the held-out cases of a fold with its final model and score them on the scans' own grids."""
    folder = run.fold_folder(fold) / "validation"
    cases: dict[str, Case] = {case.id: case for case in run.dataset.cases}
    held_out = [cases[case] for case in run.splits[fold].validation]
    checkpoint = load_checkpoint(run.fold_folder(fold) / MODEL_FILE)
    options = run.config.predict
    predictor = Predictor([checkpoint], device=run.device, overlap=options.overlap, tta=options.tta)
    paths = predict_cases(
        predictor,
        held_out,
        folder,
        file_ending=run.dataset.file_ending,
        settings={"model": checkpoint.fingerprint(), **options.model_dump()},
        progress=progress,
    )
    pairs = [
        {
            "case": case.id,
            "images": [str(path) for path in case.images],
            "label": str(case.label),
            "prediction": str(paths[case.id].relative_to(folder)),
        }
        for case in held_out
    ]
    write_json(folder / "pairs.json", pairs)
    return evaluate_pairs(
        [(case.id, paths[case.id], case.label) for case in held_out if case.label is not None],
        folder,
        labels=run.dataset.labels,
        tolerance_mm=options.tolerance_mm,
        workers=workers,
    )
