"""A network applied to a whole volume: overlapping windows, weighted towards their centres or alike.

Even and stepped windows are equally many unless a step is no whole number of voxels. Between them a voxel lies at other
places within its windows, mostly near the end of an axis, where stepped windows overlap more; networks see less context
near a window's edge, so that scores may differ a little. Even ones keep every voxel as far from edges as they can.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from voxelseg.geometry import Shape

Placement = Literal["even", "stepped"]
Weighting = Literal["gaussian", "constant"]
Average = Literal["probabilities", "logits"]


def window_starts(size: int, window: int, overlap: float, placement: Placement = "even") -> list[int]:
    """First voxels of the windows along one axis; neighbours share `overlap` of a window, or more.

    Even windows are spread from end to end as in nnU-Net; as starts are whole voxels, two of them may share one voxel
    less. Stepped ones lie a step of whole voxels apart, and the last ends with the axis, as in MONAI.
    """
    if size <= window:
        return [0]
    step = max(1.0, window * (1 - overlap))
    if placement == "stepped":
        return [*range(0, size - window, int(step)), size - window]
    count = int(-(-(size - window) // step)) + 1
    return [round(index * (size - window) / (count - 1)) for index in range(count)]


def window_weights(window: Shape, weighting: Weighting) -> Tensor:
    """Weights (D, H, W) of a window's voxels."""
    return gaussian_weights(window) if weighting == "gaussian" else torch.ones(window)


@lru_cache(maxsize=8)
def gaussian_weights(window: Shape) -> Tensor:
    """Weights (D, H, W) with maximum 1 at the centre and a standard deviation of an eighth of the window.

    Never 0, so that every voxel counts (Isensee et al. 2021).
    """
    lines = []
    for size in window:
        position = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        lines.append(torch.exp(-0.5 * (position / (size / 8)) ** 2))
    weights = lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]
    weights = weights / weights.max()
    return weights.clamp(min=1e-3)


def predict_volume(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: Shape,
    overlap: float,
    placement: Placement = "even",
    weighting: Weighting = "gaussian",
    mirror_axes: Sequence[int] = (),
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Weighted mean of `network` over all windows of `image` (C, D, H, W): (K, D, H, W) on the CPU, float32.

    `network` maps (B, C, D, H, W) to (B, K, D, H, W), on `device`; what it returns is averaged, and means of logits are
    not the logits of mean probabilities. Volumes smaller than the window are padded by 0, and the result is cropped
    back. With `mirror_axes` (0 D, 1 H, 2 W) each window is averaged over all its mirrored versions. `progress` is
    called with the share that is done.
    """
    shape = image.shape[1:]
    missing = [max(0, size - have) for size, have in zip(window, shape, strict=True)]
    before = [lack // 2 for lack in missing]
    pads = [(first, lack - first) for first, lack in zip(before, missing, strict=True)]
    padded = F.pad(image, [pad for pair in reversed(pads) for pad in pair]) if any(missing) else image
    starts = [
        window_starts(size, extent, overlap, placement) for size, extent in zip(padded.shape[1:], window, strict=True)
    ]
    places = list(product(*starts))
    flips = [axes for count in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, count)]
    weights = window_weights(window, weighting)
    total: Tensor | None = None
    weight_sum = torch.zeros(padded.shape[1:])
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        slices = [tuple(slice(at, at + size) for at, size in zip(place, window, strict=True)) for place in chosen]
        batch = torch.stack([padded[(slice(None), *part)] for part in slices]).to(device, torch.float32)
        result = _mirrored_mean(network, batch, flips).float().cpu()
        if total is None:
            total = torch.zeros(result.shape[1], *padded.shape[1:])
        for values, part in zip(result, slices, strict=True):
            total[(slice(None), *part)] += values * weights
            weight_sum[part] += weights
        if progress is not None:
            progress(min(1.0, (first + len(chosen)) / len(places)))
    assert total is not None
    total /= weight_sum
    crop = tuple(slice(first, first + size) for first, size in zip(before, shape, strict=True))
    return total[(slice(None), *crop)]


def _mirrored_mean(network: Callable[[Tensor], Tensor], batch: Tensor, flips: Sequence[Sequence[int]]) -> Tensor:
    total: Tensor | None = None
    for axes in flips:
        dims = [2 + axis for axis in axes]
        result = network(batch.flip(dims)).flip(dims) if dims else network(batch)
        total = result if total is None else total + result
    assert total is not None
    return total / len(flips)
