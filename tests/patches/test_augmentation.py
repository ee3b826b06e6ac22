import numpy as np
import pytest
import torch
from augmenting import OFF, PATCH, drawn, ones_like_target, source_for

from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.intensity import change_intensities, intensity_transform
from voxelseg.patches.spatial import apply_spatial


def test_nothing_is_changed_when_everything_is_off():
    change = drawn(OFF, mirror_axes=(0, 1, 2))
    assert change.matrix is None
    assert change.flips == ()
    assert change.margin(PATCH) == (0, 0, 0)
    image = source_for(change)
    result, target = apply_spatial(change, image, ones_like_target(image), PATCH)
    assert result is image
    result = change_intensities(intensity_transform(OFF, PATCH, anisotropic=False), image, np.random.default_rng(0))
    assert torch.equal(result, image)
    assert (target == 1).all()


@pytest.mark.parametrize("shape", [(1, 9, 8), (2, 2, 2), (9, 1, 1)])
@pytest.mark.parametrize("anisotropic", [False, True])
def test_thin_patches_are_augmented_too(shape, anisotropic):
    always = AugmentationConfig(
        rotation=1, scaling=1, noise=1, blur=1, brightness=1, contrast=1, low_resolution=1, inverted_gamma=1, gamma=1
    )
    transform = intensity_transform(always, shape, anisotropic=anisotropic)
    for seed in range(5):
        change = drawn(always, seed, mirror_axes=(0, 1, 2), anisotropic=anisotropic)
        more = change.margin(shape)
        image = torch.rand(3, *(size + 2 * side for size, side in zip(shape, more, strict=True)))
        moved, target = apply_spatial(change, image, ones_like_target(image), shape)
        result = change_intensities(transform, moved, np.random.default_rng(seed))
        assert result.shape == (3, *shape)
        assert target.shape == shape
        assert result.isfinite().all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rotation", 1.5),
        ("rotation_degrees", -1),
        ("rotation_degrees_in_plane", 181),
        ("scaling_range", (1.4, 0.7)),
        ("scaling_range", (0, 1)),
        ("noise_std", (-1, 0)),
        ("blur_sigma", (0, 1)),
        ("brightness_range", (1.1, 1.2)),
        ("low_resolution_zoom", (0.0, 1.0)),
        ("low_resolution_zoom", (0.5, 2.0)),
        ("gamma_range", (0.7, float("nan"))),
        ("elastic", 1),
        ("rotation_degrees", (10, 20)),
        ("rotation_degrees", (10, 20, 200)),
        ("shift_range", (0.1, -0.1)),
        ("shift_range", (0, float("inf"))),
        ("image_order", 2),
        ("label_order", 3),
        ("outside", "mirror"),
        ("blur_truncate", 2),
        ("mirror_probability", -0.1),
        ("rotation90_axes", (1, 1)),
        ("rotation90_axes", (1, 3)),
    ],
)
def test_impossible_settings_are_errors(key, value):
    with pytest.raises(ValueError, match=key):
        AugmentationConfig.model_validate({key: value})


@pytest.mark.parametrize("value", [-30, 181, (10, 20), (10, 20, float("nan")), "much"])
def test_angles_say_what_they_may_be(value):
    expected = (
        r"rotation_degrees\n\s+Value error, expected degrees from 0 to 180: one number, or one for each of D, H, W"
    )
    with pytest.raises(ValueError, match=expected):
        AugmentationConfig.model_validate({"rotation_degrees": value})


def test_balanced_factors_need_a_range_around_1():
    with pytest.raises(ValueError, match="scaling_balanced needs a scaling_range that includes 1"):
        AugmentationConfig(scaling_balanced=True, scaling_range=(1.1, 1.4))
