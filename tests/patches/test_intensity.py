import numpy as np
import pytest
import torch
from augmenting import OFF, PATCH, source_for
from scipy import ndimage

from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.intensity import change_intensities, intensity_transform, seeded
from voxelseg.patches.spatial import SpatialChange


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


def changed_by(config: AugmentationConfig, image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    shape = tuple(image.shape[1:])
    transform = intensity_transform(config, shape, anisotropic=False)
    return change_intensities(transform, image.clone(), np.random.default_rng(seed))


def test_a_shift_is_one_number_for_all_channels():
    config = OFF.model_copy(update={"shift": 1.0, "shift_range": (-0.1, 0.1)})
    image = torch.randn(2, *PATCH)
    shifts = torch.stack([changed_by(config, image, seed) - image for seed in range(300)])
    assert torch.allclose(shifts, shifts[:, :1, :1, :1, :1].expand_as(shifts), atol=1e-6)
    numbers = shifts[:, 0, 0, 0, 0]
    assert -0.1 <= numbers.min() < -0.095
    assert 0.095 < numbers.max() <= 0.1
    rare = OFF.model_copy(update={"shift": 0.25})
    assert np.mean([not torch.equal(changed_by(rare, image, seed), image) for seed in range(400)]) == pytest.approx(
        0.25, abs=0.06
    )


def test_brightness_may_be_one_factor_for_all_channels():
    image = torch.rand(3, *PATCH) + 1
    for per_channel in (True, False):
        config = OFF.model_copy(
            update={"brightness": 1.0, "brightness_range": (0.9, 1.1), "brightness_per_channel": per_channel}
        )
        factors = (changed_by(config, image) / image).flatten(1)
        assert torch.allclose(factors, factors[:, :1].expand_as(factors))
        assert bool(torch.allclose(factors[0], factors[1], atol=1e-6)) != per_channel


@pytest.mark.filterwarnings("ignore")
def test_shift_and_brightness_have_the_ranges_of_monais_transforms():
    transforms = pytest.importorskip("monai.transforms")
    image = torch.full((1, 2, 2, 2), 3.0)
    shift = transforms.RandShiftIntensity(0.1, prob=1.0).set_random_state(0)
    scale = transforms.RandScaleIntensity(0.1, prob=1.0).set_random_state(0)
    theirs = np.array([[float(one(image)[0, 0, 0, 0]) for one in (shift, scale)] for _ in range(1000)])
    configs = (
        OFF.model_copy(update={"shift": 1.0}),
        OFF.model_copy(update={"brightness": 1.0, "brightness_range": (0.9, 1.1), "brightness_per_channel": False}),
    )
    ours = np.array([[float(changed_by(one, image, seed)[0, 0, 0, 0]) for one in configs] for seed in range(1000)])
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        np.testing.assert_allclose(
            np.quantile(ours, quantile, axis=0), np.quantile(theirs, quantile, axis=0), atol=0.03
        )


def test_blur_like_nnunet_v1_is_scipys_and_the_same_along_all_axes():
    config = OFF.model_copy(update={"blur": 1.0, "blur_sigma": (0.8, 0.8), "blur_per_axis": False, "blur_truncate": 4})
    image = torch.randn(4, *PATCH)
    expected = np.stack([ndimage.gaussian_filter(channel.numpy(), 0.8) for channel in image])
    changed = np.concatenate([changed_by(config, image, seed)[None] for seed in range(20)])
    blurred = np.isclose(changed, expected, atol=1e-5).all(axis=(2, 3, 4))
    kept = (changed == image.numpy()).all(axis=(2, 3, 4))
    assert (blurred ^ kept).all()
    assert blurred.mean() == pytest.approx(0.5, abs=0.15)


def test_a_blur_ends_after_three_or_four_standard_deviations():
    def reach(**settings: object) -> int:
        config = OFF.model_copy(update={"blur": 1.0, "blur_sigma": (1.0, 1.0), **settings})
        image = torch.zeros(6, 21, 21, 21)
        image[:, 10, 10, 10] = 1
        changed = changed_by(config, image)
        (blurred,) = torch.where(changed.amax((1, 2, 3)) < 1)
        return int((changed[blurred[0], 10, 10] > 0).sum() // 2)

    assert reach() == 3  # nnU-Net v2's own kernel
    assert reach(blur_per_axis=False) == 3
    assert reach(blur_truncate=4) == 4


def test_low_resolution_like_nnunet_v1_is_cubic_upwards():
    augment = pytest.importorskip("batchgenerators.augmentations.resample_augmentations")
    pytest.importorskip("skimage")
    image = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(9, 14, 11)), 1)).float()[
        None
    ]
    theirs = augment.augment_linear_downsampling_scipy(
        image.numpy().copy(), zoom_range=(0.6, 0.6), order_downsample=0, order_upsample=3
    )
    config = OFF.model_copy(
        update={"low_resolution": 1.0, "low_resolution_zoom": (0.6, 0.6), "low_resolution_order": 3}
    )
    changed = [changed_by(config, image, seed) for seed in range(6)]
    (first, *_) = [one for one in changed if not torch.equal(one, image)]
    np.testing.assert_allclose(first, theirs, atol=1e-4)


def fail_inside(generator: np.random.Generator) -> None:
    with seeded(generator):
        raise RuntimeError("inside")


def test_global_generators_come_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside(np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name", ["noise", "blur", "brightness", "shift", "contrast", "low_resolution", "inverted_gamma", "gamma"]
)
def test_each_probability_has_an_effect(name):
    transform = intensity_transform(OFF.model_copy(update={name: 1.0}), PATCH, anisotropic=False)
    image = source_for(SpatialChange(None, ()))
    changed = [change_intensities(transform, image.clone(), np.random.default_rng(seed)) for seed in range(6)]
    assert any(not torch.equal(one, image) for one in changed)


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
