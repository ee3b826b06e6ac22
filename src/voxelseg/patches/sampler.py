"""Where training patches come from: drawing a place and reading it are separate.

Sample number n of a training is drawn by a generator seeded with (seed, n) and depends on nothing else. So the number
of workers does not matter, and an interrupted training that continues at sample n sees what it would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import numpy.typing as npt

from voxelseg.geometry import Shape
from voxelseg.preprocess.store import StoredCase


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


def draw_place(
    cases: Sequence[StoredCase], patch_size: Shape, *, foreground: bool, generator: np.random.Generator
) -> Place:
    """A random place in a random case; with `foreground`, around a random voxel of a random class of that case.

    A patch lies inside the case where it fits, and is centred where the case is smaller. In a case that is labelled in
    parts, and without `foreground`, the patch lies around a random labelled voxel.
    """
    case = cases[int(generator.integers(len(cases)))]
    slack = [size - patch for size, patch in zip(case.shape, patch_size, strict=True)]
    if foreground and case.classes:
        wanted = _around(
            case.voxels_of_class(case.classes[int(generator.integers(len(case.classes)))]), patch_size, generator
        )
    elif case.partly_labelled:
        wanted = _around(case.labelled_voxels(), patch_size, generator)
    else:
        wanted = [int(generator.integers(max(room, 0) + 1)) for room in slack]
    d, h, w = (min(max(first, 0), room) if room >= 0 else room // 2 for first, room in zip(wanted, slack, strict=True))
    return Place(case, (d, h, w))


def _around(voxels: npt.NDArray[np.int32], patch_size: Shape, generator: np.random.Generator) -> list[int]:
    """First voxel of a patch with one of `voxels` (N, 3) at its centre."""
    centre = voxels[int(generator.integers(len(voxels)))]
    return [int(position) - patch // 2 for position, patch in zip(centre, patch_size, strict=True)]


def read_place(
    place: Place, patch_size: Shape, *, margin: Shape = (0, 0, 0)
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Image (C, D, H, W) and target (D, H, W) of a place, with `margin` more voxels on each side of the patch.

    Outside the case the image is 0 and the target background.
    """
    inside: list[slice] = []
    pad: list[tuple[int, int]] = []
    for start, patch, more, size in zip(place.start, patch_size, margin, place.case.shape, strict=True):
        first, last = start - more, start + patch + more
        inside.append(slice(max(first, 0), min(last, size)))
        pad.append((max(-first, 0), max(last - size, 0)))
    image = place.case.image[(slice(None), *inside)]
    target = place.case.label[tuple(inside)]
    if any(before or after for before, after in pad):
        image = np.pad(image, [(0, 0), *pad])
        target = np.pad(target, pad)
    return image, target
