from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from voxelseg.preprocess.resample import orders_for, resample, resample_labels, resampling_matrix

SHAPES = [((5, 8, 11), (9, 6, 11)), ((1, 7, 4), (3, 7, 9)), ((6, 1, 1), (1, 4, 1)), ((12, 13, 9), (5, 21, 3))]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "target"), SHAPES)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_agrees_with_skimage(shape, target, order):
    transform = pytest.importorskip("skimage.transform")
    array = noise(shape)
    expected = transform.resize(
        array.astype(float), target, order=order, mode="edge", anti_aliasing=False, clip=False, preserve_range=True
    )
    result = resample(array, target, (order,) * 3)
    assert result.shape == target
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("size", "new_size"), [(7, 12), (12, 7), (5, 15), (16, 4), (1, 6), (6, 1), (9, 10)])
def test_a_line_agrees_with_scipys_spline(size, new_size, order):
    line = noise((size,))
    positions = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    expected = ndimage.map_coordinates(line.astype(float), [positions], order=order if size > 1 else 0, mode="nearest")
    np.testing.assert_allclose(resampling_matrix(size, new_size, order) @ line, expected, atol=1e-5)


def test_few_matrices_are_kept():
    for size in range(2, 102):
        resampling_matrix(size, 3, 1)
    assert resampling_matrix.cache_info().currsize <= 16  # of long axes they are some megabytes each


def test_each_axis_has_its_own_order():
    array = noise((4, 6, 5))
    result = resample(array, (8, 6, 10), (0, 3, 1))
    expected = np.repeat(array, 2, axis=0)  # nearest neighbour at twice the size repeats each slice
    expected = np.apply_along_axis(lambda line: resampling_matrix(5, 10, 1) @ line, 2, expected)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_leading_axes_are_resampled_alike():
    array = noise((2, 3, 4, 5, 6))
    result = resample(array, (7, 3, 9), (3, 1, 1))
    for first, second in product(range(2), range(3)):
        np.testing.assert_array_equal(result[first, second], resample(array[first, second], (7, 3, 9), (3, 1, 1)))


def test_arrays_that_are_views_are_resampled_right():
    array = noise((6, 5, 4)).transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(resample(array, (8, 6, 9), (3, 3, 3)), resample(array.copy(), (8, 6, 9), (3, 3, 3)))


def test_constants_stay_constant_and_equal_shapes_are_not_copied():
    assert resample(np.full((3, 4, 5), 7.0), (6, 9, 2), (3, 3, 3)) == pytest.approx(7, abs=1e-5)
    array = noise((3, 4, 5))
    assert resample(array, (3, 4, 5), (3, 3, 3)) is array


def test_a_coarse_axis_is_taken_by_nearest_neighbour():
    assert orders_for(3, coarse_axis=None) == (3, 3, 3)
    assert orders_for(3, coarse_axis=0) == (0, 3, 3)
    assert orders_for(1, coarse_axis=2) == (1, 1, 0)


# Labels


def blobs(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    label = np.zeros((9, 14, 11), np.int16)
    for value in (1, 2, 3, 7, -1):
        first = generator.integers(0, 8, 3)
        label[tuple(slice(start, start + size) for start, size in zip(first, (3, 5, 4), strict=True))] = value
    return label


@pytest.mark.parametrize("target", [(13, 9, 11), (5, 21, 16), (9, 14, 23), (1, 1, 1)])
@pytest.mark.parametrize("coarse_axis", [None, 0, 2])
def test_labels_agree_with_interpolating_every_class_over_the_whole_volume(target, coarse_axis):
    for seed in range(4):
        label = blobs(seed)
        strongest, expected = np.zeros(target), np.zeros(target, np.int16)
        for value in np.unique(label):
            share = resample(label == value, target, orders_for(1, coarse_axis=coarse_axis))
            wins = (share >= strongest) & (share > 0)
            strongest[wins], expected[wins] = share[wins], value
        result = resample_labels(label, target, coarse_axis=coarse_axis)
        assert result.dtype == np.int16
        assert np.mean(result != expected) < 1e-3  # rounding may settle a tie the other way


def test_no_value_is_invented_and_ignore_survives():
    label = np.zeros((6, 6, 6), np.int16)
    label[:, :3], label[:, 3:] = 1, 9  # between 1 and 9 lie no others
    label[4:] = -1
    result = resample_labels(label, (9, 11, 7), coarse_axis=None)
    assert set(np.unique(result)) == {-1, 1, 9}
    assert (result[7:] == -1).all()  # ignore begins at 4/6 of 9 slices: 6
    assert (result[:5] != -1).all()


def test_ties_go_to_foreground():
    label = np.zeros((1, 1, 4), np.int16)
    label[..., 1] = 1
    assert resample_labels(label, (1, 1, 2), coarse_axis=None).tolist() == [[[1, 0]]]


def test_an_equal_shape_leaves_labels_as_they_are():
    label = blobs(0)
    np.testing.assert_array_equal(resample_labels(label, label.shape, coarse_axis=None), label)


def test_thin_vessels_survive_better_than_with_nearest_neighbour():
    """Tilted tubes of 1.5 mm radius, seen at 1 mm, brought to 1.6 mm and held against tubes drawn there."""

    def tube(spacing: float, size: int, tilt: float) -> np.ndarray:
        d, h, w = ((index + 0.5) * spacing for index in np.indices((size,) * 3))
        return (h - 8 - tilt * d) ** 2 + (w - 10 - 0.3 * d) ** 2 < 1.5**2

    def dice(a: np.ndarray, b: np.ndarray) -> float:
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))

    by_class, by_nearest = [], []
    for tilt in (0.2, 0.4, 0.55):
        seen, drawn = tube(1.0, 48, tilt), tube(1.6, 30, tilt)
        by_class.append(dice(resample_labels(seen.astype(np.int16), drawn.shape, coarse_axis=None) == 1, drawn))
        by_nearest.append(dice(resample(seen, drawn.shape, (0, 0, 0)) == 1, drawn))
    assert np.mean(by_class) > np.mean(by_nearest) + 0.05
