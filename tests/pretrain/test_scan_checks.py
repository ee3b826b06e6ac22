from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data.dataset import Dataset
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.plan.fingerprint import compute_fingerprint
from voxelseg.pretrain.scan_checks import scan_warnings
from voxelseg.pretrain.scans import read_scans
from voxelseg.volume import Volume

SHAPE = (8, 20, 24)


@pytest.fixture
def scans_of(tmp_path) -> Callable[..., Dataset]:
    """Function that writes arrays (D, H, W) as scans and returns their data set."""

    def write(**arrays: np.ndarray) -> Dataset:
        for name, array in arrays.items():
            grid = Grid(shape_ijk=array.shape[::-1], affine_ijk=np.diag([1.0, 1.5, 2.0, 1.0]))
            write_volume(tmp_path / f"{name}.nii.gz", Volume(array[None], grid))
        return read_scans(tmp_path)

    return write


def mr(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Positive intensities from 1 to about 500, times `scale`."""
    tissue = np.random.default_rng(seed).normal(200, 80, SHAPE).astype(np.float32)
    return np.maximum(np.abs(tissue), 1) * np.float32(scale)


def ct(seed: int = 0) -> np.ndarray:
    """Air at -1000 HU around soft tissue at 40."""
    array = np.full(SHAPE, -1000.0, np.float32)
    array[:, 5:15, 6:18] = 40
    return array + np.random.default_rng(seed).normal(0, 20, SHAPE).astype(np.float32)


def warnings_of(scans: Dataset, axis: int = 0) -> list[str]:
    return scan_warnings(scans, compute_fingerprint(scans), slice_axis=axis)


def test_scans_of_one_kind_are_fine_whatever_their_scale(scans_of):
    assert warnings_of(scans_of(a=mr(0), b=mr(1, 0.01), c=mr(2, 1000.0))) == []


def test_cts_are_fine_among_themselves(scans_of):
    scans = scans_of(a=ct(0), b=ct(1))
    assert warnings_of(scans) == []
    assert warnings_of(replace(scans, channels=("CT",))) == []


def test_a_ct_among_mr_scans_is_named(scans_of):
    (warning,) = warnings_of(scans_of(a=mr(0), b=mr(1), c=mr(2), liver=ct()))
    assert warning.startswith("1 of 4 scans has channel_0 intensities of another kind than the others: liver. liver ")
    assert "take them out, or pre-train on each kind alone" in warning


def test_mr_scans_among_cts_are_named_and_so_is_soft_tissue_without_air(scans_of):
    (warning,) = warnings_of(scans_of(a=ct(0), b=ct(1), c=ct(2), d=mr(0), e=mr(1)))
    assert "2 of 5 scans have channel_0 intensities of another kind than the others: d, e." in warning


def test_soft_tissue_of_a_ct_reaches_below_0_unlike_mr(scans_of):
    tissue = np.random.default_rng(0).normal(40, 60, SHAPE).astype(np.float32)  # -120 to 200 HU
    (warning,) = warnings_of(scans_of(a=mr(0), b=mr(1), c=mr(2), tissue=tissue))
    assert "others: tissue. tissue reaches from -1" in warning


def test_ct_without_negative_values_is_no_ct(scans_of):
    scans = replace(scans_of(a=ct(), b=mr()), channels=("CT",))
    (warning,) = warnings_of(scans)
    assert warning.startswith("1 of 2 scans is called CT but has no negative value: b. Convert")


def test_label_maps_are_named_and_not_compared_with_scans(scans_of):
    organs = np.zeros(SHAPE, np.uint8)
    organs[2:5, 4:12, 3:20] = 1
    organs[5:7, 4:12, 3:20] = 5
    many = np.repeat(np.arange(40, dtype=np.uint8), 96).reshape(SHAPE)  # 40 classes of 96 voxels, 4 lines each
    (warning,) = warnings_of(scans_of(a=mr(0), b=mr(1), organs=organs, many=many))
    assert warning.startswith("2 of 4 scans seem to be label maps (few values, in large areas): many, organs. Take")


def test_slices_with_a_single_value_are_counted_along_the_slice_axis(scans_of):
    array = mr(2)
    array[3:] = 7  # 5 of 8 slices across D, none across H
    scans = scans_of(a=mr(0), b=mr(1), empty=array)
    (warning,) = warnings_of(scans, axis=0)
    assert warning.startswith("1 of 3 scans has a single value in more than half of its slices: empty. Nothing")
    assert warnings_of(scans, axis=1) == []


def test_scans_of_one_patient_hold_nobody_out(scans_of):
    scans = scans_of(patient1_a=mr(0), patient1_b=mr(1))
    (warning,) = warnings_of(scans)
    assert warning.startswith("2 scans of one patient: none is held out")


@pytest.mark.parametrize("name", ["la_mri", "msd_hippocampus", "Dataset027_ACDC", "Dataset015_BraTS"])
def test_real_sets_raise_no_false_alarm(shared_data, name):
    scans = read_scans(shared_data / name)
    fingerprint = compute_fingerprint(scans)
    assert [scan_warnings(scans, fingerprint, slice_axis=axis) for axis in range(3)] == [[], [], []]


def test_a_real_ct_among_real_mr_scans_is_named(shared_data, tmp_path):
    files = sorted((shared_data / "la_mri" / "imagesTr").glob("[!.]*.nii.gz"))
    linked: list[Path] = [*files, shared_data / "totalseg" / "example_ct_sm.nii.gz"]
    for file in linked:
        (tmp_path / file.name).symlink_to(file)
    scans = read_scans(tmp_path)
    (warning,) = scan_warnings(scans, compute_fingerprint(scans), slice_axis=0)
    assert warning.startswith(f"1 of {len(linked)} scans has channel_0 intensities of another kind")
    assert "others: example_ct_sm. example_ct_sm reaches from -102" in warning
