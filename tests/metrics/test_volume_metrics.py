import numpy as np
import pytest

from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.volume import centre_distance_mm, volume_error_ml, volume_similarity


def pair(num_reference, num_prediction, **options):
    reference, prediction = np.zeros((2, 3, 4, 5), bool)
    reference.flat[:num_reference] = prediction.flat[60 - num_prediction :] = True
    return MaskPair(reference, prediction, (3.0, 10.0, 0.5), **options)


def test_volume_error_is_the_difference_in_ml_whichever_is_larger():
    # 8 voxels of 15 mm3 more or fewer
    assert volume_error_ml(pair(12, 20)) == pytest.approx(0.12)
    assert volume_error_ml(pair(20, 12)) == pytest.approx(0.12)


def test_a_sheared_voxel_is_smaller_than_the_product_of_its_sides():
    assert volume_error_ml(pair(12, 20, voxel_mm3=10.0)) == pytest.approx(0.08)


def test_volume_error_of_one_mask_alone_is_its_volume():
    assert volume_error_ml(pair(4, 0)) == volume_error_ml(pair(0, 4)) == pytest.approx(0.06)


def test_volume_similarity_looks_at_sizes_only():
    assert volume_similarity(pair(12, 12)) == 1.0  # though they have no voxel in common
    assert volume_similarity(pair(12, 4)) == pytest.approx(1 - 8 / 16)
    assert volume_similarity(pair(12, 0)) == 0.0


def test_centre_distance_is_that_of_the_centres_of_mass():
    reference, prediction = np.zeros((2, 5, 6, 7), bool)
    reference[1:4, 2, 2:5] = True  # centre (2, 2, 3)
    prediction[3, 2, 0:7:2] = True  # centre (3, 2, 3)
    assert centre_distance_mm(MaskPair(reference, prediction, (3.0, 1.0, 0.5))) == pytest.approx(3.0)


def test_centre_distance_of_one_mask_alone_is_the_diagonal():
    assert centre_distance_mm(pair(3, 0)) == pytest.approx((9.0**2 + 40.0**2 + 2.5**2) ** 0.5)
