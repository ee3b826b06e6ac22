"""Where training patches come from: drawing a place and reading it are separate.

Sample number n of a training is drawn by a generator seeded with (seed, n) and depends on nothing else. So the number
of workers does not matter, and an interrupted training that continues at sample n sees what it would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape
from voxelseg.preprocess.store import StoredCase

_ROUND, _CASE = 1, 2  # a generator of the order of cases, or of a case, is not that of a sample


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which cases patches are taken from, and where; see the keys of the same names in the train section."""

    foreground_share: float = 0.33
    foreground_sampling: Literal["class", "voxel"] = "class"
    background_above: float | None = None
    crops_per_case: int = 1
    case_order: Literal["random", "shuffled"] = "random"

    def check_step(self, num_patches: int) -> None:
        """ConfigError if a step of so many patches cannot be filled so."""
        crops = self.crops_per_case
        if num_patches % crops:
            raise ConfigError(
                f"a step of {num_patches} patches (plan.batch_size x train.accumulate) cannot be made of {crops} from "
                f"each case (train.crops_per_case). Set plan.batch_size or train.accumulate to a multiple of {crops}."
            )


@dataclass(frozen=True)
class Place:
    """A patch: case and first voxel, which may lie outside the case; what is outside is padded."""

    case: StoredCase
    start: Shape


def sample_generator(seed: int, number: int) -> np.random.Generator:
    """Generator of training sample `number`."""
    return np.random.default_rng((seed, number))


def draws_foreground(number: int, *, batch_size: int, share: float) -> bool:
    """Whether sample `number` must hold foreground.

    These are the last ones of each batch, as many as in nnU-Net, which rounds the number of the others; unlike there at
    least one if `share` is not 0. In batches of one, samples are chosen evenly so that `share` of them must.
    """
    if batch_size == 1:
        return floor((number + 1) * share) > floor(number * share)
    free = min(round(batch_size * (1 - share)), batch_size - (share > 0))
    return number % batch_size >= free


def draw_sample(
    cases: Sequence[StoredCase],
    patch_size: Shape,
    number: int,
    *,
    sampling: Sampling,
    batch_size: int,
    seed: int,
    generator: np.random.Generator,
) -> Place:
    """Place of training sample `number`, whose own generator is `generator`."""
    case = _draw_case(cases, number, sampling, seed=seed, generator=generator)
    if sampling.foreground_sampling == "voxel":
        return _draw_by_voxel(case, patch_size, sampling, generator)
    foreground = draws_foreground(number, batch_size=batch_size, share=sampling.foreground_share)
    return _draw_by_class(case, patch_size, foreground=foreground, generator=generator)


def draw_place(
    cases: Sequence[StoredCase], patch_size: Shape, *, foreground: bool, generator: np.random.Generator
) -> Place:
    """A random place in a random case; with `foreground`, around a random voxel of a random class of that case.

    A patch lies inside the case where it fits, and is centred where the case is smaller. In a case that is labelled in
    parts, and without `foreground`, the patch lies around a random labelled voxel.
    """
    case = cases[int(generator.integers(len(cases)))]
    return _draw_by_class(case, patch_size, foreground=foreground, generator=generator)


def _draw_case(
    cases: Sequence[StoredCase], number: int, sampling: Sampling, *, seed: int, generator: np.random.Generator
) -> StoredCase:
    """The case of sample `number`: that of the others of its group, if several crops are taken of a case."""
    group = number // sampling.crops_per_case
    if sampling.case_order == "shuffled":
        return cases[shuffled_index(group, len(cases), seed=seed)]
    if sampling.crops_per_case > 1:
        generator = np.random.default_rng((seed, group, _CASE))
    return cases[int(generator.integers(len(cases)))]


def shuffled_index(number: int, count: int, *, seed: int) -> int:
    """Which of `count` things comes as number `number`, where all come once in each round, in another order."""
    rounds, index = divmod(number, count)
    return int(np.random.default_rng((seed, rounds, _ROUND)).permutation(count)[index])


def _draw_by_class(case: StoredCase, patch_size: Shape, *, foreground: bool, generator: np.random.Generator) -> Place:
    """nnU-Net's way: each class of the case is equally likely, and the background is anywhere."""
    if foreground and case.classes:
        position = case.classes[int(generator.integers(len(case.classes)))]
        return _around(case.voxels_of_class(position), case, patch_size, generator)
    if case.partly_labelled:
        return _around(case.labelled_voxels(), case, patch_size, generator)
    return place_anywhere(case, patch_size, generator)


def _draw_by_voxel(case: StoredCase, patch_size: Shape, sampling: Sampling, generator: np.random.Generator) -> Place:
    """MONAI's way (RandCropByPosNegLabel): each voxel of the foreground, or of the background, is equally likely.

    A case that lacks one of them gives the other, and any place if it lacks both.
    """
    foreground = generator.random() < sampling.foreground_share
    for wanted in (foreground, not foreground):
        voxels = case.foreground_voxels() if wanted else case.background_voxels(above=sampling.background_above)
        if len(voxels):
            return _around(voxels, case, patch_size, generator)
    return place_anywhere(case, patch_size, generator)


def _around(
    voxels: npt.NDArray[np.int32], case: StoredCase, patch_size: Shape, generator: np.random.Generator
) -> Place:
    """Patch with one of `voxels` (N, 3) at its centre, or as near to it as the case allows."""
    centre = voxels[int(generator.integers(len(voxels)))]
    wanted = [int(position) - patch // 2 for position, patch in zip(centre, patch_size, strict=True)]
    return place_near(wanted, case, patch_size)


def place_anywhere(case: StoredCase, patch_size: Shape, generator: np.random.Generator) -> Place:
    """A random patch inside `case`; centred along axes where the case is smaller."""
    rooms = [max(size - patch, 0) + 1 for size, patch in zip(case.shape, patch_size, strict=True)]
    return place_near([int(generator.integers(room)) for room in rooms], case, patch_size)


def place_near(wanted: Sequence[int], case: StoredCase, patch_size: Shape) -> Place:
    """The place nearest to `wanted` whose patch lies in the case; centred along axes where the case is smaller."""
    rooms = [size - patch for size, patch in zip(case.shape, patch_size, strict=True)]
    d, h, w = (min(max(first, 0), room) if room >= 0 else room // 2 for first, room in zip(wanted, rooms, strict=True))
    return Place(case, (d, h, w))


def read_place(
    place: Place, patch_size: Shape, *, margin: Shape = (0, 0, 0)
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Image (C, D, H, W) and target (D, H, W) of a place, with `margin` more voxels on each side of the patch.

    Outside the case the image is 0 and the target background.
    """
    inside, pad = _parts(place, patch_size, margin)
    return _padded(place.case.image[(slice(None), *inside)], pad), _padded(place.case.label[tuple(inside)], pad)


def read_image(place: Place, patch_size: Shape) -> npt.NDArray[np.float32]:
    """Image (C, D, H, W) of a place, 0 outside the case."""
    inside, pad = _parts(place, patch_size, (0, 0, 0))
    return _padded(place.case.image[(slice(None), *inside)], pad)


def _parts(place: Place, patch_size: Shape, margin: Shape) -> tuple[list[slice], list[tuple[int, int]]]:
    """What of a place lies inside the case, and how many voxels are missing on each side of it."""
    inside: list[slice] = []
    pad: list[tuple[int, int]] = []
    for start, patch, more, size in zip(place.start, patch_size, margin, place.case.shape, strict=True):
        first, last = start - more, start + patch + more
        inside.append(slice(max(first, 0), min(last, size)))
        pad.append((max(-first, 0), max(last - size, 0)))
    return inside, pad


def _padded(array: npt.NDArray[Any], pad: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """`array` (..., D, H, W) with zeros around it."""
    if not any(before or after for before, after in pad):
        return array
    return np.pad(array, [*[(0, 0)] * (array.ndim - 3), *pad])
