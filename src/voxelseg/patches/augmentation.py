"""nnU-Net's augmentation, through batchgeneratorsv2; every probability and range is a setting."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from pydantic import BaseModel, ConfigDict, Field

from voxelseg.geometry import Shape

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class AugmentationConfig(BaseModel):
    """Defaults are nnU-Net v2's (nnUNetTrainer.get_training_transforms); probabilities are per sample."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    rotation: Probability = 0.2
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Largest angle about each axis; about D only, in-plane, if the data are anisotropic."""
    scaling: Probability = 0.2
    scaling_range: Range = (0.7, 1.4)
    noise: Probability = 0.1
    noise_variance: Range = (0.0, 0.1)
    blur: Probability = 0.2
    blur_sigma: Range = (0.5, 1.0)
    """In voxels; each channel is blurred with probability 1/2."""
    brightness: Probability = 0.15
    brightness_range: Range = (0.75, 1.25)
    contrast: Probability = 0.15
    contrast_range: Range = (0.75, 1.25)
    low_resolution: Probability = 0.25
    low_resolution_zoom: Range = (0.5, 1.0)
    inverted_gamma: Probability = 0.1
    gamma: Probability = 0.3
    gamma_range: Range = (0.7, 1.5)
    mirror: bool = True
    """Mirror along the plan's mirror axes, each with probability 1/2."""


def build_augmentation(
    config: AugmentationConfig, patch_size: Shape, *, mirror_axes: tuple[int, ...], anisotropic: bool
) -> BasicTransform:
    """Transform of {"image": (C, D, H, W) float tensor, "segmentation": (1, D, H, W) int16 tensor}.

    It draws from NumPy's and torch's global generators; `seeded` makes it repeatable.
    """
    steps: list[BasicTransform] = []
    if config.rotation or config.scaling:
        angle = float(np.deg2rad(config.rotation_degrees))
        spatial = SpatialTransform(
            patch_size[1:] if anisotropic else patch_size,
            patch_center_dist_from_border=0,
            random_crop=False,
            p_rotation=config.rotation,
            rotation=(-angle, angle),
            p_scaling=config.scaling,
            scaling=config.scaling_range,
            p_synchronize_scaling_across_axes=1,
        )
        # Anisotropic data are transformed in plane, all slices alike.
        steps += [Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform()] if anisotropic else [spatial]

    def sometimes(probability: float, transform: BasicTransform) -> None:
        if probability > 0:
            steps.append(RandomTransform(transform, apply_probability=probability))

    sometimes(config.noise, GaussianNoiseTransform(config.noise_variance, p_per_channel=1, synchronize_channels=True))
    sometimes(
        config.blur,
        GaussianBlurTransform(config.blur_sigma, synchronize_channels=False, synchronize_axes=False, p_per_channel=0.5),
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
            ignore_axes=(0,) if anisotropic else None,
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
    if config.mirror and mirror_axes:
        steps.append(MirrorTransform(allowed_axes=mirror_axes))
    return ComposeTransforms(steps)


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


def augment(
    transform: BasicTransform,
    image: npt.NDArray[np.float32],
    target: npt.NDArray[np.int16],
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented image (C, D, H, W) and target (D, H, W); the arrays are not changed."""
    data: dict[str, Any] = {
        "image": torch.from_numpy(image.copy()),
        "segmentation": torch.from_numpy(target[None].copy()),
    }
    with seeded(generator):
        data = transform(**data)
    return data["image"], data["segmentation"][0]
