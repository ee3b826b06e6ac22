import numpy as np
import pytest

from voxelseg.errors import ConfigError
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.surface import assd_mm, hd95_mm, hd_mm, masd_mm, surface_dice


def masks(reference_voxels, prediction_voxels, spacing_mm=(3.0, 1.0, 0.5)):
    reference, prediction = np.zeros((7, 9, 11), bool), np.zeros((7, 9, 11), bool)
    for voxel in reference_voxels:
        reference[voxel] = True
    for voxel in prediction_voxels:
        prediction[voxel] = True
    return MaskPair(reference, prediction, spacing_mm)


def test_hd95_of_two_voxels_apart_along_d_is_two_slice_thicknesses():
    assert hd95_mm(masks([(2, 4, 5)], [(4, 4, 5)])) == pytest.approx(6.0)  # 2 slices of 3 mm


def test_hd95_takes_the_worse_direction_and_interpolates():
    # Reference voxel is matched exactly; predicted ones lie 0 and 1.5 mm away: 95 % of the way from 0 to 1.5.
    assert hd95_mm(masks([(2, 4, 5)], [(2, 4, 5), (2, 4, 8)])) == pytest.approx(0.95 * 1.5)


def test_hd95_is_the_diagonal_of_the_image_when_one_mask_is_empty():
    diagonal = (21.0**2 + 9.0**2 + 5.5**2) ** 0.5
    assert hd95_mm(masks([(2, 4, 5)], [])) == pytest.approx(diagonal)
    assert hd95_mm(masks([], [(2, 4, 5)])) == pytest.approx(diagonal)


def test_surface_dice_counts_voxels_of_both_surfaces_within_the_tolerance():
    pair = masks([(2, 4, 5)], [(2, 4, 5), (2, 4, 8), (4, 4, 5)])  # predicted voxels 0, 1.5 and 6 mm away
    assert surface_dice(pair, tolerance_mm=1.0) == pytest.approx(2 / 4)
    assert surface_dice(pair, tolerance_mm=2.0) == pytest.approx(3 / 4)
    assert surface_dice(pair, tolerance_mm=6.0) == 1.0


def test_a_distance_equal_to_the_tolerance_is_within_it_despite_rounding():
    pair = masks([(0, 4, 3)], [(0, 4, 6)], spacing_mm=(3.0, 1.0, 0.1))  # 6 * 0.1 - 3 * 0.1 is just above 0.3
    assert surface_dice(pair, tolerance_mm=0.3) == 1.0


def test_hd_is_the_longest_distance_of_both_directions():
    # Reference voxels lie 0 and 6 mm from the prediction, its only voxel on one of them.
    assert hd_mm(masks([(2, 4, 5), (4, 4, 5)], [(2, 4, 5)])) == pytest.approx(6.0)
    assert hd_mm(masks([(2, 4, 5)], [(2, 4, 5), (4, 4, 5)])) == pytest.approx(6.0)


def test_assd_weighs_voxels_and_masd_directions():
    pair = masks([(2, 4, 5)], [(2, 4, 5), (2, 4, 8), (4, 4, 5)])  # from the reference 0, to it 0, 1.5 and 6 mm
    assert assd_mm(pair) == pytest.approx((0 + 0 + 1.5 + 6) / 4)
    assert masd_mm(pair) == pytest.approx((0 / 1 + 7.5 / 3) / 2)


@pytest.mark.parametrize("metric", [hd_mm, assd_mm, masd_mm])
def test_lengths_of_one_mask_alone_are_the_diagonal(metric):
    assert metric(masks([(2, 4, 5)], [])) == pytest.approx((21.0**2 + 9.0**2 + 5.5**2) ** 0.5)
    assert np.isnan(metric(masks([], [])))


def test_surface_metrics_of_two_empty_masks_are_undefined():
    pair = masks([], [])
    assert np.isnan(hd95_mm(pair))
    assert np.isnan(surface_dice(pair, tolerance_mm=1.0))


def test_surface_dice_is_zero_when_exactly_one_mask_is_empty():
    assert surface_dice(masks([(1, 1, 1)], []), tolerance_mm=100.0) == 0.0
    assert surface_dice(masks([], [(1, 1, 1)]), tolerance_mm=100.0) == 0.0


@pytest.mark.parametrize("tolerance_mm", [-1.0, float("nan"), float("inf")])
def test_an_impossible_tolerance_is_refused(tolerance_mm):
    with pytest.raises(ConfigError, match="tolerance_mm must be"):
        surface_dice(masks([(1, 1, 1)], [(1, 1, 1)]), tolerance_mm=tolerance_mm)
