import numpy as np
import pytest

from voxelseg.plan import Normalization
from voxelseg.preprocess.normalize import normalize


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


def test_range_0_1_spans_the_scan():
    assert one([-2, 0, 6], Normalization(kind="range_0_1")) == [0, 0.25, 1]


def test_none_keeps_the_values():
    assert one([-2, 0, 6], Normalization(kind="none")) == [-2, 0, 6]


@pytest.mark.parametrize("kind", ["zscore", "zscore_nonzero", "range_0_1"])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_channels_become_0(kind, constant):
    assert one([constant] * 5, Normalization(kind=kind)) == [0] * 5


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
