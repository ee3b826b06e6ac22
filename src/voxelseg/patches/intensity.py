"""Changes of a patch's intensities: batchgeneratorsv2's, in nnU-Net's order, and steps of their kind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from scipy import ndimage
from torch import Tensor

from voxelseg.geometry import Shape
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.preprocess.resample import lines_between, resample


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
    sometimes(config.blur, _blur(config))
    sometimes(
        config.brightness,
        MultiplicativeBrightnessTransform(
            BGContrast(config.brightness_range), synchronize_channels=not config.brightness_per_channel
        ),
    )
    sometimes(config.shift, _Shift(config.shift_range))
    sometimes(
        config.contrast,
        ContrastTransform(BGContrast(config.contrast_range), preserve_range=True, synchronize_channels=False),
    )
    low_resolution = SimulateLowResolutionTransform if config.low_resolution_order == 1 else _CubicLowResolution
    sometimes(
        config.low_resolution,
        low_resolution(
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


class _Shift(ImageOnlyTransform):  # type: ignore[misc]  # the library has no types
    """Adds one number to all channels."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.bounds = bounds

    def get_parameters(self, **data: Any) -> dict[str, Any]:
        return {"offset": np.random.uniform(*self.bounds)}  # noqa: NPY002 - the library's way; see `seeded`

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return img.add_(params["offset"])


class _CubicLowResolution(SimulateLowResolutionTransform):  # type: ignore[misc]  # the library has no types
    """Nearest neighbour down and cubic splines up without overshoot, as in nnU-Net v1."""

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        shape = img.shape[1:]
        for channel, zooms in zip(params["apply_to_channel"], params["scales"], strict=True):
            small = [max(1, round(size * float(zoom))) for size, zoom in zip(shape, zooms, strict=True)]
            seen = resample(img[channel].numpy(), lines_between(shape, small), (0, 0, 0))
            grown = resample(seen, lines_between(small, shape), (3, 3, 3))
            img[channel] = torch.from_numpy(grown.clip(seen.min(), seen.max()))
        return img


class _ScipyBlur(GaussianBlurTransform):  # type: ignore[misc]  # the library has no types
    """Gaussian blur with borders that also short axes have, cut off at a number of standard deviations."""

    def __init__(self, bounds: tuple[float, float], *, truncate: float, per_axis: bool) -> None:
        super().__init__(bounds, synchronize_channels=False, synchronize_axes=not per_axis, p_per_channel=0.5)
        self.truncate = truncate

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        (channels,) = torch.where(params["apply_to_channel"])
        for channel, sigmas in zip(channels, params["sigmas"], strict=True):
            blurred = ndimage.gaussian_filter(img[channel].numpy(), sigmas, truncate=self.truncate)
            img[channel] = torch.from_numpy(blurred)
        return img


def _blur(config: AugmentationConfig) -> GaussianBlurTransform:
    if not config.blur_per_axis or config.blur_truncate != 3:
        return _ScipyBlur(config.blur_sigma, truncate=config.blur_truncate, per_axis=config.blur_per_axis)
    return GaussianBlurTransform(
        partial(_blur_sigma, bounds=config.blur_sigma),
        synchronize_channels=False,
        synchronize_axes=False,
        p_per_channel=0.5,
    )


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
