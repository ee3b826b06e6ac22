"""The processes that a benchmark needs: preparations, pre-trainings and trainings that are not finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelseg.benchmark.design import NNUNET_FOLDER, Cell, Design
from voxelseg.benchmark.pretraining import pretraining_jobs, pretraining_name
from voxelseg.data.dataset import Dataset
from voxelseg.data.splits import Split
from voxelseg.side_by_side.jobs import Job

NNUNET_PREPARATION = "nnU-Net's preparation"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each process may take."""

    threads: int
    workers: int
    """Processes that read and prepare cases."""


@dataclass(frozen=True, kw_only=True)
class NNUNet:
    """How nnU-Net is run."""

    environment: Path
    """Folder of its virtual environment."""
    minutes: float | None
    steps: int | None
    """Length of each training, one of the two."""
    loaders: int | None = None
    """Processes that make patches, as many as the other trainings have; None: as many as they usually have."""
    tolerance_mm: float
    """Of surface Dice."""

    def arguments(self, design: Design, resources: Resources) -> list[str]:
        """What every job of nnU-Net is given."""
        paths = (design.data, design.folder / NNUNET_FOLDER, design.splits)
        data, work, splits = (str(path.absolute()) for path in paths)
        return [
            *(data, "--work", work, "--splits", splits),
            *("--env", str(self.environment), "--threads", str(resources.threads)),
        ]


def missing_jobs(
    design: Design, dataset: Dataset, splits: Sequence[Split], nnunet: NNUNet | None, resources: Resources
) -> tuple[list[Job], list[Job]]:
    """What must come first, and the trainings themselves, without what is finished."""
    missing = [cell for cell in design.cells if design.outcome(cell) is None]
    before = pretraining_jobs(design, dataset, splits, threads=resources.threads, workers=resources.workers)
    if nnunet is not None and any(cell.entrant.is_nnunet for cell in missing):
        command = ("voxelseg.benchmark.nnunet_job", "prepare", *nnunet.arguments(design, resources))
        before.append(Job(NNUNET_PREPARATION, command, design.folder / "logs" / "nnunet_preparation.log"))
    return before, [_training(design, cell, nnunet, resources) for cell in missing]


def _training(design: Design, cell: Cell, nnunet: NNUNet | None, resources: Resources) -> Job:
    """Its place says the device."""
    entrant = cell.entrant
    log = design.folder / "logs" / f"{entrant.name}_fold_{cell.fold}_seed_{cell.seed}.log"
    if entrant.is_nnunet:
        assert nnunet is not None, "the command has asked for its environment"
        command = ("voxelseg.benchmark.nnunet_job", "train", *_of_nnunet(design, cell, nnunet, resources))
        return Job(cell.name, command, log, needs=(NNUNET_PREPARATION,))
    return Job(
        cell.name,
        ("voxelseg", "train", *train_arguments(design, cell, resources)),
        log,
        needs=() if entrant.pretrain is None else (pretraining_name(entrant, cell.fold),),
    )


def train_arguments(design: Design, cell: Cell, resources: Resources) -> list[str]:
    """All that `voxelseg train` is given for a cell, but for its device."""
    entrant = cell.entrant
    init = None if entrant.init is None else Path(entrant.init)
    if entrant.pretrain is not None:
        init = design.pretraining_folder(entrant, cell.fold)
    settings = (*design.settings_of(entrant), f"train.threads={resources.threads}")
    # A job of a cluster may begin in another folder.
    paths = (design.data, design.cell_folder(cell), design.work, design.splits)
    data, out, work, splits = (str(path.absolute()) for path in paths)
    return [
        *(data, "--out", out, "--work", work, "--splits", splits),
        *("--fold", str(cell.fold), "--seed", str(cell.seed)),
        *("--model", entrant.model, "--workers", str(resources.workers), *design.length.options()),
        *(() if init is None else ("--init", str(init.absolute()))),
        *(word for one in settings for word in ("--set", one)),
    ]


def _of_nnunet(design: Design, cell: Cell, nnunet: NNUNet, resources: Resources) -> list[str]:
    options = cell.entrant.nnunet_options
    length = ("--minutes", f"{nnunet.minutes:.10g}") if nnunet.minutes is not None else ("--steps", str(nnunet.steps))
    return [
        *nnunet.arguments(design, resources),
        *("--out", str(design.cell_folder(cell).absolute())),
        *("--fold", str(cell.fold), "--seed", str(cell.seed), *length),
        *("--tolerance-mm", f"{nnunet.tolerance_mm:g}"),
        *(() if nnunet.loaders is None else ("--loaders", str(nnunet.loaders))),
        *(("--batch-size", str(options["batch_size"])) if "batch_size" in options else ()),
        *(() if options.get("mirroring", True) else ("--no-mirroring",)),
    ]
