"""What the tests of augmentation share."""

import numpy as np
import torch
from scipy import ndimage

from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.spatial import SpatialChange, draw_spatial

PATCH = (8, 12, 10)
OFF = AugmentationConfig(
    rotation=0,
    scaling=0,
    noise=0,
    blur=0,
    brightness=0,
    contrast=0,
    low_resolution=0,
    inverted_gamma=0,
    gamma=0,
    mirror=False,
)


def drawn(config: AugmentationConfig, number: int = 0, *, mirror_axes=(), anisotropic=False) -> SpatialChange:
    return draw_spatial(config, np.random.default_rng(number), mirror_axes=mirror_axes, anisotropic=anisotropic)


def source_for(change: SpatialChange, seed: int = 0) -> torch.Tensor:
    """Smooth image of the size that `change` reads."""
    shape = [size + 2 * more for size, more in zip(PATCH, change.margin(PATCH), strict=True)]
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, 1.5) * 10).float()[None]


def ones_like_target(image: torch.Tensor) -> torch.Tensor:
    return torch.ones(image.shape[1:], dtype=torch.int16)
