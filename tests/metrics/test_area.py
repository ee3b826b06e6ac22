import math

import numpy as np
import pytest
from surface_distance import lookup_tables

from voxelseg.metrics.area import area_hd95_mm, area_masd_mm, area_surface_dice, areas_mm2
from voxelseg.metrics.pair import MaskPair


def masks(reference_voxels, prediction_voxels, spacing_mm=(3.0, 1.0, 0.5)):
    reference, prediction = np.zeros((2, 7, 9, 11), bool)
    for voxel in reference_voxels:
        reference[voxel] = True
    for voxel in prediction_voxels:
        prediction[voxel] = True
    return MaskPair(reference, prediction, spacing_mm)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5), (0.7, 2.5, 1.3)])
def test_every_area_is_that_of_the_package_of_nikolov_and_others(spacing_mm):
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    # There the first of the eight voxels has bit 7; here it has bit 0.
    codes = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    assert areas_mm2(spacing_mm)[codes].tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_one_of_eight_voxels_is_cut_off_by_a_triangle():
    # Its corners lie half a voxel from the voxel along each axis: (1.5, 0, 0), (0, 0.5, 0), (0, 0, 0.25) mm.
    expected = np.linalg.norm(np.cross((-1.5, 0.5, 0.0), (-1.5, 0.0, 0.25))) / 2
    table = areas_mm2((3.0, 1.0, 0.5))
    assert [table[1 << bit] for bit in range(8)] == pytest.approx([expected] * 8)


def test_half_of_eight_voxels_are_cut_off_by_a_rectangle():
    table = areas_mm2((3.0, 1.0, 0.5))
    assert table[0b00001111] == pytest.approx(1.0 * 0.5)  # the lower four along D: a side of H and W
    assert table[0b00110011] == pytest.approx(3.0 * 0.5)
    assert table[0b01010101] == pytest.approx(3.0 * 1.0)


def test_no_surface_within_foreground_or_background():
    assert areas_mm2((3.0, 1.0, 0.5))[[0, 255]].tolist() == [0.0, 0.0]


def test_equal_masks_have_no_distance():
    pair = masks([(2, 4, 5), (2, 4, 6)], [(2, 4, 5), (2, 4, 6)])
    assert area_surface_dice(pair, tolerance_mm=0.0) == 1.0
    assert area_hd95_mm(pair) == area_masd_mm(pair) == 0.0


def test_single_voxels_apart_have_corners_at_one_distance_each_way():
    # The prediction lies 4 voxels along W, 2 mm: four of the eight corners are 2 mm from the nearest, four 1.5 mm.
    pair = masks([(2, 4, 3)], [(2, 4, 7)])
    assert area_masd_mm(pair) == pytest.approx(1.75)
    assert area_hd95_mm(pair) == pytest.approx(2.0)
    assert area_surface_dice(pair, tolerance_mm=1.5) == pytest.approx(0.5)
    assert area_surface_dice(pair, tolerance_mm=2.0) == 1.0


def test_a_distance_equal_to_the_tolerance_is_within_it_despite_rounding():
    assert area_surface_dice(masks([(0, 4, 3)], [(0, 4, 7)], (3.0, 1.0, 0.1)), tolerance_mm=0.3) == pytest.approx(0.5)


def test_empty_masks_follow_the_rule_of_all_metrics():
    diagonal = math.hypot(21.0, 9.0, 5.5)
    for pair in (masks([(1, 1, 1)], []), masks([], [(1, 1, 1)])):
        assert area_surface_dice(pair, tolerance_mm=100.0) == 0.0
        assert area_hd95_mm(pair) == area_masd_mm(pair) == pytest.approx(diagonal)
    nothing = masks([], [])
    assert all(math.isnan(value) for value in (area_hd95_mm(nothing), area_masd_mm(nothing)))
    assert math.isnan(area_surface_dice(nothing, tolerance_mm=1.0))
