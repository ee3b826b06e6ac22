import numpy as np
import pytest

from voxelseg.plan import Normalization
from voxelseg.preprocess.normalize import normalization_masks, normalize


def one(values: list[float], rule: Normalization) -> list[float]:
    array = np.array(values, dtype=np.float32).reshape(1, 1, 1, -1)
    result = normalize(array, [rule])
    assert result.dtype == np.float32
    return result.ravel().tolist()


def test_ct_is_clipped_then_standardised():
    rule = Normalization(kind="ct", window=(-100.0, 200.0), mean=50.0, std=25.0)
    assert one([-1000, -100, 50, 75, 200, 3000], rule) == [-6, -6, 0, 1, 6, 6]


def test_zscore_uses_the_scan_itself():
    assert one([1, 3, 5, 7], Normalization(kind="zscore")) == pytest.approx(np.array([-3, -1, 1, 3]) / np.sqrt(5))


def test_zscore_nonzero_leaves_zeros_alone():
    result = one([0, 1, 3, 5, 7, 0], Normalization(kind="zscore_nonzero"))
    assert result == pytest.approx([0, *(np.array([-3, -1, 1, 3]) / np.sqrt(5)), 0])


def test_zscore_mask_takes_what_is_not_zero_in_some_channel_and_the_holes_inside():
    image = np.zeros((2, 5, 5, 5), np.float32)
    image[0, 1:4, 1:4, 1:4] = 6
    image[0, 2, 2, 2] = 0  # a hole
    image[1, 1:4, 1:4, 4] = 3  # seen by the second channel only
    rule = Normalization(kind="zscore_mask")
    first, second = normalize(image, [rule, rule])
    # 27 + 9 voxels: the first channel has 26 sixes and 10 zeros in them, the second 9 threes and 27 zeros
    for channel, value, share in ((first, 6, 26 / 36), (second, 3, 9 / 36)):
        mean, std = value * share, value * np.sqrt(share * (1 - share))
        inside = np.zeros((5, 5, 5), bool)
        inside[1:4, 1:4, 1:5] = True
        assert np.unique(channel[inside]).tolist() == pytest.approx([-mean / std, (value - mean) / std], rel=1e-5)
        assert not channel[~inside].any()
    assert first[2, 2, 2] < 0


def test_masks_that_are_given_replace_the_images_own():
    rule = Normalization(kind="zscore_nonzero")
    image = np.array([0, 1, 3, 9], np.float32).reshape(1, 1, 1, 4)
    mask = np.array([False, True, True, False]).reshape(1, 1, 4)
    assert normalize(image, [rule], [mask]).ravel().tolist() == [0, -1, 1, 0]
    assert normalization_masks(image, [Normalization(kind="zscore")]) == [None]


def test_a_window_becomes_0_to_1_and_is_clipped():
    rule = Normalization(kind="window", window=(-175.0, 250.0))
    assert one([-1000, -175, 37.5, 250, 3000], rule) == [0, 0, 0.5, 1, 1]


@pytest.mark.filterwarnings("ignore")
def test_a_window_agrees_with_monai():
    transforms = pytest.importorskip("monai.transforms")
    image = np.random.default_rng(0).normal(0, 300, (1, 6, 7, 8)).astype(np.float32)
    theirs = transforms.ScaleIntensityRange(-125, 275, 0.0, 1.0, clip=True)(image)
    ours = normalize(image, [Normalization(kind="window", window=(-125.0, 275.0))])
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-6)


def test_percentiles_become_0_to_1():
    values = list(range(101))
    result = one(values, Normalization(kind="percentiles", percentiles=(10, 90)))
    assert result == pytest.approx(np.clip((np.arange(101) - 10) / 80, 0, 1))
    # clipped to 40 to 60 first: 41 values of 40 and 60 each, so that these are the percentiles
    result = one(values, Normalization(kind="percentiles", percentiles=(10, 90), window=(40.0, 60.0)))
    assert result == pytest.approx(np.clip((np.arange(101) - 40) / 20, 0, 1))


@pytest.mark.filterwarnings("ignore")
def test_percentiles_agree_with_monai():
    transforms = pytest.importorskip("monai.transforms")
    image = np.random.default_rng(0).normal(0, 300, (1, 6, 7, 8)).astype(np.float32)
    theirs = transforms.ScaleIntensityRangePercentiles(1, 99, 0.0, 1.0, clip=True)(image)
    ours = normalize(image, [Normalization(kind="percentiles", percentiles=(1, 99))])
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5)


def test_range_0_1_spans_the_scan():
    assert one([-2, 0, 6], Normalization(kind="range_0_1")) == [0, 0.25, 1]


def test_none_keeps_the_values():
    assert one([-2, 0, 6], Normalization(kind="none")) == [-2, 0, 6]


@pytest.mark.parametrize("kind", ["zscore", "zscore_nonzero", "zscore_mask", "range_0_1"])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_channels_become_0(kind, constant):
    assert one([constant] * 5, Normalization(kind=kind)) == [0] * 5


def test_percentiles_of_a_constant_channel_are_finite():
    assert one([7.0] * 5, Normalization(kind="percentiles", percentiles=(1, 99))) == [0] * 5


def test_channels_have_rules_of_their_own_and_the_input_is_not_changed():
    image = np.arange(12, dtype=np.int16).reshape(2, 1, 2, 3)
    before = image.copy()
    result = normalize(image, [Normalization(kind="none"), Normalization(kind="range_0_1")])
    np.testing.assert_array_equal(result[0], image[0])
    assert (result[1].min(), result[1].max()) == (0, 1)
    np.testing.assert_array_equal(image, before)


def test_large_offsets_do_not_eat_the_signal():
    values = 1e6 + np.arange(100, dtype=np.float32)
    result = one(values.tolist(), Normalization(kind="zscore"))
    assert np.std(result) == pytest.approx(1, abs=1e-3)
