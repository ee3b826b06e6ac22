"""nnU-Net's augmentation; every probability and range is a setting.

Rotation, scaling and mirroring are done here, so that they can read beyond the patch where they need it instead of
filling corners with zeros, and so that drawing and applying are separate. Intensities are changed by batchgeneratorsv2.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from voxelseg.geometry import Shape

Matrix = npt.NDArray[np.float64]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("expected the lower bound before the upper bound")
    return value


def _around_1(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= 1 <= value[1]:
        raise ValueError("expected a range of factors that includes 1")
    return value


Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Range = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ascending)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
FactorRange = Annotated[tuple[Positive, Positive], AfterValidator(_around_1)]


class AugmentationConfig(BaseModel):
    """Defaults are nnU-Net v2's (nnUNetTrainer.get_training_transforms); probabilities are per sample."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """Whether anything is changed at all."""
    rotation: Probability = 0.2
    """Probability of a rotation about all three axes; about D only, in plane, if the data are anisotropic."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest angle about each axis where the data are isotropic."""
    rotation_degrees_in_plane: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Largest angle about D where the data are anisotropic."""
    scaling: Probability = 0.2
    """Probability that the patch shows a larger or smaller part of the scan."""
    scaling_range: PositiveRange = (0.7, 1.4)
    """Size of that part relative to the patch: above 1, structures get smaller."""
    noise: Probability = 0.1
    """Probability of Gaussian noise."""
    noise_std: Range = (0.0, 0.1)
    """Standard deviation of the noise, in normalised intensities."""
    blur: Probability = 0.2
    """Probability of a Gaussian blur, which then takes each channel with probability 1/2."""
    blur_sigma: PositiveRange = (0.5, 1.0)
    """Standard deviation of the blur in voxels."""
    brightness: Probability = 0.15
    """Probability that intensities are multiplied by a factor."""
    brightness_range: FactorRange = (0.75, 1.25)
    """Of that factor."""
    contrast: Probability = 0.15
    """Probability that the distance of intensities from their mean is multiplied by a factor."""
    contrast_range: FactorRange = (0.75, 1.25)
    """Of that factor."""
    low_resolution: Probability = 0.25
    """Probability of sampling down and up again, which then takes each channel with probability 1/2."""
    low_resolution_zoom: PositiveRange = (0.5, 1.0)
    """Resolution that is left, relative to the patch's."""
    inverted_gamma: Probability = 0.1
    """Probability of a gamma correction of the inverted intensities."""
    gamma: Probability = 0.3
    """Probability of a gamma correction, apart from the inverted one."""
    gamma_range: FactorRange = (0.7, 1.5)
    """Exponent of both corrections."""
    mirror: bool = True
    """Mirror along the plan's mirror axes, each with probability 1/2."""


@dataclass(frozen=True, eq=False)
class SpatialChange:
    """What is done to the geometry of one sample."""

    matrix: Matrix | None
    """(3, 3): offset from the patch's centre in the result to the offset in the source, in voxels; None for none."""
    flips: tuple[int, ...]
    """Axes (0 D, 1 H, 2 W) that are mirrored."""

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
    scale = generator.uniform(*config.scaling_range) if scales else 1.0
    coins = generator.random(len(mirror_axes))
    flips = tuple(axis for axis, coin in zip(mirror_axes, coins, strict=True) if config.mirror and coin < 0.5)
    if not rotates and not scales:
        return SpatialChange(None, flips)
    if anisotropic:
        return SpatialChange(_rotation(0, angles[0]) @ np.diag([1.0, scale, scale]), flips)
    matrix = _rotation(0, angles[0]) @ _rotation(1, angles[1]) @ _rotation(2, angles[2]) * scale
    return SpatialChange(matrix, flips)


def _rotation(axis: int, angle: float) -> Matrix:
    """Rotation about one axis by `angle` in radians."""
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def apply_spatial(change: SpatialChange, image: Tensor, target: Tensor, patch_size: Shape) -> tuple[Tensor, Tensor]:
    """Image (C, D, H, W) and target (D, H, W) of `patch_size` from ones that are larger by the change's margin.

    The image is interpolated linearly. Each value of the target is, too, and the strongest wins, so that borders of
    both move alike. What lies outside the source is 0 in both.
    """
    if change.matrix is not None:
        size = torch.tensor(image.shape[1:], dtype=torch.float32)
        lines = [torch.arange(length, dtype=torch.float32) - (length - 1) / 2 for length in patch_size]
        offsets = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)  # (D, H, W, 3)
        source = offsets @ torch.from_numpy(change.matrix.T).float()
        grid = (source * 2 / size).flip(-1)[None]  # grid_sample wants W, H, D from -1 to 1
        image = F.grid_sample(image[None], grid, align_corners=False)[0]
        target = _sampled_target(target, grid)
    dims = [1 + axis for axis in change.flips]
    return (image.flip(dims), target[None].flip(dims)[0]) if dims else (image, target)


def _sampled_target(target: Tensor, grid: Tensor) -> Tensor:
    def sampled(mask: Tensor) -> Tensor:
        return F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]

    strongest = 1 + sampled((target == 0).float() - 1)  # what lies outside counts as background
    result = torch.zeros(grid.shape[1:4], dtype=target.dtype)
    for value in torch.unique(target):
        if value == 0:
            continue
        share = sampled((target == value).float())
        result = torch.where(share > strongest, value, result)
        strongest = torch.maximum(share, strongest)
    return result


def intensity_transform(config: AugmentationConfig, patch_size: Shape, *, anisotropic: bool) -> BasicTransform:
    """Transform of {"image": (C, D, H, W) float tensor}.

    It draws from NumPy's and torch's global generators; `seeded` makes it repeatable.
    """
    steps: list[BasicTransform] = []
    too_thin = [size * config.low_resolution_zoom[0] < 1 for size in patch_size]
    kept = [axis for axis in range(3) if too_thin[axis] or (anisotropic and axis == 0)]

    def sometimes(probability: float, transform: BasicTransform) -> None:
        if probability > 0:
            steps.append(RandomTransform(transform, apply_probability=probability))

    # What the library calls the variance is the standard deviation that it draws with (0.3.6).
    sometimes(config.noise, GaussianNoiseTransform(config.noise_std, p_per_channel=1, synchronize_channels=True))
    sometimes(
        config.blur,
        GaussianBlurTransform(
            partial(_blur_sigma, bounds=config.blur_sigma),
            synchronize_channels=False,
            synchronize_axes=False,
            p_per_channel=0.5,
        ),
    )
    sometimes(
        config.brightness,
        MultiplicativeBrightnessTransform(BGContrast(config.brightness_range), synchronize_channels=False),
    )
    sometimes(
        config.contrast,
        ContrastTransform(BGContrast(config.contrast_range), preserve_range=True, synchronize_channels=False),
    )
    sometimes(
        config.low_resolution,
        SimulateLowResolutionTransform(
            scale=config.low_resolution_zoom,
            synchronize_channels=False,
            synchronize_axes=True,
            ignore_axes=tuple(kept) or None,
            allowed_channels=None,
            p_per_channel=0.5,
        ),
    )
    for probability, inverted in ((config.inverted_gamma, 1), (config.gamma, 0)):
        sometimes(
            probability,
            GammaTransform(
                gamma=BGContrast(config.gamma_range),
                p_invert_image=inverted,
                synchronize_channels=False,
                p_per_channel=1,
                p_retain_stats=1,
            ),
        )
    return ComposeTransforms(steps)


def _blur_sigma(shape: Shape, *, dim: int, bounds: tuple[float, float]) -> float:
    """Sigma in voxels; next to nothing along an axis that the kernel, which reaches 3 sigma, cannot be mirrored in."""
    return 0.1 if shape[dim] <= 3 * bounds[1] + 0.25 else np.random.uniform(*bounds)  # noqa: NPY002


@contextmanager
def seeded(generator: np.random.Generator) -> Iterator[None]:
    """Seed the global generators of NumPy and torch from `generator` for a while, then put their states back."""
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed = int(generator.integers(2**32))
    try:
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def change_intensities(
    transform: BasicTransform, image: Tensor, generator: np.random.Generator, *, masked_channels: Sequence[int] = ()
) -> Tensor:
    """Image (C, D, H, W) after `transform`, whose draws come from `generator` alone; may reuse `image`'s memory.

    In `masked_channels`, those whose background normalisation leaves at 0, voxels that are 0 stay 0 (nnU-Net's
    MaskImageTransform): at prediction they are 0, too.
    """
    channels = list(masked_channels)
    background = image[channels] == 0
    data: dict[str, Any] = {"image": image}
    with seeded(generator):
        changed: Tensor = transform(**data)["image"]
    if channels:
        changed[channels] = changed[channels].masked_fill(background, 0)
    return changed
