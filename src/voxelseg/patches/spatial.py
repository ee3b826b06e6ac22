"""Rotation, scaling, mirroring and quarter turns of a patch; drawing and applying are separate.

They are done here, not by a library, so that they can read beyond the patch where they need it instead of filling
corners with zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from voxelseg.geometry import Shape
from voxelseg.patches.augmentation import AugmentationConfig

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpatialChange:
    """What is done to the geometry of one sample."""

    matrix: Matrix | None
    """(3, 3): offset from the patch's centre in the result to the offset in the source, in voxels; None for none."""
    flips: tuple[int, ...]
    """Axes (0 D, 1 H, 2 W) that are mirrored."""
    quarter_turns: int = 0
    """After mirroring, in the plane of `rotation90_axes`."""

    def margin(self, patch_size: Shape) -> Shape:
        """Voxels beyond each side of the patch that the result takes values from."""
        if self.matrix is None:
            return (0, 0, 0)
        half = np.asarray(patch_size) / 2
        d, h, w = (max(0, ceil(beyond - 1e-6)) for beyond in np.abs(self.matrix) @ half - half)
        return (d, h, w)


def draw_spatial(
    config: AugmentationConfig, generator: np.random.Generator, *, mirror_axes: tuple[int, ...], anisotropic: bool
) -> SpatialChange:
    """Draw rotation, scaling and mirroring; with `anisotropic` they stay in plane (mirroring as `mirror_axes` say)."""
    rotates, scales = generator.random() < config.rotation, generator.random() < config.scaling
    largest = np.deg2rad(config.rotation_degrees_in_plane if anisotropic else config.rotation_degrees)
    angles = generator.uniform(-largest, largest, size=3) * rotates
    factors = _draw_scale(config, generator) if scales else np.ones(3)
    coins = generator.random(len(mirror_axes)) < config.mirror_probability
    flips = tuple(axis for axis, coin in zip(mirror_axes, coins, strict=True) if config.mirror and coin)
    turned = config.rotation90 > 0 and generator.random() < config.rotation90
    quarter_turns = int(generator.integers(1, 4)) if turned else 0
    if not rotates and not scales:
        return SpatialChange(None, flips, quarter_turns)
    matrix = _rotation(0, angles[0])
    if anisotropic:
        factors[0] = 1.0
    else:
        matrix = matrix @ _rotation(1, angles[1]) @ _rotation(2, angles[2])
    return SpatialChange(matrix * factors, flips, quarter_turns)  # scaled first, in the result's axes


def _draw_scale(config: AugmentationConfig, generator: np.random.Generator) -> Matrix:
    """Factors (3,) along D, H, W."""
    low, high = config.scaling_range
    factors = []
    for _ in range(3 if config.scaling_per_axis else 1):
        bounds = (low, high)
        if config.scaling_balanced:
            bounds = (low, 1.0) if generator.random() < 0.5 else (1.0, high)
        factors.append(generator.uniform(*bounds))
    return np.array(factors * (3 // len(factors)))


def _rotation(axis: int, angle: float) -> Matrix:
    """Rotation about one axis by `angle` in radians."""
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


_DEFAULTS = AugmentationConfig()
_TORCH_PADDING = {"scan": "zeros", "zeros": "zeros", "border": "border", "reflection": "reflection"}
_SCIPY_PADDING = {"scan": "constant", "zeros": "constant", "border": "nearest", "reflection": "reflect"}


def apply_spatial(
    change: SpatialChange,
    image: Tensor,
    target: Tensor,
    patch_size: Shape,
    *,
    config: AugmentationConfig = _DEFAULTS,
    masked_channels: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Image (C, D, H, W) and target (D, H, W) of `patch_size` from ones that are larger by the change's margin.

    By default the image is interpolated linearly. Each value of the target is, too, and the strongest wins, so that
    borders of both move alike. What lies outside the source is 0 in both. `config` may have it otherwise.
    `masked_channels` are those whose background is 0: cubic splines, which ring there, leave it 0.
    """
    if change.matrix is not None:
        lines = [torch.arange(length, dtype=torch.float32) - (length - 1) / 2 for length in patch_size]
        offsets = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)  # (D, H, W, 3)
        source = offsets @ torch.from_numpy(change.matrix.T).float()
        grid = (source * 2 / torch.tensor(image.shape[1:], dtype=torch.float32)).flip(-1)[None]  # W, H, D from -1 to 1
        padding = _TORCH_PADDING[config.outside]
        if config.image_order == 1:
            image = F.grid_sample(image[None], grid, padding_mode=padding, align_corners=False)[0]
        else:
            channels = list(masked_channels)
            inside = F.grid_sample(
                (image[channels] != 0).float()[None], grid, padding_mode=padding, align_corners=False
            )
            image = _cubic(image, source, mode=_SCIPY_PADDING[config.outside])
            image[channels] = image[channels].masked_fill(inside[0] < 0.5, 0)
        target = _sampled_target(target, grid, order=config.label_order, padding=padding)
    dims = [1 + axis for axis in change.flips]
    if dims:
        image, target = image.flip(dims), target[None].flip(dims)[0]
    if change.quarter_turns:
        first, second = config.rotation90_axes
        image = image.rot90(change.quarter_turns, (1 + first, 1 + second))
        target = target.rot90(change.quarter_turns, (first, second))
    return image, target


def _cubic(image: Tensor, source: Tensor, *, mode: str) -> Tensor:
    """Image (C, D, H, W) by cubic splines at the offsets `source` (D, H, W, 3) from its centre, in voxels."""
    centre = (torch.tensor(image.shape[1:], dtype=torch.float32) - 1) / 2
    places = (source + centre).movedim(-1, 0).numpy()
    channels = [ndimage.map_coordinates(channel.numpy(), places, order=3, mode=mode) for channel in image]
    return torch.from_numpy(np.stack(channels))


def _sampled_target(target: Tensor, grid: Tensor, *, order: int, padding: str) -> Tensor:
    def sampled(values: Tensor, mode: str = "bilinear") -> Tensor:
        return F.grid_sample(values.float()[None, None], grid, mode, padding_mode=padding, align_corners=False)[0, 0]

    if order == 0:
        return sampled(target, "nearest").to(target.dtype)
    strongest = 1 + sampled((target == 0).float() - 1)  # what lies outside counts as background
    result = torch.zeros(grid.shape[1:4], dtype=target.dtype)
    for value in torch.unique(target):
        if value == 0:
            continue
        share = sampled(target == value)
        result = torch.where(share > strongest, value, result)
        strongest = torch.maximum(share, strongest)
    return result
