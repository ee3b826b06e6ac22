"""Where training patches come from: drawing a place and reading it are separate.

Sample number n of a training is drawn by a generator seeded with (seed, n) and depends on nothing else. So the number
of workers does not matter, and an interrupted training that continues at sample n sees what it would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Whether sample `number` must hold foreground: the last ones of each batch, at least one if `share` is not 0."""
    forced = max(1, round(batch_size * share)) if share > 0 else 0
    return number % batch_size >= batch_size - forced


def draw_place(
    cases: Sequence[StoredCase], patch_size: Shape, *, foreground: bool, generator: np.random.Generator
) -> Place:
    """A random place in a random case; with `foreground`, around a random voxel of a random class of that case.

    A patch lies inside the case where it fits, and is centred where the case is smaller.
    """
    case = cases[int(generator.integers(len(cases)))]
    shape = case.label.shape
    slack = [size - patch for size, patch in zip(shape, patch_size, strict=True)]
    classes = case.foreground if foreground else {}
    if classes:
        name = sorted(classes)[int(generator.integers(len(classes)))]
        voxel = classes[name][int(generator.integers(len(classes[name])))]
        wanted = [int(position) - patch // 2 for position, patch in zip(voxel, patch_size, strict=True)]
    else:
        wanted = [int(generator.integers(room + 1)) if room > 0 else 0 for room in slack]
    d, h, w = (min(max(first, 0), room) if room >= 0 else room // 2 for first, room in zip(wanted, slack, strict=True))
    return Place(case, (d, h, w))


def read_place(place: Place, patch_size: Shape) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Image (C, D, H, W) and target (D, H, W) of a place; outside the case the image is 0 and the target background."""
    shape = place.case.label.shape
    inside: list[slice] = []
    pad: list[tuple[int, int]] = []
    for first, patch, size in zip(place.start, patch_size, shape, strict=True):
        low, high = max(first, 0), min(first + patch, size)
        inside.append(slice(low, high))
        pad.append((low - first, first + patch - high))
    image: npt.NDArray[Any] = place.case.image[(slice(None), *inside)]
    target: npt.NDArray[Any] = place.case.label[tuple(inside)]
    if any(before or after for before, after in pad):
        image = np.pad(image, [(0, 0), *pad])
        target = np.pad(target, pad)
    return image, target
