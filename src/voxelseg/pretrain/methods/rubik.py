"""Restore a volume whose slabs were turned like those of a Rubik's cube (Tao et al., MICCAI 2020, arXiv:2007.08826).

B batch, C channels, D H W depth, height, width in voxels.
A crop is cut into sub-cubes. A move turns one slab of them, all that lie at one place along an axis, about that axis:
each sub-cube goes to another place and turns on the way, as on the toy. The network restores the crop from the result
of several moves, through a pointwise convolution.

Unlike the paper: there is no discriminator whose judgement is part of the loss. It would need an optimizer, and a place
in what is saved, of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape
from voxelseg.pretrain.methods.blocks import PositiveInt, Sides, as_shape
from voxelseg.pretrain.methods.method import Crops, Method, Prepared, Sample, Surroundings
from voxelseg.pretrain.methods.reconstruction import Norm, Restoring


class RubikConfig(BaseModel):
    """How a crop is disarranged; the defaults are ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    cubes: Sides | None = None
    """Sub-cubes along each axis, or along D, H, W; each number must divide the crop's size there. None: 4, or where
    that does not, 3 or 2, or a single one."""
    moves: PositiveInt = 8
    """Slabs that are turned, one after the other."""
    loss: Norm = "l1"
    """Mean absolute or mean squared error of the restored voxels."""


@dataclass(frozen=True)
class Move:
    """A turn of one slab of sub-cubes."""

    axis: int
    """0 to 2, D, H, W: the axis that it turns about, and along which slabs are counted."""
    slab: int
    quarter_turns: int
    """1, 2 or 3, in the plane of the two other axes."""


def possible_turns(crop_size: Shape, cubes: Shape, axis: int) -> tuple[int, ...]:
    """Quarter-turns about `axis` after which the sub-cubes lie on the grid again: a half-turn always does.

    None about an axis with a single slab: the whole crop would turn.
    """
    first, second = (other for other in range(3) if other != axis)
    if cubes[axis] == 1:
        return ()
    square = crop_size[first] == crop_size[second] and cubes[first] == cubes[second]
    return (1, 2, 3) if square else (2,)


def draw_moves(crop_size: Shape, cubes: Shape, number: int, generator: np.random.Generator) -> list[Move]:
    """So many moves, each about any axis that has several slabs, of any slab, by any turn that is possible there."""
    axes = [axis for axis in range(3) if cubes[axis] > 1]
    moves = []
    for _ in range(number):
        axis = axes[generator.integers(len(axes))]
        turns = possible_turns(crop_size, cubes, axis)
        slab, turn = int(generator.integers(cubes[axis])), turns[generator.integers(len(turns))]
        moves.append(Move(axis, slab, turn))
    return moves


def moved(image: Tensor, move: Move, cubes: Shape) -> Tensor:
    """A copy of the image (C, D, H, W) after the move."""
    thickness = image.shape[1 + move.axis] // cubes[move.axis]
    result = image.clone()
    slab = result.narrow(1 + move.axis, move.slab * thickness, thickness)
    first, second = (1 + other for other in range(3) if other != move.axis)
    slab.copy_(slab.rot90(move.quarter_turns, (first, second)))  # rot90 returns a copy
    return result


@dataclass(frozen=True)
class DisarrangedCrops:
    """Draws "image" and, after the moves, "mixed", both (C, D, H, W)."""

    cubes: Shape
    moves: int

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        image = mixed = torch.from_numpy(crops.random(generator))
        for move in draw_moves(crops.size, self.cubes, self.moves, generator):
            mixed = moved(mixed, move, self.cubes)
        return {"image": image, "mixed": mixed}


class Rubik(Restoring):
    """A network, and the head that restores the crop."""

    def restored(self, batch: Sample) -> Tensor:
        """The crops (B, C, D, H, W) as they were."""
        restored: Tensor = self.head(self.backbone.features(batch["mixed"]))
        return restored

    def guesses(self, batch: Sample) -> Mapping[str, Tensor]:
        """The mean of the crop, which the moves do not change, and to leave all as it is."""
        return {
            "the mean": batch["image"].mean((2, 3, 4), keepdim=True),
            "the disarranged crop": batch["mixed"],
        }

    def pictures(self, batch: Sample) -> dict[str, Tensor]:
        """A crop, what the moves made of it, and what is restored."""
        restored = self.restored(batch)
        return {"Scan": batch["image"][0, 0], "Disarranged": batch["mixed"][0, 0], "Restored": restored[0, 0]}


def prepare(settings: RubikConfig, surroundings: Surroundings) -> Prepared:
    """The method; ConfigError for sub-cubes that the crop cannot be cut into."""
    size = surroundings.crop_size
    cubes = _usual_cubes(size) if settings.cubes is None else as_shape(settings.cubes)
    if any(voxels % number for voxels, number in zip(size, cubes, strict=True)):
        raise ConfigError(
            f"rubik.cubes={list(cubes)}: a crop of {_by(size)} voxels cannot be cut into so many equal sub-cubes. "
            f"Along D, H, W there can be {_divisors(size)}; or change the crop (plan.patch_size)."
        )
    if max(cubes) == 1:
        raise ConfigError(
            f"rubik.cubes: a single cube has no slabs to turn. Set 2 or more along some axis. A crop of {_by(size)} "
            f"voxels can have {_divisors(size)} along D, H, W; or change the crop (plan.patch_size)."
        )
    return Prepared(
        drawer=DisarrangedCrops(cubes, settings.moves),
        build=partial(Rubik, num_channels=surroundings.num_channels, norm=settings.loss),
        record={"trained": "all", "cubes": list(cubes)},
    )


def _usual_cubes(size: Shape) -> Shape:
    d, h, w = (next(number for number in (4, 3, 2, 1) if voxels % number == 0) for voxels in size)
    return (d, h, w)


def _by(size: Shape) -> str:
    return " x ".join(map(str, size))


def _divisors(size: Shape) -> str:
    return "; ".join(", ".join(str(n) for n in range(1, 9) if voxels % n == 0) for voxels in size)


METHOD = Method(
    settings=RubikConfig,
    prepare=prepare,
    summary="restore a crop whose slabs were turned like those of a Rubik's cube",
    source="Tao et al., MICCAI 2020, arXiv:2007.08826",
)
