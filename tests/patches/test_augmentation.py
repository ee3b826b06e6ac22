import numpy as np
import pytest
import torch
from scipy import ndimage

from voxelseg.patches.augmentation import (
    AugmentationConfig,
    SpatialChange,
    apply_spatial,
    change_intensities,
    draw_spatial,
    intensity_transform,
    seeded,
)

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


def test_a_draw_depends_on_the_generator_alone():
    config = AugmentationConfig(rotation=1, scaling=1)
    first, second = drawn(config, 3, mirror_axes=(0, 2)), drawn(config, 3, mirror_axes=(0, 2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.flips == second.flips
    assert (drawn(config, 4).matrix != first.matrix).any()


def test_probabilities_and_ranges_are_kept():
    changes = [drawn(AugmentationConfig(rotation_degrees=20), number, mirror_axes=(1,)) for number in range(2000)]
    moved = [change.matrix for change in changes if change.matrix is not None]
    assert len(moved) / 2000 == pytest.approx(1 - 0.8 * 0.8, abs=0.04)
    scales = np.array([np.cbrt(np.linalg.det(matrix)) for matrix in moved])
    assert 0.7 <= scales.min() < 0.72
    assert 1.38 < scales.max() <= 1.4
    assert np.mean(np.isclose(scales, 1)) == pytest.approx(0.16 / 0.36, abs=0.06)  # rotated only
    assert np.mean([change.flips == (1,) for change in changes]) == pytest.approx(0.5, abs=0.04)


def test_a_rotation_turns_by_its_angle_and_keeps_lengths():
    config = OFF.model_copy(update={"rotation": 1.0})
    for number in range(20):
        matrix = drawn(config, number, anisotropic=True).matrix
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert matrix[0].tolist() == [1, 0, 0]
        np.testing.assert_allclose((turn := drawn(config, number).matrix) @ turn.T, np.eye(3), atol=1e-12)


def test_anisotropic_data_are_turned_to_any_angle_in_plane_and_others_a_little():
    def largest_angle(anisotropic: bool, **settings: float) -> float:
        config = OFF.model_copy(update={"rotation": 1.0, **settings})
        matrices = [drawn(config, number, anisotropic=anisotropic).matrix for number in range(200)]
        # The trace of a rotation is 1 + 2 cos(angle).
        return max(np.degrees(np.arccos((np.trace(matrix) - 1) / 2)) for matrix in matrices)

    assert 170 < largest_angle(True) <= 180
    assert 50 < largest_angle(True, rotation_degrees_in_plane=60.0) <= 60
    assert 30 < largest_angle(False) < 60  # three turns of at most 30 degrees together
    assert largest_angle(False, rotation_degrees_in_plane=0.0) == largest_angle(False)


def test_mirroring_is_along_mirror_axes_alone():
    flips = {drawn(AugmentationConfig(), number, mirror_axes=(0, 2)).flips for number in range(50)}
    assert flips == {(), (0,), (2,), (0, 2)}
    assert drawn(AugmentationConfig(mirror=False), mirror_axes=(0, 1, 2)).flips == ()


def test_flips_are_exact():
    image = source_for(SpatialChange(None, ()))
    target = torch.arange(image.numel(), dtype=torch.int16).reshape(image.shape[1:])
    result, moved = apply_spatial(SpatialChange(None, (0, 2)), image, target, PATCH)
    assert torch.equal(result, image.flip(1, 3))
    assert torch.equal(moved, target.flip(0, 2))


def test_the_identity_as_a_matrix_gives_the_source_back():
    change = SpatialChange(np.eye(3), ())
    image = source_for(change)
    target = torch.randint(-1, 3, PATCH).short()
    result, moved = apply_spatial(change, image, target, PATCH)
    torch.testing.assert_close(result, image, atol=1e-4, rtol=0)
    assert torch.equal(moved, target)


def test_sampling_agrees_with_scipy():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 1)
    image = source_for(change)
    result, _ = apply_spatial(change, image, ones_like_target(image), PATCH)
    lines = [np.arange(size) - (size - 1) / 2 for size in PATCH]
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"))
    centre = (np.array(image.shape[1:]) - 1) / 2
    places = np.einsum("ij,j...->i...", change.matrix, offsets) + centre[:, None, None, None]
    expected = ndimage.map_coordinates(image[0].numpy(), places, order=1)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("anisotropic", [False, True])
def test_the_margin_is_enough_and_no_corner_is_filled_with_zeros(anisotropic):
    for number in range(20):
        change = drawn(AugmentationConfig(rotation=1, scaling=1), number, anisotropic=anisotropic)
        image = torch.ones_like(source_for(change))
        result, target = apply_spatial(change, image, ones_like_target(image), PATCH)
        assert result.shape[1:] == target.shape == PATCH
        assert (result > 0.999).all()
        assert (target == 1).all()


def test_an_image_that_equals_its_label_stays_aligned():
    for number in range(10):
        change = drawn(AugmentationConfig(rotation=1, scaling=1), number, mirror_axes=(0, 1, 2))
        image = (source_for(change) > 0).float()
        result, target = apply_spatial(change, image, image[0].short(), PATCH)
        assert torch.equal((result[0] > 0.5).short(), target)


def test_in_plane_changes_keep_slices_apart():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 2, anisotropic=True)
    image = source_for(change)
    image[:] = torch.arange(image.shape[1])[None, :, None, None]
    result, target = apply_spatial(change, image, image[0].short(), PATCH)
    assert change.margin(PATCH)[0] == 0
    expected = torch.arange(PATCH[0]).float()[:, None, None].expand(PATCH)
    torch.testing.assert_close(result[0], expected, atol=1e-4, rtol=0)
    assert torch.equal(target, expected.short())


def test_what_lies_outside_the_scan_is_background():
    change = SpatialChange(np.eye(3) * 2, ())  # shows twice the patch, of which only the patch is given
    image = torch.ones(1, *PATCH)
    _, target = apply_spatial(change, image, torch.full(PATCH, -1, dtype=torch.int16), PATCH)
    inside = torch.zeros(PATCH, dtype=torch.bool)
    inside[2:6, 3:9, 3:7] = True  # W 2 is taken at -0.5, half outside: a tie, which the background wins
    assert torch.equal(target == -1, inside)
    assert (target[~inside] == 0).all()


def test_intensities_are_repeatable_and_leave_the_global_generators_alone():
    transform = intensity_transform(
        AugmentationConfig(noise=1, blur=1, brightness=1, contrast=1, low_resolution=1, inverted_gamma=1, gamma=1),
        PATCH,
        anisotropic=False,
    )
    image = source_for(SpatialChange(None, ()))
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = np.random.random(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    first = change_intensities(transform, image.clone(), np.random.default_rng(1))
    assert (np.random.random(), torch.rand(1).item()) == expected  # noqa: NPY002
    assert torch.equal(first, change_intensities(transform, image.clone(), np.random.default_rng(1)))
    assert not torch.equal(first, change_intensities(transform, image.clone(), np.random.default_rng(2)))
    assert not torch.equal(first, image)


@pytest.mark.parametrize("masked", [(), (1,), (0, 1)])
def test_background_that_is_0_stays_0_in_masked_channels_alone(masked):
    # brightness and contrast leave 0 or change it little; noise, blur and gamma do not
    transform = intensity_transform(
        OFF.model_copy(update={"noise": 1.0, "noise_std": (1.0, 1.0)}), PATCH, anisotropic=False
    )
    image = torch.rand(3, *PATCH) + 1
    image[:, :3] = 0
    changed = change_intensities(transform, image.clone(), np.random.default_rng(0), masked_channels=masked)
    for channel in range(3):
        assert bool((changed[channel, :3] == 0).all()) == (channel in masked)
    assert (changed[:, 3:] != image[:, 3:]).all()


def test_noise_has_the_standard_deviation_of_its_range():
    config = OFF.model_copy(update={"noise": 1.0, "noise_std": (0.25, 0.25)})
    transform = intensity_transform(config, (40, 40, 40), anisotropic=False)
    changed = change_intensities(transform, torch.zeros(1, 40, 40, 40), np.random.default_rng(0))
    assert changed.std() == pytest.approx(0.25, rel=0.02)


def fail_inside(generator: np.random.Generator) -> None:
    with seeded(generator):
        raise RuntimeError("inside")


def test_global_generators_come_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside(np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name", ["noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"]
)
def test_each_probability_has_an_effect(name):
    transform = intensity_transform(OFF.model_copy(update={name: 1.0}), PATCH, anisotropic=False)
    image = source_for(SpatialChange(None, ()))
    changed = [change_intensities(transform, image.clone(), np.random.default_rng(seed)) for seed in range(6)]
    assert any(not torch.equal(one, image) for one in changed)


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


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.3, 2.0, 3.0, 4.0])
def test_a_strong_blur_leaves_axes_that_are_too_short_for_it(sigma):
    config = OFF.model_copy(update={"blur": 1.0, "blur_sigma": (sigma, sigma)})
    for depth in range(2, 16):
        transform = intensity_transform(config, (depth, 20, 20), anisotropic=False)
        image = torch.zeros(4, depth, 20, 20)
        image[:, depth // 2, 10, 10] = 1
        changed = change_intensities(transform, image.clone(), np.random.default_rng(0))
        blurred = changed[changed.amax((1, 2, 3)) < 1]
        assert len(blurred)
        assert bool((blurred[:, depth // 2 - 1] > 0).any()) == (depth > 3 * sigma + 0.25)


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
        ("gamma_range", (0.7, float("nan"))),
        ("elastic", 1),
    ],
)
def test_impossible_settings_are_errors(key, value):
    with pytest.raises(ValueError, match=key):
        AugmentationConfig.model_validate({key: value})
