import numpy as np
import pytest

from voxelseg.metrics.overlap import dice, iou, precision, sensitivity
from voxelseg.metrics.pair import MaskPair


def pair(reference_voxels, prediction_voxels):
    reference, prediction = np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    reference.flat[reference_voxels] = True
    prediction.flat[prediction_voxels] = True
    return MaskPair(reference, prediction, (3.0, 1.0, 0.5))


def test_dice_is_twice_the_overlap_over_both_sizes():
    assert dice(pair([0, 1, 2, 3], [2, 3, 4])) == pytest.approx(4 / 7)


def test_dice_of_equal_masks_is_one():
    assert dice(pair([0, 5, 7], [0, 5, 7])) == 1.0


def test_dice_of_two_empty_masks_is_undefined():
    assert np.isnan(dice(pair([], [])))


@pytest.mark.parametrize(("reference", "prediction"), [([3], []), ([], [3])])
def test_dice_is_zero_when_exactly_one_mask_is_empty(reference, prediction):
    assert dice(pair(reference, prediction)) == 0.0


def test_iou_is_the_overlap_over_the_union():
    assert iou(pair([0, 1, 2, 3], [2, 3, 4])) == pytest.approx(2 / 5)


def test_iou_and_dice_say_the_same_in_other_numbers():
    masks = pair([0, 1, 2, 3, 9], [2, 3, 4])
    assert iou(masks) == pytest.approx(dice(masks) / (2 - dice(masks)))


def test_sensitivity_is_the_share_found_and_precision_the_share_right():
    masks = pair([0, 1, 2, 3], [2, 3, 4])
    assert sensitivity(masks) == pytest.approx(2 / 4)
    assert precision(masks) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [iou, sensitivity, precision])
def test_the_others_are_undefined_and_zero_where_dice_is(metric):
    assert np.isnan(metric(pair([], [])))
    assert metric(pair([3], [])) == metric(pair([], [3])) == 0.0
