"""Batches of augmented patches, made in background processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from voxelseg.errors import WorkerError
from voxelseg.geometry import Shape
from voxelseg.patches.augmentation import AugmentationConfig, augment, build_augmentation
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


class PatchDataset(Dataset[Batch]):
    """Sample n: image (C, D, H, W) float32 and target (D, H, W) int16, a function of (seed, n) alone."""

    def __init__(self, source: PatchSource) -> None:
        self.source = source
        self.transform = build_augmentation(
            source.augmentation,
            source.patch_size,
            mirror_axes=source.mirror_axes,
            anisotropic=source.anisotropic,
        )

    def __getitem__(self, number: int) -> Batch:
        source = self.source
        generator = sample_generator(source.seed, number)
        foreground = draws_foreground(number, batch_size=source.batch_size, share=source.foreground_share)
        place = draw_place(source.cases, source.patch_size, foreground=foreground, generator=generator)
        image, target = read_place(place, source.patch_size)
        if not source.augmentation.enabled:
            return torch.from_numpy(image), torch.from_numpy(target)
        return augment(self.transform, image, target, generator)


def _batches(first_sample: int, batch_size: int) -> Iterator[list[int]]:
    while True:
        yield list(range(first_sample, first_sample + batch_size))
        first_sample += batch_size


def load_batches(source: PatchSource, *, first_sample: int, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
    """Endless batches (B, C, D, H, W) and (B, D, H, W), from sample `first_sample` on.

    A failure in a worker raises WorkerError with the worker's own error.
    """
    loader = DataLoader(
        PatchDataset(source),
        batch_sampler=_batches(first_sample, source.batch_size),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=3 if workers else None,
        multiprocessing_context="forkserver" if workers else None,
    )
    try:
        yield from loader
    except Exception as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            f"a data loading worker failed: {str(error).strip().splitlines()[-1]}. If it was killed, the memory ran "
            "out: use fewer workers (--set train.workers=0) or a smaller batch (--set plan.batch_size=2)."
        ) from error
