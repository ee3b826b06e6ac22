import numpy as np
import pytest

from voxelseg.metrics.overlap import dice
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
