"""Pre-trainings that trainings of a benchmark start from: one for each contestant that has a method, and fold.

They see the training scans of the fold without labels, never the held-out ones, and have the benchmark's plan and
length. Seeds share one: they vary what follows.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from voxelseg.benchmark.design import Design
from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.length import Length
from voxelseg.checkpoint import MODEL_FILE
from voxelseg.data.dataset import Dataset
from voxelseg.data.splits import Split
from voxelseg.errors import ConfigError
from voxelseg.files import write_json
from voxelseg.pretrain.backbone import check_pretrainable
from voxelseg.pretrain.config import PretrainingConfig, build_pretraining
from voxelseg.pretrain.run import check_num_classes
from voxelseg.side_by_side.jobs import Job

_OF_PLAN = {"channels", "notes", "median_shape", "mirror_axes", "label_order"}
"""Parts of a plan that a pre-training does not look at, or has from its scans."""
_MASKS = ("sparse.layers", "sparse.sparsity")


def pretraining_name(entrant: Entrant, fold: int) -> str:
    """Such as "pre-training of simmim, fold 0"."""
    return f"pre-training of {entrant.name}, fold {fold}"


def check_pretraining(entrant: Entrant, settings: Sequence[str], length: Length) -> PretrainingConfig:
    """Configuration of a contestant's pre-training; `settings` are those of all contestants.

    ConfigError for an unknown or impossible one, and for weights to start from besides.
    """
    assert entrant.pretrain is not None
    if entrant.init is not None:
        raise ConfigError("init and pretrain both say what the trainings start from. Give one.")
    check_pretrainable(entrant.model)
    own = [*length.settings(entrant.pretrain_settings), *entrant.pretrain_settings]
    return build_pretraining(entrant.pretrain, [*_of_network([*settings, *entrant.settings]), *own])


def write_scans(design: Design, dataset: Dataset, fold: int, split: Split) -> Path:
    """The list of a fold's training scans, as a data set without labels; returns its path."""
    path = design.folder / "pretraining" / f"scans_fold_{fold}.json"
    chosen = set(split.train)
    content = {
        "name": dataset.name,
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "cases": [
            {"id": case.id, "patient": case.patient, "image": [str(image.absolute()) for image in case.images]}
            for case in dataset.cases
            if case.id in chosen
        ],
    }
    write_json(path, content)
    return path


def pretraining_jobs(
    design: Design, dataset: Dataset, splits: Sequence[Split], *, threads: int, workers: int
) -> list[Job]:
    """Those that are not finished, of all contestants and folds; writes the lists of their scans."""
    learning = [one for one in design.entrants if one.pretrain is not None]
    missing = [
        (entrant, fold)
        for fold in design.folds
        for entrant in learning
        if not (design.pretraining_folder(entrant, fold) / MODEL_FILE).is_file()
    ]
    scans = {fold: write_scans(design, dataset, fold, splits[fold]) for fold in {fold for _, fold in missing}}
    return [
        Job(
            name=pretraining_name(entrant, fold),
            command=(
                "voxelseg",
                "pretrain",
                *_arguments(design, dataset, entrant, fold, scans[fold], threads, workers),
            ),
            log=design.folder / "logs" / f"{entrant.name}_pretraining_fold_{fold}.log",
        )
        for entrant, fold in missing
    ]


def _arguments(
    design: Design, dataset: Dataset, entrant: Entrant, fold: int, scans: Path, threads: int, workers: int
) -> list[str]:
    assert entrant.pretrain is not None
    plan = design.plan.model_dump(mode="json", exclude=_OF_PLAN, exclude_none=True)
    own = entrant.pretrain_settings
    settings = [
        *(f"plan.{key}={json.dumps(value)}" for key, value in plan.items()),
        *_of_network(design.settings_of(entrant)),
        *design.length.settings(own),
        *_num_classes(entrant, design.settings_of(entrant), dataset),
        f"train.threads={threads}",
        *own,
    ]
    paths = (scans, design.pretraining_folder(entrant, fold), design.folder / "pretraining" / f"work_fold_{fold}")
    listed, out, work = (str(path.absolute()) for path in paths)
    return [
        *(listed, "--out", out, "--work", work),
        *("--model", entrant.model, "--method", entrant.pretrain, "--workers", str(workers), *design.length.options()),
        *(word for one in settings for word in ("--set", one)),
    ]


def _num_classes(entrant: Entrant, settings: Sequence[str], dataset: Dataset) -> list[str]:
    """As many as the training has, for a network whose widths follow them; others refuse the setting."""
    assert entrant.pretrain is not None
    wanted = [f"pretrain.num_classes={max(dataset.labels.num_outputs, 2)}"]
    config = build_pretraining(entrant.pretrain, [*_of_network(settings), *wanted])
    try:
        check_num_classes(entrant.model, dataset, config)
    except ConfigError:
        return []
    return wanted


def _of_network(settings: Sequence[str]) -> list[str]:
    """Those that decide the network and its masks, which a training must have as its pre-training had them."""
    return [one for one in settings if one.startswith("model.") or one.partition("=")[0].strip() in _MASKS]
