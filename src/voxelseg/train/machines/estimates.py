"""What a training takes of disks and memory, against what is there: looked at before it starts."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from voxelseg.data.dataset import Dataset
from voxelseg.errors import VoxelsegError
from voxelseg.nets import Network
from voxelseg.nets.complexity import count
from voxelseg.plan.fingerprint import Fingerprint
from voxelseg.plan.plan import Plan
from voxelseg.preprocess.store import VOXELS_PER_CLASS
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.machines.distributed import Processes, processes_here
from voxelseg.train.machines.memory import SAFETY, training_bytes_of_weights
from voxelseg.train.machines.resources import free_memory
from voxelseg.train.run import Run, build_network

LEAST_OF_STORE = 0.2
"""Stored cases, which are compressed, take at least this share of their voxels' bytes; measured: 0.55 to 0.61 for left
atria, 0.69 to 0.83 for hippocampi."""
LEAST_OF_STEP = 0.25
"""Fast forms on a CPU keep 0.29 (MedNeXt S) to 0.99 (LoGoNet) of what PyTorch's keep, half precision about half."""
_BYTES_OF_A_PLACE = 12
LABEL_MAP_SHARE = {".nii.gz": 0.1}
"""Bytes per voxel of a compressed label map, at most; other formats take one."""


DiskPart = tuple[Path, str, int, int]
"""Folder, and what is written there: its name, and the bytes that it takes at most and at least."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What is needed of one disk or memory, in bytes."""

    where: str
    """As in "Disk of RUN"."""
    parts: dict[str, int]
    """What takes how much, at most."""
    least: int
    """What is needed in any case."""
    free: int
    remedy: str

    @property
    def most(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {_amount(size)}" for name, size in self.parts.items())
        return f"{self.where}: needs at most {_amount(self.most)} ({listed}), {_amount(self.free)} are free."


def check_needs(needs: Iterable[Need]) -> list[str]:
    """Warnings for what may not fit; VoxelsegError for what cannot, all of it."""
    impossible = [need for need in needs if need.least > need.free]
    if impossible:
        raise VoxelsegError(
            "; ".join(
                f"{need.where}: needs {_amount(need.least)} or more, {_amount(need.free)} are free. {need.remedy}"
                for need in impossible
            )
        )
    return [f"{need} It may not be enough. {need.remedy}" for need in needs if need.most > need.free]


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def disk_needs(run: Run, folds: Sequence[int], fingerprint: Fingerprint, *, store: Path) -> list[Need]:
    """What the cases that `store` lacks and what `folds` write will take, on each disk that is concerned."""
    parts = [store_part(run.dataset, fingerprint, run.plan, store)]
    unfinished = open_folds(run, folds)
    if unfinished:
        weights, state = saved_bytes(_without_memory(run), run.config.train)
        written = sum(still_to_write(run.fold_folder(fold) / STATE_FILE, state) for fold in unfinished)
        # Written under another name first: while it is replaced, a state is there twice.
        parts.append((run.folder, "states", written + state, written + state))
        train = run.config.train
        models = weights * len(unfinished) * (1 + train.save_best + (train.grow_kernel is not None))
        parts.append((run.folder, "models", models, models))
        parts.append((run.folder, "predictions", _prediction_bytes(run, unfinished, fingerprint), 0))
    return by_disk(parts)


def store_part(dataset: Dataset, fingerprint: Fingerprint, plan: Plan, store: Path) -> DiskPart:
    """What the cases that `store` lacks will take there."""
    missing = [case.id for case in dataset.cases if not (store / case.id).is_dir()]
    cases = sum(stored_bytes(fingerprint, case, plan) for case in missing)
    return store, "cases", cases, int(LEAST_OF_STORE * cases)


def open_folds(run: Run, folds: Sequence[int]) -> list[int]:
    """Those of `folds` whose training is not finished."""
    return [fold for fold in folds if not run.model_file(fold).is_file()]


def stored_bytes(fingerprint: Fingerprint, case: str, plan: Plan) -> int:
    """Bytes of a preprocessed case without compression: images in float32, targets in int16, places to sample from."""
    known = fingerprint.cases[case]
    voxels = float(prod(known.nonzero_shape if plan.crop == "nonzero" else known.shape))
    if plan.resampling != "none":
        voxels *= prod(known.spacing_mm) / prod(plan.spacing_mm)
    sorts = len(fingerprint.classes) + 2  # of places: each class, all of them together, the background
    places = sorts * min(voxels, VOXELS_PER_CLASS) * _BYTES_OF_A_PLACE
    return int(voxels * (4 * len(plan.channels) + 2) + places)


def saved_bytes(network: Network, config: LoopConfig) -> tuple[int, int]:
    """Bytes of the network's weights, and of a training's state."""
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    # All that a training holds but the gradients, which are as large as the weights.
    return weights, training_bytes_of_weights(network, config) - weights


def still_to_write(path: Path, size: int) -> int:
    """How much larger a file of `size` bytes is than what is there."""
    return max(size - path.stat().st_size, 0) if path.is_file() else size


def _prediction_bytes(run: Run, folds: Sequence[int], fingerprint: Fingerprint) -> int:
    per_voxel = LABEL_MAP_SHARE.get(run.dataset.file_ending, 1.0)
    held_out = [case for fold in folds for case in run.splits[fold].validation]
    return int(per_voxel * sum(prod(fingerprint.cases[case].shape) for case in held_out))


def by_disk(parts: Sequence[DiskPart]) -> list[Need]:
    """Needs of all parts that take something, those on one disk together."""
    disks: dict[int, list[DiskPart]] = {}
    for part in parts:
        if part[2]:
            existing = next(folder for folder in (part[0], *part[0].absolute().parents) if folder.exists())
            disks.setdefault(existing.stat().st_dev, []).append((existing, *part[1:]))
    return [
        Need(
            where=f"Disk of {found[-1][0]}",
            parts={name: most for _, name, most, _ in found if most},
            least=sum(least for *_, least in found),
            free=shutil.disk_usage(found[-1][0]).free,
            remedy="Free some space, or choose folders on another disk (--out, --work).",
        )
        for found in disks.values()
    ]


def memory_need(run: Run, processes: Processes) -> Need | None:
    """What a training step takes of the device's memory; None where the system does not say what is free."""
    return step_need(_without_memory(run), run.plan, run.config.train, processes)


def step_need(network: Network, plan: Plan, config: LoopConfig, processes: Processes) -> Need | None:
    """What a step of a training of `network` takes of the device's memory; None where it is not said what is free.

    Counted, not measured, for PyTorch's own operations in single precision without checkpointing: at most that. Of
    several processes on one CPU it is all of them. `network` may lie on the meta device.
    """
    on_gpu, free = processes.device.type == "cuda", free_memory(processes.device)
    if free is None:
        return None
    sharing = 1 if on_gpu else processes_here()
    patches = plan.batch_size // processes.count
    weights = sharing * training_bytes_of_weights(network, config)
    kept = sharing * patches * count(network, plan.patch_size).kept_bytes
    recomputes = getattr(getattr(network, "config", None), "checkpointing", False)
    return Need(
        where="GPU memory" if on_gpu else "Memory",
        parts={"weights": weights, "a step": int(SAFETY * kept)},
        least=weights + (0 if recomputes else int(LEAST_OF_STEP * kept)),
        free=free,
        remedy="Free some memory, or train into another --out with a smaller memory budget (--memory-gb) or batch.",
    )


def _without_memory(run: Run) -> Network:
    with torch.device("meta"):
        return build_network(run.model, run.dataset, run.config, run.plan)
