import dataclasses

import numpy as np
import pytest

from voxelseg.data import read_dataset
from voxelseg.data.labels import parse_labels
from voxelseg.errors import DataError
from voxelseg.geometry import Grid
from voxelseg.io import read_channels, read_label
from voxelseg.plan import Normalization, Plan, compute_fingerprint, make_plan
from voxelseg.preprocess.case import preprocess_image, preprocess_label, to_scan
from voxelseg.volume import Volume

LABELS = parse_labels({"background": 0, "liver": 2, "spleen": 5, "ignore": 9})


def volume(array: np.ndarray, spacing_dhw: tuple[float, float, float]) -> Volume:
    d, h, w = spacing_dhw
    return Volume(array, Grid(shape_ijk=array.shape[:0:-1], affine_ijk=np.diag([w, h, d, 1.0])))


def plan_of(spacing: tuple[float, float, float], *, axes=(0, 1, 2), anisotropic=False, channels=1) -> Plan:
    return Plan(
        channels=("MRI",) * channels,
        axes=axes,
        spacing_mm=spacing,
        anisotropic=anisotropic,
        normalization=(Normalization(kind="none"),) * channels,
        patch_size=(8, 8, 8),
        batch_size=2,
        mirror_axes=(),
        median_shape=(8, 8, 8),
        strides=((1, 1, 1),),
        kernels=((3, 3, 3),),
    )


def framed(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Noise from 1 to 2 with a frame of zeros: 1 before, 2 after along each axis."""
    array = np.zeros((1, *shape), np.float32)
    inner = array[:, 1:-2, 1:-2, 1:-2]
    inner[:] = np.random.default_rng(seed).uniform(1, 2, inner.shape)
    return array


def test_without_resampling_the_way_there_and_back_is_exact():
    scan = volume(framed((9, 11, 7)), (3.0, 1.0, 2.0))
    image, placement = preprocess_image(scan, plan_of((3.0, 1.0, 2.0)))
    assert image.shape == (1, 6, 8, 4)
    assert placement.box == (slice(1, 7), slice(1, 9), slice(1, 5))
    np.testing.assert_array_equal(to_scan(image, placement, outside=np.zeros(1, np.float32)), scan.array)


def test_the_plans_axes_are_undone():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 5.0))
    image, placement = preprocess_image(scan, plan_of((5.0, 1.0, 1.0), axes=(2, 0, 1), anisotropic=True))
    assert image.shape == (1, 4, 6, 8)
    np.testing.assert_array_equal(image[0], scan.array[0, 1:7, 1:9, 1:5].transpose(2, 0, 1))
    np.testing.assert_array_equal(to_scan(image, placement, outside=np.zeros(1, np.float32)), scan.array)


def test_a_smooth_volume_survives_resampling_there_and_back():
    d, h, w = np.meshgrid(*(np.linspace(0, 2, size) for size in (16, 20, 24)), indexing="ij")
    scan = volume((2 + np.sin(d + h) * np.cos(w))[None].astype(np.float32), (2.0, 1.5, 1.0))
    image, placement = preprocess_image(scan, plan_of((1.0, 1.0, 1.0), axes=(1, 2, 0)))
    assert image.shape == (1, 30, 24, 32)
    back = to_scan(image, placement, outside=np.zeros(1, np.float32))
    assert back.shape == scan.array.shape
    assert np.abs(back - scan.array).max() < 0.03


def test_outside_the_crop_each_output_has_its_own_value():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    _, placement = preprocess_image(scan, plan_of((2.0, 2.0, 2.0)))
    outputs = np.full((2, *placement.shape), 0.5, np.float32)
    back = to_scan(outputs, placement, outside=np.array([1.0, 0.0], np.float32))
    assert back.shape == (2, 9, 11, 7)
    assert back[:, 0, 0, 0].tolist() == [1, 0]
    assert back[:, 3, 4, 3].tolist() == pytest.approx([0.5, 0.5])
    assert (back[0] == 1).sum() == 9 * 11 * 7 - 6 * 8 * 4


def test_outputs_are_not_copied_when_nothing_was_changed():
    scan = volume(np.ones((1, 3, 4, 5), np.float32), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(scan, plan_of((1.0, 1.0, 1.0)))
    assert np.shares_memory(to_scan(image, placement, outside=np.zeros(1, np.float32)), image)


def test_sizes_are_rounded_and_never_0():
    scan = volume(np.ones((1, 5, 4, 1), np.float32), (1.0, 1.3, 0.2))
    image, _ = preprocess_image(scan, plan_of((2.0, 1.0, 1.0)))
    assert image.shape[1:] == (2, 5, 1)  # 2.5 to the even 2, 5.2, 0.2


def test_a_scan_that_is_coarse_itself_is_not_interpolated_between_its_slices():
    array = np.zeros((1, 4, 6, 6), np.float32)
    array[0, 1:3], array[0, 0], array[0, 3] = 8, 1, 3
    image, placement = preprocess_image(volume(array, (4.0, 1.0, 1.0)), plan_of((1.0, 1.0, 1.0)))
    assert placement.coarse_axis == 0
    assert set(np.unique(image)) == {1, 3, 8}
    # the same along W, whatever the plan's D is
    turned = volume(array.transpose(0, 2, 3, 1), (1.0, 1.0, 4.0))
    image, placement = preprocess_image(turned, plan_of((1.0, 1.0, 1.0)))
    assert placement.coarse_axis == 2
    assert set(np.unique(image)) == {1, 3, 8}


def test_slices_are_interpolated_if_the_plan_says_so():
    array = np.zeros((1, 4, 6, 6), np.float32)
    array[0, 1:3], array[0, 0], array[0, 3] = 8, 1, 3
    plan = plan_of((1.0, 1.0, 1.0)).changed(nearest_along_coarse=False)
    image, placement = preprocess_image(volume(array, (4.0, 1.0, 1.0)), plan)
    assert placement.coarse_axis is None
    assert len(np.unique(image[0, :, 0, 0].round(3))) > 8


def test_a_fine_scan_follows_the_anisotropic_plan():
    scan = volume(np.random.default_rng(0).uniform(1, 2, (1, 12, 4, 4)).astype(np.float32), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(scan, plan_of((4.0, 1.0, 1.0), anisotropic=True))
    assert placement.coarse_axis == 0
    np.testing.assert_array_equal(image[0], scan.array[0, [2, 6, 10]])  # centres at 1.5, 5.5, 9.5: the upper neighbour


def test_normalisation_sees_the_cropped_scan_before_resampling():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    plan = plan_of((1.0, 1.0, 1.0)).changed(normalization=[{"kind": "zscore"}])
    image, _ = preprocess_image(scan, plan)
    assert image.mean() == pytest.approx(0, abs=1e-5)
    assert image.std() == pytest.approx(1, abs=1e-5)


def test_labels_follow_the_image_and_become_positions():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 2.0))
    array = np.zeros((1, 9, 11, 7), np.uint8)
    array[0, 2:6, 2:5, 2:4], array[0, 2:6, 5:8, 2:4], array[0, 2, 2, 2] = 2, 5, 9
    plan = plan_of((2.0, 1.0, 1.0), axes=(2, 0, 1))
    image, placement = preprocess_image(scan, plan)
    target = preprocess_label(volume(array, (1.0, 1.0, 2.0)), placement, LABELS)
    assert target.shape == image.shape[1:] == (4, 6, 8)
    np.testing.assert_array_equal(
        target[1], [[0] * 8] + [[0, -1, 1, 1, 2, 2, 2, 0]] + [[0, 1, 1, 1, 2, 2, 2, 0]] * 3 + [[0] * 8]
    )


def test_an_empty_scan_is_kept_whole():
    image, placement = preprocess_image(volume(np.zeros((1, 3, 4, 5), np.int16), (1.0, 1.0, 1.0)), plan_of((1.0,) * 3))
    assert image.shape == (1, 3, 4, 5)
    assert not image.any()
    assert placement.cropped_shape == (3, 4, 5)


def test_wrong_channels_and_voxels_that_are_no_numbers_are_errors():
    scan = volume(np.ones((2, 3, 4, 5), np.float32), (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"2 channel\(s\), the plan expects 1: MRI"):
        preprocess_image(scan, plan_of((1.0,) * 3))
    scan.array[1, 2, 3, 4] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        preprocess_image(scan, plan_of((1.0,) * 3, channels=2))


@pytest.mark.parametrize(("name", "num_cases"), [("Dataset027_ACDC", 2), ("Dataset015_BraTS", 1)])
def test_real_scans_come_back_onto_their_grid(shared_data, name, num_cases):
    dataset = read_dataset(shared_data / name)
    dataset = dataclasses.replace(dataset, cases=dataset.cases[:num_cases])
    plan = make_plan(compute_fingerprint(dataset))
    for case in dataset.cases:
        scan, label = read_channels(case.images), read_label(case.label)
        image, placement = preprocess_image(scan, plan)
        target = preprocess_label(label, placement, dataset.labels)
        assert image.shape == (len(dataset.channels), *target.shape)
        assert set(np.unique(target)) == set(np.unique(dataset.labels.encode(label.array)))
        one_hot = np.stack([target == value for value in range(dataset.labels.num_outputs)])
        outside = np.eye(dataset.labels.num_outputs, dtype=np.float32)[0]
        restored = dataset.labels.decode(to_scan(one_hot, placement, outside=outside))
        assert restored.shape == scan.shape_dhw
        assert np.mean(restored == label.array[0]) > 0.999
