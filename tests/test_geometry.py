import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import io_orientation

from voxelseg.errors import DataError
from voxelseg.geometry import Affine, Grid, from_canonical, orientation_of, to_canonical

SHAPE_IJK = (5, 6, 7)


def rotation(degrees_xyz: tuple[float, float, float]) -> Affine:
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees_xyz)):
        a, b = [one for one in range(3) if one != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


def oriented_affines() -> list[Affine]:
    """All 48 orientations, spacing 0.5, 2, 3 mm along i, j, k, each tilted by (11, -7, 5) degrees."""
    affines = []
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        columns = np.eye(3)[:, list(axes)] * signs * (0.5, 2.0, 3.0)
        affine = np.eye(4)
        affine[:3, :3] = rotation((11, -7, 5)) @ columns
        affine[:3, 3] = (-12.5, 40.0, 7.25)
        affines.append(affine)
    return affines


def test_scan_of_lps_axes_is_permuted_to_sar_and_two_axes_flipped():
    # i runs left, j posterior, k superior: D is k as it is, H is j backwards, W is i backwards
    grid = Grid(shape_ijk=SHAPE_IJK, affine_ijk=np.diag([-0.5, -2.0, 3.0, 1.0]))
    array = np.arange(5 * 6 * 7).reshape(1, *SHAPE_IJK)
    canonical = to_canonical(array, grid.orientation)
    assert grid.shape_dhw == canonical.shape[1:] == (7, 6, 5)
    assert grid.spacing_mm == (3.0, 2.0, 0.5)
    assert canonical[0, 1, 0, 0] == array[0, 4, 5, 1]
    # voxel (0, 0, 0) of the canonical array is file voxel (4, 5, 0) at (-0.5*4, -2*5, 0) mm
    np.testing.assert_allclose(grid.affine_dhw, [[0, 0, 0.5, -2], [0, 2, 0, -10], [3, 0, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", oriented_affines())
def test_every_orientation_goes_to_canonical_and_back_and_keeps_world_coordinates(affine: Affine):
    grid = Grid(shape_ijk=SHAPE_IJK, affine_ijk=affine)
    array = np.random.default_rng(0).integers(0, 1000, (2, *SHAPE_IJK))
    canonical = to_canonical(array, grid.orientation)
    np.testing.assert_array_equal(from_canonical(canonical, grid.orientation), array)
    d, h, w = np.argwhere(canonical[0] == array[0, 1, 2, 3])[0]
    np.testing.assert_allclose(apply_affine(grid.affine_dhw, (d, h, w)), apply_affine(affine, (1, 2, 3)))
    world_steps = grid.affine_dhw[:3, :3] / np.asarray(grid.spacing_mm)
    assert (np.diag(world_steps[::-1]) > 0.9).all()  # D, H, W run to S, A, R


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tilt=st.tuples(*[st.floats(-30, 30)] * 3),
    shear=st.floats(-0.3, 0.3),
    choice=st.integers(0, 47),
)
def test_orientation_of_tilted_and_sheared_scans_agrees_with_nibabel(tilt, shear, choice):
    affine = oriented_affines()[choice].copy()
    sheared = np.eye(3)
    sheared[0, 2] = shear
    affine[:3, :3] = rotation(tilt) @ affine[:3, :3] @ sheared
    scores = np.sort(np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)), axis=0)
    if (scores[2] - scores[1] < 0.1).any():
        return  # nearly a tie, where NiBabel decides by rounding
    expected = io_orientation(affine)
    found = orientation_of(affine)
    for world, axis, flip in zip((2, 1, 0), found.axes, found.flips, strict=True):
        assert expected[axis].tolist() == [world, -1 if flip else 1]


def test_scan_tilted_by_45_degrees_gets_one_orientation_whatever_the_rounding():
    found = set()
    for noise in (-1e-6, 0.0, 1e-6):
        affine = np.eye(4)
        affine[:3, :3] = rotation((45, 0, 0))
        affine[1, 1] += noise
        found.add(orientation_of(affine))
    assert len(found) == 1


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 0.0, 2.0, 1.0]),
        np.diag([1.0, np.nan, 2.0, 1.0]),
        np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
    ],
    ids=["zero", "nan", "parallel"],
)
def test_degenerate_affine_is_an_error_with_a_remedy(affine: Affine):
    with pytest.raises(DataError, match="Repair the scan's header"):
        Grid(shape_ijk=SHAPE_IJK, affine_ijk=affine)


def test_grid_without_voxels_is_an_error():
    with pytest.raises(DataError, match="at least 1"):
        Grid(shape_ijk=(3, 0, 2), affine_ijk=np.eye(4))


def test_grid_survives_json_exactly():
    affine = oriented_affines()[17]
    grid = Grid(shape_ijk=SHAPE_IJK, affine_ijk=affine, sform=affine / 3, sform_code=2, units="um", extra={"a": [1, 2]})
    again = Grid.from_dict(json.loads(json.dumps(grid.to_dict())))
    np.testing.assert_array_equal(again.affine_ijk, grid.affine_ijk)
    np.testing.assert_array_equal(again.sform, grid.sform)
    assert again.qform is None
    assert (again.shape_ijk, again.sform_code, again.qform_code) == (SHAPE_IJK, 2, 0)
    assert (again.units, again.extra) == ("um", {"a": [1, 2]})


def moved(**changes: float) -> Grid:
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    affine[0, 3] = changes.get("shift", 0.0)
    affine[1, 1] *= changes.get("stretch", 1.0)
    affine[:3, :3] = rotation((0, 0, changes.get("turn", 0.0))) @ affine[:3, :3]
    return Grid(shape_ijk=SHAPE_IJK, affine_ijk=affine)


def test_same_scan_stored_in_another_orientation_has_no_differences():
    flipped = Grid(
        shape_ijk=(7, 6, 5), affine_ijk=np.array([[0, 0, -0.5, 2], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
    )
    assert moved().differences(flipped, tolerance_voxels=1e-3) == []


@pytest.mark.parametrize(
    ("options", "voxels"), [({}, 0.5), ({"tolerance_voxels": 0.01}, 0.01)], ids=["usual", "strict"]
)
def test_differences_below_the_tolerance_do_not_count(options, voxels):
    limit = voxels * 0.5  # the smallest spacing in mm
    assert moved().differences(moved(shift=0.9 * limit), **options) == []
    assert moved().differences(moved(shift=1.2 * limit), **options) == [
        f"origin (0, 0, 0) against ({1.2 * limit:.4g}, 0, 0) mm"
    ]


def test_differences_name_spacing_direction_and_shape():
    assert moved().differences(moved(stretch=1.1)) == ["spacing (3, 2, 0.5) against (3, 2.2, 0.5) mm"]
    assert moved().differences(moved(turn=5)) == ["direction of D, H, W turned by (0, 5, 5) degrees"]
    other = Grid(shape_ijk=(5, 6, 8), affine_ijk=np.eye(4))
    assert moved().differences(other) == ["shape (7, 6, 5) against (8, 6, 5)"]
