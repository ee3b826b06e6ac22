"""What a pretext task hides of a crop: patches in chains of neighbouring slices, or blocks.

Chains follow Masked LoGoNet (Karimi Monsefi et al., KDD 2024, Sec. 3.3.1 and code): a seed slice and those before it
are masked together, so that the next visible slice is far, and each slice has patches of a size of its own.
Z slices across the slice axis, X Y size of a slice in voxels, Q seeds, m slices of a chain.
"""

from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape

Mask = npt.NDArray[np.bool_]
PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]

_ROUNDING = 1e-9  # 0.29 x 100 is 28.999999999999996


class MaskSettings(BaseModel):
    """What is hidden of each crop; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    kind: Literal["chains", "blocks"] = "chains"
    """chains: patches in runs of neighbouring slices. blocks: boxes anywhere in the crop."""
    seeds: Literal["exact", "bernoulli"] = "exact"
    """Of chains: exact draws as many seed slices for each crop as `seed_share` says, rounded down, and one at least;
    bernoulli lets each slice be a seed with this probability, and draws one where none is."""
    seed_share: Share = 0.1
    """Of chains: share of the slices that end a chain (phi1)."""
    chain_length: PositiveInt = 5
    """Of chains: slices of a chain, the seed being the last (m); chains are cut off where the crop begins."""
    patch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 96)
    """Of chains: sides of the square patches in voxels, of which each slice draws one; see `usable_sizes`."""
    hidden_share: Share = 0.7
    """Probability with which each patch of a masked slice is hidden (phi2); of blocks, the share that is hidden."""
    ensure_masked: bool = False
    """Of chains: whether a masked slice hides one patch at least. In the paper a slice of a single patch stays as it is
    with probability 1 - `hidden_share`, and counts in the loss nevertheless."""
    block_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 16, 16)
    """Of blocks: voxels along D, H, W; those at the far ends are cut off where it does not divide the crop."""

    @model_validator(mode="after")
    def _without_idle_keys(self) -> "MaskSettings":
        chains = {"seeds", "seed_share", "chain_length", "patch_sizes", "ensure_masked"}
        idle = {"block_size"} if self.kind == "chains" else chains
        if given := sorted(name for name in idle if getattr(self, name) != type(self).model_fields[name].default):
            raise ValueError(f"masks of the kind {self.kind} have no {', '.join(given)}. Leave it out")
        if len(set(self.patch_sizes)) != len(self.patch_sizes):
            raise ValueError("patch_sizes names a size twice")
        return self

    def check(self, crop_size: Shape, slice_axis: int) -> None:
        """ConfigError if a single chain, or the hidden share of the blocks, can take up all of a crop of this size."""
        slices = crop_size[slice_axis]
        if self.kind == "chains" and slices <= self.chain_length:
            raise ConfigError(
                f"a chain of {self.chain_length} masked slices can hide all {slices} slices of a crop along "
                f"{'DHW'[slice_axis]}. Shorten the chains (chain_length in masked_clusters.mask), choose another "
                "pretrain.slice_axis, or make crops larger there (plan.patch_size)."
            )
        blocks = prod(_num_cells(crop_size, self.block_size))
        if self.kind == "blocks" and num_hidden(blocks, self.hidden_share) == blocks:
            raise ConfigError(
                f"{blocks} block(s) of {_by(self.block_size)} voxels make a crop of {_by(crop_size)}, and a share of "
                f"{self.hidden_share:g} hides all of them. Choose smaller blocks (block_size in masked_clusters.mask)."
            )


@dataclass(frozen=True, eq=False)
class CropMask:
    """What is hidden of one crop."""

    hidden: Mask
    """Voxels (D, H, W), the same in all channels."""
    slices: Mask
    """Slices (Z,) whose recovery is asked for: those of the chains, or those with a hidden block."""


def draw_mask(settings: MaskSettings, crop_size: Shape, slice_axis: int, generator: np.random.Generator) -> CropMask:
    """Mask of a crop of `crop_size` whose slices follow one another along `slice_axis`."""
    if settings.kind == "blocks":
        hidden = draw_blocks(crop_size, settings.block_size, settings.hidden_share, generator)
        in_slice = tuple(axis for axis in range(3) if axis != slice_axis)
        return CropMask(hidden, np.asarray(hidden.any(axis=in_slice)))
    chosen = _draw_chains(settings, crop_size[slice_axis], generator)
    height, width = (size for axis, size in enumerate(crop_size) if axis != slice_axis)
    hidden = np.zeros((chosen.size, height, width), dtype=bool)
    hidden[chosen] = _draw_patches(settings, int(chosen.sum()), (height, width), generator)
    return CropMask(np.ascontiguousarray(np.moveaxis(hidden, 0, slice_axis)), chosen)


def draw_blocks(
    crop_size: Shape, block_size: Shape, hidden_share: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Hidden voxels (D, H, W): `hidden_share` of the blocks that the crop is cut into, drawn without replacement."""
    cells = _num_cells(crop_size, block_size)
    hidden = np.zeros(prod(cells), dtype=bool)
    hidden[generator.choice(hidden.size, num_hidden(hidden.size, hidden_share), replace=False)] = True
    voxels = hidden.reshape(cells)
    for axis, (size, block) in enumerate(zip(crop_size, block_size, strict=True)):
        voxels = np.repeat(voxels, block, axis=axis).take(range(size), axis=axis)
    return np.ascontiguousarray(voxels)


def num_hidden(num_blocks: int, hidden_share: float) -> int:
    """How many of so many blocks are hidden; one at least."""
    return max(1, round(hidden_share * num_blocks))


def usable_sizes(sizes: tuple[int, ...], slice_size: tuple[int, int]) -> tuple[int, ...]:
    """Patch sizes for slices (X, Y): those that divide both axes, and those that hold the whole slice in one patch.

    Where none but single voxels divides both, every size is used and the patches at the far ends are cut off: single
    voxels alone would be recovered from their neighbours.
    """
    dividing = [size for size in sizes if all(axis % size == 0 for axis in slice_size)]
    if not dividing or dividing == [1]:
        return sizes
    return tuple(size for size in sizes if size in dividing or size >= max(slice_size))


def _draw_chains(settings: MaskSettings, num_slices: int, generator: np.random.Generator) -> Mask:
    """Masked slices (Z,): the union of all chains."""
    if settings.seeds == "exact":
        count = max(1, floor(settings.seed_share * num_slices + _ROUNDING))
        seeds = generator.choice(num_slices, count, replace=False)
    else:
        seeds = np.flatnonzero(generator.random(num_slices) < settings.seed_share)
        if not seeds.size:
            seeds = generator.integers(num_slices, size=1)
    members = seeds[:, None] - np.arange(settings.chain_length)  # (Q, m)
    chosen = np.zeros(num_slices, dtype=bool)
    chosen[members[members >= 0]] = True
    return chosen


def _draw_patches(
    settings: MaskSettings, num_slices: int, slice_size: tuple[int, int], generator: np.random.Generator
) -> Mask:
    """Hidden voxels (slices, X, Y), every slice cut into patches of a size that is drawn for it."""
    sizes = usable_sizes(settings.patch_sizes, slice_size)
    size_of = generator.integers(len(sizes), size=num_slices)
    hidden = np.empty((num_slices, *slice_size), dtype=bool)
    for index, size in enumerate(sizes):
        (slices,) = np.nonzero(size_of == index)
        rows, columns = (ceil(axis / size) for axis in slice_size)
        patches = generator.random((slices.size, rows, columns)) < settings.hidden_share
        if settings.ensure_masked:
            one = generator.integers(rows * columns, size=slices.size)
            seen = np.flatnonzero(~patches.any(axis=(1, 2)))
            patches.reshape(slices.size, rows * columns)[seen, one[seen]] = True
        voxels = patches.repeat(size, axis=1)[:, : slice_size[0]].repeat(size, axis=2)[:, :, : slice_size[1]]
        hidden[slices] = voxels
    return hidden


def _num_cells(crop_size: Shape, block_size: Shape) -> Shape:
    d, h, w = (ceil(size / block) for size, block in zip(crop_size, block_size, strict=True))
    return (d, h, w)


def _by(size: Shape) -> str:
    return " x ".join(map(str, size))
