import numpy as np
import pytest
from scipy import ndimage

from voxelseg.metrics.padded import Padded

RIM = (2, 1, 3)


def padded(mask):
    return Padded.of(mask, RIM)


def places(points):
    """Places (N, 3) in the mask's own coordinates along D, H, W."""
    return (np.argwhere(points.marked.reshape(points.shape)) - RIM).tolist()


def test_surface_of_a_solid_block_is_its_voxels_without_the_core():
    mask = np.zeros((7, 8, 9), bool)
    mask[1:4, 2:6, 3:8] = True  # 3 x 4 x 5 voxels with a core of 1 x 2 x 3
    found = places(padded(mask).surface())
    assert len(found) == 60 - 6
    assert np.min(found, axis=0).tolist() == [1, 2, 3]


def test_a_voxel_touching_background_by_an_edge_only_is_not_surface():
    mask = np.ones((3, 3, 3), bool)
    mask[0, 0, 1] = False  # shares an edge, no face, with the centre
    assert [1, 1, 1] not in places(padded(mask).surface())


def test_the_image_border_is_surface():
    assert len(places(padded(np.ones((3, 4, 5), bool)).surface())) == 60 - 1 * 2 * 3


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("seed", range(5))
def test_surface_is_what_an_erosion_takes_away(seed, share):
    mask = np.random.default_rng(seed).random((5, 7, 6)) < share
    found = padded(mask).surface()
    assert places(found) == np.argwhere(mask & ~ndimage.binary_erosion(mask)).tolist()
    assert found.places.tolist() == np.flatnonzero(found.marked).tolist()


def test_a_single_voxel_has_eight_corners_each_with_a_code_of_its_own():
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 2, 3] = True
    corners, codes = padded(mask).corners()
    assert places(corners) == [[d, h, w] for d in (0, 1) for h in (1, 2) for w in (2, 3)]
    # At the first corner the voxel is the last of the eight: d = h = w = 1, bit 4 + 2 + 1.
    assert codes.tolist() == [128, 64, 32, 16, 8, 4, 2, 1]


def test_corners_within_foreground_or_background_are_not_surface():
    corners, codes = padded(np.ones((2, 2, 2), bool)).corners()
    assert len(places(corners)) == 27 - 1  # of 3 x 3 x 3 corners all but the one in the middle
    assert [0, 0, 0] not in places(corners)
    assert set(codes.tolist()).isdisjoint({0, 255})


def test_runs_are_stretches_of_foreground_along_w():
    mask = np.zeros((1, 2, 6), bool)
    mask[0, 0, [0, 1, 4]] = mask[0, 1, 5] = True
    starts, ends = padded(mask).runs
    first = 2 * (2 + 2) * (6 + 6) + 1 * 12 + 3  # two planes of 4 x 12 voxels, a row, three voxels
    assert (starts - first).tolist() == [0, 4, 12 + 5]
    assert (ends - first).tolist() == [2, 5, 12 + 6]
