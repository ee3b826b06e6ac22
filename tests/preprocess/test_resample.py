from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from voxelseg.preprocess.resample import (
    Line,
    lines_between,
    orders_for,
    resample,
    resample_labels,
    resample_part,
    resampling_matrix,
)

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
    result = resample(array, lines_between(shape, target), (order,) * 3)
    assert result.shape == target
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("size", "new_size"), [(7, 12), (12, 7), (5, 15), (16, 4), (1, 6), (6, 1), (9, 10)])
def test_a_line_agrees_with_scipys_spline(size, new_size, order):
    line = noise((size,))
    positions = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    expected = ndimage.map_coordinates(line.astype(float), [positions], order=order if size > 1 else 0, mode="nearest")
    np.testing.assert_allclose(resampling_matrix(Line(size, new_size), order) @ line, expected, atol=1e-5)


def test_lines_know_where_their_new_voxels_lie():
    # 4 voxels of 1 mm cover 4 mm: two voxels of 2 mm there have their centres at 1 and 3 mm, half a voxel before these.
    assert Line(4, 2).positions.tolist() == [0.5, 2.5]
    assert Line(4, 2, first=0.0, step=2.0).positions.tolist() == [0, 2]
    assert Line(4, 2, first=1.0, step=2.0).positions.tolist() == [1, 3]


@pytest.mark.parametrize("line", [Line(9, 6), Line(9, 5, first=0.0, step=2.0), Line(9, 6, first=0.5, step=1.6)])
def test_the_inverse_of_a_line_finds_its_voxels_again(line):
    back = line.inverse
    assert (back.size, back.new_size) == (line.new_size, line.size)
    # where old voxel 3 lies among the new ones, which lie at regular positions
    found = np.interp(back.positions[3], np.arange(line.new_size), line.positions)
    assert found == pytest.approx(3)


def test_lines_that_differ_by_less_than_a_thousandth_of_a_voxel_are_unchanged():
    array = noise((4, 5, 6))
    same = (Line(4, 4, first=0.0, step=1.0005), Line(5, 5), Line(6, 6, first=-0.0005))
    assert resample(array, same, (3, 3, 3)) is array
    assert not Line(4, 4, first=0.0, step=1.002).unchanged
    assert not Line(4, 4, first=0.5).unchanged
    assert not Line(4, 3, first=0.0).unchanged


def test_first_voxels_that_coincide_keep_their_values():
    line = noise((7,))
    every_second = resampling_matrix(Line(7, 4, first=0.0, step=2.0), 1) @ line
    np.testing.assert_allclose(every_second, line[::2], atol=1e-6)
    beyond = resampling_matrix(Line(7, 3, first=4.0, step=2.0), 1) @ line
    np.testing.assert_allclose(beyond, line[[4, 6, 6]], atol=1e-6)  # position 8 repeats the border


def test_few_matrices_are_kept():
    for size in range(2, 102):
        resampling_matrix(Line(size, 3), 1)
    assert resampling_matrix.cache_info().currsize <= 16  # of long axes they are some megabytes each


def test_each_axis_has_its_own_order():
    array = noise((4, 6, 5))
    result = resample(array, lines_between(array.shape, (8, 6, 10)), (0, 3, 1))
    expected = np.repeat(array, 2, axis=0)  # nearest neighbour at twice the size repeats each slice
    expected = np.apply_along_axis(lambda line: resampling_matrix(Line(5, 10), 1) @ line, 2, expected)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_leading_axes_are_resampled_alike():
    array = noise((2, 3, 4, 5, 6))
    lines = lines_between((4, 5, 6), (7, 3, 9))
    result = resample(array, lines, (3, 1, 1))
    for first, second in product(range(2), range(3)):
        np.testing.assert_array_equal(result[first, second], resample(array[first, second], lines, (3, 1, 1)))


def test_arrays_that_are_views_are_resampled_right():
    array = noise((6, 5, 4)).transpose(2, 0, 1)[::-1]
    lines = lines_between(array.shape, (8, 6, 9))
    np.testing.assert_array_equal(resample(array, lines, (3, 3, 3)), resample(array.copy(), lines, (3, 3, 3)))


def test_constants_stay_constant_and_equal_shapes_are_not_copied():
    assert resample(np.full((3, 4, 5), 7.0), lines_between((3, 4, 5), (6, 9, 2)), (3, 3, 3)) == pytest.approx(
        7, abs=1e-5
    )
    array = noise((3, 4, 5))
    assert resample(array, lines_between((3, 4, 5), (3, 4, 5)), (3, 3, 3)) is array


def test_a_coarse_axis_is_taken_by_nearest_neighbour():
    assert orders_for(3, coarse_axis=None) == (3, 3, 3)
    assert orders_for(3, coarse_axis=0) == (0, 3, 3)
    assert orders_for(1, coarse_axis=2) == (1, 1, 0)


def test_a_part_reaches_the_voxels_that_it_takes_part_in():
    # Six voxels become three; voxel 0 lies between 0 and 1, voxel 1 between 2 and 3, voxel 2 between 4 and 5.
    array = np.array([10.0, 20, 30, 40, 50, 60], np.float32).reshape(1, 1, 6)
    lines = lines_between((1, 1, 6), (1, 1, 3))
    whole = (slice(0, 1), slice(0, 1))
    values, place = resample_part(array[..., 3:5], (*whole, slice(3, 5)), lines, (1, 1, 1))
    assert place == (*whole, slice(1, 3))
    assert values.ravel().tolist() == pytest.approx([40, 50])  # of each pair only one voxel is known
    values, place = resample_part(array, (*whole, slice(0, 6)), lines, (1, 1, 1))
    assert place == (*whole, slice(0, 3))
    assert values.ravel().tolist() == pytest.approx([15, 35, 55])


def test_a_part_between_all_sampled_voxels_reaches_none():
    lines = (Line(1, 1), Line(1, 1), Line(9, 3, first=0.0, step=4.0))
    values, place = resample_part(np.ones((1, 1, 2)), (slice(0, 1), slice(0, 1), slice(1, 3)), lines, (1, 1, 1))
    assert values.shape == (1, 1, 0)
    assert place[2] == slice(0, 0)


# Labels


def test_nearest_labels_are_picked_voxels():
    label = np.random.default_rng(0).integers(-1, 4, (3, 6, 5)).astype(np.int16)
    lines = (Line(3, 6), Line(6, 6), Line(5, 3, first=0.0, step=1.8))
    result = resample_labels(label, lines, order=0, coarse_axis=None)
    expected = np.repeat(label, 2, axis=0)[:, :, [0, 2, 4]]  # positions 0, 1.8, 3.6
    np.testing.assert_array_equal(result, expected)


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
            share = resample(label == value, lines_between(label.shape, target), orders_for(1, coarse_axis=coarse_axis))
            wins = (share >= strongest) & (share > 0)
            strongest[wins], expected[wins] = share[wins], value
        result = resample_labels(label, lines_between(label.shape, target), coarse_axis=coarse_axis)
        assert result.dtype == np.int16
        assert np.mean(result != expected) < 1e-3  # rounding may settle a tie the other way


def test_no_value_is_invented_and_ignore_survives():
    label = np.zeros((6, 6, 6), np.int16)
    label[:, :3], label[:, 3:] = 1, 9  # between 1 and 9 lie no others
    label[4:] = -1
    result = resample_labels(label, lines_between(label.shape, (9, 11, 7)), coarse_axis=None)
    assert set(np.unique(result)) == {-1, 1, 9}
    assert (result[7:] == -1).all()  # ignore begins at 4/6 of 9 slices: 6
    assert (result[:5] != -1).all()


def test_ties_go_to_foreground():
    label = np.zeros((1, 1, 4), np.int16)
    label[..., 1] = 1
    assert resample_labels(label, lines_between(label.shape, (1, 1, 2)), coarse_axis=None).tolist() == [[[1, 0]]]


def test_an_equal_shape_leaves_labels_as_they_are():
    label = blobs(0)
    np.testing.assert_array_equal(
        resample_labels(label, lines_between(label.shape, label.shape), coarse_axis=None), label
    )


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
        lines = lines_between(seen.shape, drawn.shape)
        by_class.append(dice(resample_labels(seen.astype(np.int16), lines, coarse_axis=None) == 1, drawn))
        by_nearest.append(dice(resample(seen, lines, (0, 0, 0)) == 1, drawn))
    assert np.mean(by_class) > np.mean(by_nearest) + 0.05
