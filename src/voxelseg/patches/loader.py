"""Batches of samples, made in background processes; those of a segmentation are augmented patches."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from voxelseg.errors import WorkerError
from voxelseg.geometry import Shape
from voxelseg.parallel import end_with_parent, interrupts_left_to_parent
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.intensity import change_intensities, intensity_transform
from voxelseg.patches.sampler import Place, Sampling, draw_sample, read_place, sample_generator
from voxelseg.patches.spatial import apply_spatial, draw_spatial
from voxelseg.preprocess.store import StoredCase

Batch = tuple[torch.Tensor, torch.Tensor]


class SampleSource(Protocol):
    """Where the samples of a training come from."""

    @property
    def seed(self) -> int:
        """Of all that is drawn for samples."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples of a batch, which all processes of a training share."""
        ...

    def dataset(self) -> Dataset[Any]:
        """Sample n at index n, a function of (seed, n) alone: tensors, or tuples or dictionaries of them; picklable."""
        ...

    def cases_of(self, numbers: Iterable[int]) -> list[str]:
        """Ids of the cases that the samples with these numbers come from."""
        ...


@dataclass(frozen=True, kw_only=True)
class PatchSource:
    """Everything that a training sample depends on besides its number."""

    cases: Sequence[StoredCase]
    patch_size: Shape
    batch_size: int
    sampling: Sampling
    augmentation: AugmentationConfig
    mirror_axes: tuple[int, ...]
    anisotropic: bool
    seed: int
    masked_channels: tuple[int, ...] = ()
    """Channels whose background is 0 and is kept at 0."""
    accumulate: int = 1
    """Batches that a training step sees: the share of foreground holds for them together."""

    def __post_init__(self) -> None:
        self.sampling.check_step(self.accumulate * self.batch_size)
        self.augmentation.check_patch(self.patch_size)

    def dataset(self) -> "PatchDataset":
        """Sample n at index n."""
        return PatchDataset(self)

    def cases_of(self, numbers: Iterable[int]) -> list[str]:
        """Ids of the cases that the samples with these numbers come from."""
        return [_draw_place(self, number, sample_generator(self.seed, number)).case.id for number in numbers]


class PatchDataset(Dataset[Batch]):
    """Sample n: image (C, D, H, W) float32 and target (D, H, W) int16, a function of (seed, n) alone."""

    def __init__(self, source: PatchSource) -> None:
        self.source = source
        self.transform = intensity_transform(source.augmentation, source.patch_size, anisotropic=source.anisotropic)

    def __getitem__(self, number: int) -> Batch:
        source = self.source
        generator = sample_generator(source.seed, number)
        place = _draw_place(source, number, generator)
        if not source.augmentation.enabled:
            image, target = read_place(place, source.patch_size)
            return torch.from_numpy(image), torch.from_numpy(target)
        change = draw_spatial(
            source.augmentation, generator, mirror_axes=source.mirror_axes, anisotropic=source.anisotropic
        )
        margin = change.margin(source.patch_size) if source.augmentation.outside == "scan" else (0, 0, 0)
        image, target = read_place(place, source.patch_size, margin=margin)
        moved, moved_target = apply_spatial(
            change,
            torch.from_numpy(image),
            torch.from_numpy(target),
            source.patch_size,
            config=source.augmentation,
            masked_channels=source.masked_channels,
        )
        changed = change_intensities(self.transform, moved, generator, masked_channels=source.masked_channels)
        return changed, moved_target


def _draw_place(source: PatchSource, number: int, generator: np.random.Generator) -> Place:
    return draw_sample(
        source.cases,
        source.patch_size,
        number,
        sampling=source.sampling,
        batch_size=source.accumulate * source.batch_size,
        seed=source.seed,
        generator=generator,
    )


def load_batches(
    source: SampleSource,
    *,
    first_sample: int,
    workers: int,
    pin_memory: bool = False,
    process: int = 0,
    num_processes: int = 1,
) -> Iterator[Any]:
    """Endless batches from sample `first_sample` on: the samples' tensors, each with an axis B in front.

    Where several processes share each batch of the source, which they must do evenly, they are that of `process`: their
    batches in a row are the whole one.
    The number of workers changes nothing, and no global random state is touched. A failure in a worker, or its death,
    raises WorkerError with the worker's own error.
    """
    loader = DataLoader(
        source.dataset(),
        batch_sampler=_batches(first_sample, source.batch_size, process=process, num_processes=num_processes),
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


def _batches(first_sample: int, batch_size: int, *, process: int, num_processes: int) -> Iterator[list[int]]:
    """Numbers of the samples of one process, batch by batch."""
    share = batch_size // num_processes
    assert share * num_processes == batch_size, "the batch is shared evenly"
    first_sample += process * share
    while True:
        yield list(range(first_sample, first_sample + share))
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
