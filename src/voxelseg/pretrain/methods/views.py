"""Two looks at one place of a scan, changed so that only what is there is the same; drawing and applying are separate.

C channels, D H W depth, height, width in voxels. Intensities are changed in units of the crop's own standard deviation,
so that the same settings fit scans that are normalised to mean and spread and those that are clipped to [0, 1].
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from voxelseg.geometry import Shape
from voxelseg.pretrain.methods.method import Crops, Sample

Image = npt.NDArray[np.float32]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
PLANES = ((0, 1), (0, 2), (1, 2))


class ViewSettings(BaseModel):
    """How a crop is changed; the defaults are ours, milder than for photographs: an intensity means something here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    flip: Share = 0.5
    """Chance that an axis is mirrored, for each."""
    rotation90: Share = 0.5
    """Chance of a quarter-turn, a half-turn or three quarters, in one of the planes whose two axes have equally many
    voxels, if there are any."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Each channel is multiplied by a factor of up to this much more or less than 1."""
    shift: NotNegative = 0.2
    """To each channel a number is added, of up to this many standard deviations of the crop either way."""
    noise: NotNegative = 0.1
    """Largest standard deviation of Gaussian noise, in those of the crop."""
    blur: NotNegative = 1.0
    """Largest standard deviation of a Gaussian blur in voxels."""
    blur_chance: Share = 0.5
    """Chance of that blur."""
    cutout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Longest side of a box that is set to the mean of the crop, as a share of each axis."""
    cutout_chance: Share = 0.5
    """Chance of that box."""


@dataclass(frozen=True, eq=False)
class ViewChange:
    """What is done to a crop, in this order; the blur comes before the noise, which it would remove."""

    flips: tuple[int, ...]
    """Axes (0 D, 1 H, 2 W) that are mirrored."""
    plane: tuple[int, int]
    """Axes that `quarter_turns` turn."""
    quarter_turns: int
    factors: npt.NDArray[np.float64]
    """For each channel."""
    shifts: npt.NDArray[np.float64]
    """For each channel, in standard deviations."""
    blur: float
    """In voxels; 0 for none."""
    noise: float
    """In standard deviations."""
    noise_seed: int
    box: tuple[slice, slice, slice] | None
    """What is cut out."""


def draw_view(settings: ViewSettings, num_channels: int, size: Shape, generator: np.random.Generator) -> ViewChange:
    """A change of a crop of `size` voxels along D, H, W."""
    planes = [plane for plane in PLANES if size[plane[0]] == size[plane[1]]]
    mirrored = generator.random(3) < settings.flip
    turned = generator.random() < settings.rotation90 and bool(planes)
    plane = planes[int(generator.random() * len(planes))] if planes else PLANES[0]
    turns = int(generator.integers(1, 4))
    scales, shifts = generator.uniform(-1, 1, (2, num_channels))
    blurred, blur = generator.random() < settings.blur_chance, generator.random()
    noise, noise_seed = generator.random(), int(generator.integers(2**32))
    return ViewChange(
        flips=tuple(int(axis) for axis in np.flatnonzero(mirrored)),
        plane=plane,
        quarter_turns=turns if turned else 0,
        factors=1 + settings.scale * scales,
        shifts=settings.shift * shifts,
        blur=settings.blur * blur if blurred else 0.0,
        noise=settings.noise * noise,
        noise_seed=noise_seed,
        box=_draw_box(settings, size, generator),
    )


def _draw_box(settings: ViewSettings, size: Shape, generator: np.random.Generator) -> tuple[slice, slice, slice] | None:
    wanted = generator.random() < settings.cutout_chance
    sides = [round(voxels * settings.cutout * share) for voxels, share in zip(size, generator.random(3), strict=True)]
    starts = [int(share * (n - side + 1)) for share, n, side in zip(generator.random(3), size, sides, strict=True)]
    d, h, w = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return (d, h, w) if wanted and min(sides) > 0 else None


def changed_view(image: Image, change: ViewChange) -> Image:
    """A new image (C, D, H, W) after the change of one (C, D, H, W); a constant crop gets no noise."""
    spread, mean = image.std(axis=(1, 2, 3), keepdims=True), image.mean(axis=(1, 2, 3), keepdims=True)
    view = np.flip(image, tuple(1 + axis for axis in change.flips))
    view = np.rot90(view, change.quarter_turns, (1 + change.plane[0], 1 + change.plane[1]))
    view = view * _by_channel(change.factors) + spread * _by_channel(change.shifts)
    if change.blur:
        view = ndimage.gaussian_filter(view, change.blur, axes=(1, 2, 3))
    noise = np.random.default_rng(change.noise_seed).standard_normal(view.shape, dtype=np.float32)
    view = view + change.noise * spread * noise
    if change.box is not None:
        view[(slice(None), *change.box)] = mean
    return np.ascontiguousarray(view, dtype=np.float32)


def _by_channel(values: npt.NDArray[np.float64]) -> Image:
    return values.astype(np.float32)[:, None, None, None]


@dataclass(frozen=True)
class TwoViews:
    """Draws "first" and "second" (C, D, H, W), overlapping crops, each changed, and the number of their "scan"."""

    settings: ViewSettings

    def __call__(self, crops: Crops, generator: np.random.Generator) -> Sample:
        sample = {"scan": torch.tensor(crops.scan_number)}
        for name, image in zip(("first", "second"), crops.overlapping(generator), strict=True):
            change = draw_view(self.settings, len(image), crops.size, generator)
            sample[name] = torch.from_numpy(changed_view(image, change))
        return sample
