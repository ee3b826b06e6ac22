import hashlib
import json

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.ndimage import label as connected_components

from voxelseg.errors import ConfigError, DataError, VoxelsegError
from voxelseg.io import read_volume
from voxelseg.phantom import FIRST_TEST_INDEX, LABELS, make_phantom, phantom_case
from voxelseg.predict.inputs import find_cases

ORGANS = {name: value for name, value in LABELS.items() if value}
MIN_ML = {
    "liver": 200,
    "spleen": 25,
    "left_kidney": 15,
    "right_kidney": 15,
    "aorta": 18,
    "portal_vein": 5,
    "gallbladder": 4,
}


@pytest.fixture(scope="module")
def cases():
    return [phantom_case(0, index) for index in range(8)]


def _hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _mean_world_x(volume, value):
    index = np.argwhere(volume.array[0] == value).mean(axis=0)
    return (volume.grid.affine_dhw @ [*index, 1.0])[0]


def _best_window_dice(image, mask):
    """Highest Dice of any intensity window [a, b), in steps of 5 HU from -200 to 395."""
    edges = np.array([-2000, *range(-200, 400, 5), 5000])
    inside = np.cumsum([0, *np.histogram(image[mask], edges)[0]])
    every = np.cumsum([0, *np.histogram(image, edges)[0]])
    first, last = np.triu_indices(len(edges), 1)
    return (2 * (inside[last] - inside[first]) / (inside[-1] + every[last] - every[first])).max()


def test_case_depends_on_seed_and_index_only(cases):
    again = phantom_case(0, 3)
    np.testing.assert_array_equal(again.image.array, cases[3].image.array)
    np.testing.assert_array_equal(again.label.array, cases[3].label.array)
    assert again.image.grid.to_dict() == cases[3].image.grid.to_dict()
    other_seed = phantom_case(1, 3)
    assert other_seed.image.grid.to_dict() != cases[3].image.grid.to_dict()


def test_image_is_int16_hounsfield_and_label_is_uint8_on_one_grid(cases):
    for case in cases:
        assert (case.image.array.dtype, case.label.array.dtype) == (np.int16, np.uint8)
        assert case.image.array.shape[0] == case.label.array.shape[0] == 1
        assert case.image.grid is case.label.grid
        corner = case.image.array[0, :, -4:, :4]  # air outside the body
        assert np.median(corner) == pytest.approx(-1000, abs=4)


def test_every_organ_has_its_volume_in_every_case(cases):
    for case in cases:
        ml_per_voxel = np.prod(case.label.spacing_mm) / 1000
        for name, value in ORGANS.items():
            assert (case.label.array == value).sum() * ml_per_voxel > MIN_ML[name], name
        assert set(np.unique(case.label.array)) == set(LABELS.values())


def test_small_organs_are_in_one_piece_of_at_least_three_voxels_thickness(cases):
    for case in cases:
        for name in ("portal_vein", "gallbladder", "aorta"):
            mask = case.label.array[0] == ORGANS[name]
            assert connected_components(mask, np.ones((3, 3, 3)))[1] == 1, name
            core = binary_erosion(mask, np.ones((3, 3, 3)))  # voxels all of whose neighbours belong to the organ
            assert core.sum() >= 5, name


def test_left_kidney_and_spleen_lie_on_the_left_of_the_patient(cases):
    for case in cases:  # x of RAS+ grows to the right
        left, right = (_mean_world_x(case.label, ORGANS[f"{side}_kidney"]) for side in ("left", "right"))
        assert left < right - 60
        assert _mean_world_x(case.label, ORGANS["spleen"]) < _mean_world_x(case.label, ORGANS["liver"]) - 60


def test_grids_differ_in_orientation_tilt_spacing_and_origin(cases):
    grids = [case.image.grid for case in cases]
    assert len({(grid.orientation.axes, grid.orientation.flips) for grid in grids}) >= 4
    assert any(any(grid.orientation.flips) for grid in grids)
    off_axis = [1 - np.abs(g.affine_ijk[:3, :3]).max(0) / np.linalg.norm(g.affine_ijk[:3, :3], axis=0) for g in grids]
    tilted = [bool((turned > 1e-4).any()) for turned in off_axis]
    assert any(tilted)
    assert not all(tilted)
    for grid in grids:
        d, h, w = grid.spacing_mm
        assert 3.0 <= d <= 4.0
        assert 2.5 <= h <= 2.85
        assert w == pytest.approx(h, rel=1e-6)
        assert np.linalg.norm(grid.affine_ijk[:3, 3]) > 10
        assert all(
            low <= size <= high for size, low, high in zip(grid.shape_dhw, (32, 65, 79), (43, 74, 90), strict=True)
        )
    assert len({grid.spacing_mm for grid in grids}) == len(grids)


def test_no_intensity_window_finds_an_organ(cases):
    images = np.concatenate([case.image.array.ravel() for case in cases])
    labels = np.concatenate([case.label.array.ravel() for case in cases])
    for name, value in ORGANS.items():
        assert _best_window_dice(images, labels == value) < (0.6 if name == "liver" else 0.4), name


def test_best_window_dice_of_a_separable_mask_is_one():
    image = np.array([0, 0, 100, 100, 300])
    assert _best_window_dice(image, image == 100) == 1.0


def test_data_set_has_msd_layout_and_files_hold_the_cases(tmp_path):
    seen = []
    folder = make_phantom(
        tmp_path, num_training=2, num_test=1, seed=5, progress=lambda done, of: seen.append((done, of))
    )
    assert folder == tmp_path / "Task900_Phantom"
    assert seen == [(1, 3), (2, 3), (3, 3)]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["modality"] == {"0": "CT"}
    assert description["labels"]["0"] == "background"
    assert description["labels"]["3"] == "left_kidney"
    assert (description["numTraining"], description["numTest"]) == (2, 1)
    assert description["training"][1] == {
        "image": "./imagesTr/phantom_001.nii.gz",
        "label": "./labelsTr/phantom_001.nii.gz",
    }
    assert description["test"] == ["./imagesTs/phantom_1000.nii.gz"]
    case = phantom_case(5, FIRST_TEST_INDEX)
    for part, volume in (("images", case.image), ("labels", case.label)):
        stored = read_volume(folder / f"{part}Ts" / "phantom_1000.nii.gz")
        np.testing.assert_array_equal(stored.array, volume.array)
        assert stored.array.dtype == volume.array.dtype
        assert stored.grid.differences(volume.grid, tolerance_voxels=1e-3) == []
        np.testing.assert_array_equal(stored.grid.affine_ijk, volume.grid.affine_ijk)


def test_each_training_scan_is_a_case_of_its_own_for_prediction(tmp_path):
    folder = make_phantom(tmp_path, num_training=2, num_test=1)
    for part, names in (("imagesTr", ["phantom_000", "phantom_001"]), ("imagesTs", ["phantom_1000"])):
        assert [case.id for case in find_cases(folder / part, channels=["CT"])] == names


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_cases_or_workers(tmp_path):
    small = _hashes(make_phantom(tmp_path / "a", num_training=1, num_test=1, seed=2, num_workers=1))
    large = _hashes(make_phantom(tmp_path / "b", num_training=2, num_test=1, seed=2, num_workers=2))
    assert small.pop("dataset.json") != large.pop("dataset.json")
    assert small.items() < large.items()


def test_repeated_call_keeps_complete_files_and_makes_missing_ones(tmp_path):
    folder = make_phantom(tmp_path, num_training=2, num_test=0)
    before = _hashes(folder)
    kept, lost = folder / "imagesTr/phantom_000.nii.gz", folder / "labelsTr/phantom_001.nii.gz"
    time_of_kept = kept.stat().st_mtime_ns
    lost.unlink()
    (folder / "imagesTr/.partial-abcphantom_001.nii.gz").write_bytes(b"half")
    (folder / "dataset.json").unlink()
    make_phantom(tmp_path, num_training=2, num_test=0)
    assert _hashes(folder) == before
    assert kept.stat().st_mtime_ns == time_of_kept


def test_folder_of_another_seed_or_data_set_is_left_alone(tmp_path):
    folder = make_phantom(tmp_path, num_training=1, num_test=0)
    before = _hashes(folder)
    with pytest.raises(DataError, match=r"'seed': 0.*expected .*'seed': 1"):
        make_phantom(tmp_path, num_training=1, num_test=0, seed=1)
    (folder / "phantom.json").unlink()
    with pytest.raises(DataError, match="not a phantom"):
        make_phantom(tmp_path, num_training=1, num_test=0)
    before.pop("phantom.json")
    assert _hashes(folder) == before


@pytest.mark.parametrize("wrong", [{"num_training": 0}, {"num_test": -1}, {"num_workers": 0}, {"seed": -1}])
def test_impossible_numbers_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"-1|0"):
        make_phantom(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_output_place_that_is_a_file_is_named(tmp_path):
    (tmp_path / "occupied").write_text("")
    with pytest.raises(VoxelsegError, match=r"occupied.*cannot be written"):
        make_phantom(tmp_path / "occupied", num_training=1, num_test=0)


def test_negative_index_is_refused():
    with pytest.raises(ConfigError, match="case -1"):
        phantom_case(0, -1)
