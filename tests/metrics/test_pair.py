import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.metrics.pair import MaskPair, bounding_box, surface_points_mm


def test_surface_of_a_solid_block_is_its_voxels_without_the_core():
    mask = np.zeros((7, 8, 9), bool)
    mask[1:4, 2:6, 3:8] = True  # 3 x 4 x 5 voxels with a core of 1 x 2 x 3
    points = surface_points_mm(mask, (3.0, 1.0, 0.5))
    assert len(points) == 60 - 6
    assert points.min(axis=0).tolist() == [3.0, 2.0, 1.5]


def test_a_voxel_touching_background_by_an_edge_only_is_not_surface():
    mask = np.ones((3, 3, 3), bool)
    mask[0, 0, 1] = False  # shares an edge, no face, with the centre
    assert [1, 1, 1] not in surface_points_mm(mask, (1.0, 1.0, 1.0)).tolist()


def test_the_image_border_is_surface():
    assert len(surface_points_mm(np.ones((3, 4, 5), bool), (1.0, 1.0, 1.0))) == 60 - 1 * 2 * 3


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
