import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.metrics.pair import MaskPair, bounding_box


def test_bounding_box_holds_both_masks():
    a, b = np.zeros((7, 9, 11), bool), np.zeros((7, 9, 11), bool)
    a[2, 3, 4] = b[5, 1, 6] = True
    assert bounding_box(a, b) == (slice(2, 6), slice(1, 4), slice(4, 7))


def test_distances_are_in_mm_and_directed():
    reference, prediction = np.zeros((6, 7, 8), bool), np.zeros((6, 7, 8), bool)
    reference[1, 1, 1] = True
    prediction[1, 1, 1] = prediction[3, 1, 1] = prediction[1, 1, 5] = True  # 2 x 3 mm and 4 x 0.5 mm away
    to_prediction, to_reference = MaskPair(reference, prediction, (3.0, 1.0, 0.5)).surface_distances_mm
    assert to_prediction.tolist() == [0.0]
    assert sorted(to_reference.tolist()) == [0.0, 2.0, 6.0]


def test_centres_are_apart_by_the_difference_of_the_mean_positions():
    reference, prediction = np.zeros((6, 7, 8), bool), np.zeros((6, 7, 8), bool)
    reference[1, 1, 1] = reference[3, 1, 1] = True  # centre (2, 1, 1)
    prediction[3, 2, 1] = prediction[3, 2, 3] = prediction[3, 2, 5] = True  # centre (3, 2, 3)
    assert MaskPair(reference, prediction, (3.0, 1.0, 0.5)).centre_shift_mm == pytest.approx((3.0, 1.0, 1.0))


def test_background_around_the_masks_changes_no_bit_of_the_shift():
    generator = np.random.default_rng(0)
    for _ in range(20):
        reference, prediction = generator.random((2, 4, 5, 6)) < 0.5
        found = MaskPair(reference, prediction, (2.9, 1.1, 0.7)).centre_shift_mm
        wider = [np.pad(mask, ((1, 2), (3, 1), (0, 7))) for mask in (reference, prediction)]
        assert MaskPair(*wider, (2.9, 1.1, 0.7)).centre_shift_mm == found


def test_a_voxel_has_the_volume_of_its_sides_unless_it_is_sheared():
    mask = np.ones((1, 2, 3), bool)
    assert MaskPair(mask, mask, (3.0, 1.0, 0.5)).voxel_mm3 == pytest.approx(1.5)
    assert MaskPair(mask, mask, (3.0, 1.0, 0.5), voxel_mm3=1.2).voxel_mm3 == 1.2


def test_diagonal_is_that_of_the_whole_image():
    empty = np.zeros((2, 3, 12), bool)
    assert MaskPair(empty, empty, (2.0, 1.0, 1.0)).diagonal_mm == pytest.approx(13.0)  # sides 4, 3, 12 mm


def test_diagonal_of_a_part_is_that_of_the_image_it_was_cut_from():
    part = np.ones((1, 1, 1), bool)
    assert MaskPair(part, part, (2.0, 1.0, 1.0), image_shape=(2, 3, 12)).diagonal_mm == pytest.approx(13.0)


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4), bool), (1, 1, 1), "reference mask: found shape .* of float64"),
        (np.zeros((2, 3, 4), bool), np.zeros((3, 4), bool), (1, 1, 1), r"prediction mask: found shape \(3, 4\)"),
        (np.zeros((2, 3, 4), bool), np.zeros((2, 3, 5), bool), (1, 1, 1), "Bring both onto one grid"),
        (np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool), (1, 0, 1), "expected three positive numbers"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(reference, prediction, spacing, message):
    with pytest.raises(DataError, match=message):
        MaskPair(reference, prediction, spacing)
