"""Crops of which whole blocks are masked, for the methods that restore these."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape
from voxelseg.pretrain.masks import draw_blocks, num_hidden
from voxelseg.pretrain.methods.method import Crops, Sample

PositiveInt = Annotated[int, Field(gt=0)]
Sides = PositiveInt | tuple[PositiveInt, PositiveInt, PositiveInt]
"""One number for all axes, or one for each of D, H, W."""
USUAL_SIDES = (16, 8, 4, 2)
"""Voxels of a block along an axis, the largest of which FEWEST fit."""
FEWEST = 4


@dataclass(frozen=True)
class MaskedBlocks:
    """Draws "image" (C, D, H, W) and "mask" (1, D, H, W), which is true in the blocks that are masked."""

    block_size: Shape
    """In voxels along D, H, W; the last blocks of an axis may be cut off by the crop's end."""
    share: float
    """Of the blocks that are masked."""

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        image = crops.random(generator)
        mask = draw_blocks(crops.size, self.block_size, self.share, generator)
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)[None]}


def masked_blocks(section: str, key: str, sides: Sides | None, share: float, crop_size: Shape) -> MaskedBlocks:
    """Blocks of these sides, or without them of usual ones: 16 voxels, or along a short axis 8, 4 or 2, so that 4 fit.

    ConfigError, which names the setting `key` of `section`, unless some block of a crop stays visible.
    """
    block_size = usual_blocks(crop_size) if sides is None else as_shape(sides)
    number = prod(ceil(size / block) for size, block in zip(crop_size, block_size, strict=True))
    if num_hidden(number, share) == number:
        raise ConfigError(
            f"{section}.{key}: a crop of {' x '.join(map(str, crop_size))} voxels has {number} "
            f"block{'' if number == 1 else 's'} of {' x '.join(map(str, block_size))}, and {section}.share={share:g} "
            f"masks all of them. Choose smaller blocks, as in {section}.{key}={max(1, max(block_size) // 2)}, a "
            "smaller share, or a larger crop (plan.patch_size)."
        )
    return MaskedBlocks(block_size, share)


def usual_blocks(crop_size: Shape) -> Shape:
    """Voxels of a block along D, H, W if nothing else is said."""
    d, h, w = (next((side for side in USUAL_SIDES if FEWEST * side <= voxels), 1) for voxels in crop_size)
    return (d, h, w)


def as_shape(sides: Sides) -> Shape:
    """One number for each of D, H, W."""
    return (sides, sides, sides) if isinstance(sides, int) else sides
