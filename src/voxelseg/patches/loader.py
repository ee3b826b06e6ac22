"""Batches of augmented patches, made in background processes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from voxelseg.errors import WorkerError
from voxelseg.geometry import Shape
from voxelseg.parallel import end_with_parent, interrupts_left_to_parent
from voxelseg.patches.augmentation import (
    AugmentationConfig,
    apply_spatial,
    change_intensities,
    draw_spatial,
    intensity_transform,
)
from voxelseg.patches.sampler import draw_place, draws_foreground, read_place, sample_generator
from voxelseg.preprocess.store import StoredCase

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class PatchSource:
    """Everything that a training sample depends on besides its number."""

    cases: Sequence[StoredCase]
    patch_size: Shape
    batch_size: int
    foreground_share: float
    """Share of each batch that must hold foreground."""
    augmentation: AugmentationConfig
    mirror_axes: tuple[int, ...]
    anisotropic: bool
    seed: int
    masked_channels: tuple[int, ...] = ()
    """Channels whose background is 0 and is kept at 0."""


class PatchDataset(Dataset[Batch]):
    """Sample n: image (C, D, H, W) float32 and target (D, H, W) int16, a function of (seed, n) alone."""

    def __init__(self, source: PatchSource) -> None:
        self.source = source
        self.transform = intensity_transform(source.augmentation, source.patch_size, anisotropic=source.anisotropic)

    def __getitem__(self, number: int) -> Batch:
        source = self.source
        generator = sample_generator(source.seed, number)
        foreground = draws_foreground(number, batch_size=source.batch_size, share=source.foreground_share)
        place = draw_place(source.cases, source.patch_size, foreground=foreground, generator=generator)
        if not source.augmentation.enabled:
            image, target = read_place(place, source.patch_size)
            return torch.from_numpy(image), torch.from_numpy(target)
        change = draw_spatial(
            source.augmentation, generator, mirror_axes=source.mirror_axes, anisotropic=source.anisotropic
        )
        image, target = read_place(place, source.patch_size, margin=change.margin(source.patch_size))
        moved, moved_target = apply_spatial(
            change, torch.from_numpy(image), torch.from_numpy(target), source.patch_size
        )
        changed = change_intensities(self.transform, moved, generator, masked_channels=source.masked_channels)
        return changed, moved_target


def load_batches(source: PatchSource, *, first_sample: int, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
    """Endless batches (B, C, D, H, W) and (B, D, H, W), from sample `first_sample` on.

    The number of workers changes nothing, and no global random state is touched. A failure in a worker, or its death,
    raises WorkerError with the worker's own error.
    """
    loader = DataLoader(
        PatchDataset(source),
        batch_sampler=_batches(first_sample, source.batch_size),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=3 if workers else None,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # else the loader draws a number from the global one
    )
    try:
        with interrupts_left_to_parent():
            batches = iter(loader)  # starts the processes
        yield from batches
    except Exception as error:
        if not workers:
            raise
        raise WorkerError(_worker_failure(error)) from error


def _batches(first_sample: int, batch_size: int) -> Iterator[list[int]]:
    while True:
        yield list(range(first_sample, first_sample + batch_size))
        first_sample += batch_size


def _worker_failure(error: Exception) -> str:
    """What to tell about an error that the loader passed on: the worker's message, or that it died."""
    own = re.split(rf"^(?:\w+\.)*{type(error).__name__}: ", str(error), flags=re.MULTILINE)
    if "Original Traceback" in own[0]:
        return f"a process that loads patches failed: {own[-1].strip()}"
    reason = str(error).partition("\n")[0] or type(error).__name__
    return (
        f"a process that loads patches died ({reason}). Mostly the memory ran out: continue with fewer processes "
        "(the same command with --set train.workers=0), or train into another --out with a smaller batch (--set "
        'plan.batch_size=1). In a script of your own, start training under if __name__ == "__main__": only, since '
        "every process reads the script first."
    )
