import itertools
import math

import numpy as np
import pytest

from voxelseg.metrics.nearest import Points, margins, nearest_mm, shells

SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5), (0.7, 2.5, 1.3), (8.0, 0.4, 0.4), (0.1, 4.0, 9.0)]


def points(mask, spacing_mm):
    rim = margins(spacing_mm)
    grid = np.pad(mask, [(width, width) for width in rim])
    return Points(grid.reshape(-1), np.flatnonzero(grid), grid.shape)


def by_all_pairs(mask, other, spacing_mm):
    scaled = [np.argwhere(one) for one in (mask, other)]
    offsets = (scaled[0][:, None] - scaled[1][None]) * np.array(spacing_mm)
    return np.sqrt(np.square(offsets).sum(axis=2)).min(axis=1)


def test_the_nearest_places_come_first():
    first, second, third, *_ = shells((3.0, 1.0, 0.5))
    assert (first.distance_mm, first.offsets_dhw) == (0.0, ((0, 0, 0),))
    assert (second.distance_mm, second.offsets_dhw) == (0.5, ((0, 0, -1), (0, 0, 1)))
    assert third.distance_mm == 1.0  # two voxels along W, and one along H
    assert set(third.offsets_dhw) == {(0, 0, -2), (0, 0, 2), (0, -1, 0), (0, 1, 0)}


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_no_place_within_reach_is_left_out(spacing_mm):
    found = shells(spacing_mm)
    offsets = [offset for shell in found for offset in shell.offsets_dhw]
    reach = found[-1].distance_mm
    sides = [range(-int(reach / step) - 1, int(reach / step) + 2) for step in spacing_mm]
    near = {
        offset
        for offset in itertools.product(*sides)
        if math.hypot(*(step * size for step, size in zip(offset, spacing_mm, strict=True))) <= reach * (1 - 1e-9)
    }
    assert near <= set(offsets)
    assert len(offsets) == len(set(offsets))
    furthest = [max(abs(offset[axis]) for offset in offsets) for axis in range(3)]
    assert all(far <= margin for far, margin in zip(furthest, margins(spacing_mm), strict=True))


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("share", [0.003, 0.05, 0.5])
def test_distances_are_exactly_those_of_all_pairs(share, spacing_mm):
    generator = np.random.default_rng(0)
    for _ in range(4):
        mask, other = generator.random((2, 9, 17, 14)) < share
        mask[0, 0, 0] = other[8, 16, 13] = True  # the farthest corners; none of both is empty
        found = nearest_mm(points(mask, spacing_mm), points(other, spacing_mm), spacing_mm)
        assert found.tolist() == by_all_pairs(mask, other, spacing_mm).tolist()


def test_ends_of_neighbouring_rows_are_not_near_each_other():
    mask, other = np.zeros((2, 1, 3, 30), bool)
    mask[0, 0, 29] = other[0, 1, 0] = True  # one after the other in memory, but for the rim
    found = nearest_mm(points(mask, (1.0, 1.0, 1.0)), points(other, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
    assert found.tolist() == [math.hypot(1, 29)]
