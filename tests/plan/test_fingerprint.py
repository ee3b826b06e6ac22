import dataclasses
import json

import numpy as np
import pytest

from voxelseg.data.dataset import Dataset
from voxelseg.data.labels import NO_LABELS, parse_labels
from voxelseg.errors import DataError
from voxelseg.plan import make_plan
from voxelseg.plan.fingerprint import (
    SAMPLES_PER_CASE,
    VOXELS_TRIED,
    ScanFingerprint,
    check_intensities,
    compute_fingerprint,
    nonzero_box,
    read_fingerprint,
)

SHAPE = (4, 6, 8)


def image_and_label(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is 0 outside D 1..3, H 0..6, W 2..8; liver of two voxels, spleen of one."""
    image = np.zeros((1, *SHAPE), np.float32)
    image[0, 1:3, :, 2:] = np.random.default_rng(seed).uniform(1, 9, (2, 6, 6))
    label = np.zeros(SHAPE, np.uint8)
    label[1, 2, 3] = label[1, 2, 5] = 1
    label[2, 5, 7] = 2
    return image, label


def test_one_case_measured_by_hand(write_set):
    image, label = image_and_label()
    image[0, 1, 2, 3], image[0, 1, 2, 5], image[0, 2, 5, 7] = 2, 4, 9
    found = compute_fingerprint(write_set((image, label)))
    case = found.cases["case_0"]
    assert (case.shape, case.nonzero_shape) == (SHAPE, (2, 6, 6))
    assert case.spacing_mm == pytest.approx((3.0, 2.0, 1.5))
    assert case.class_volumes_ml == pytest.approx({"liver": 0.018, "spleen": 0.009})  # voxels of 9 mm^3
    assert case.class_centroids_mm == {"liver": (3.0, 4.0, 6.0), "spleen": (6.0, 10.0, 10.5)}
    assert case.class_spreads_mm == {"liver": (0.0, 0.0, 1.5), "spleen": (0.0, 0.0, 0.0)}
    (seen,) = found.intensities
    assert (seen.minimum, seen.median, seen.maximum, seen.mean) == (2, 4, 9, 5)
    assert seen.std == pytest.approx(np.sqrt((9 + 1 + 16) / 3))
    assert seen.percentile_00_5 == pytest.approx(2.02)  # 0.5 % of the way over 2 steps: 0.01 of the step of 2
    assert seen.percentile_99_5 == pytest.approx(8.95)


def test_classes_that_are_missing_have_no_place_and_no_volume(write_set):
    image, label = image_and_label()
    label[label == 2] = 0
    case = compute_fingerprint(write_set((image, label))).cases["case_0"]
    assert case.class_volumes_ml["spleen"] == 0
    assert "spleen" not in case.class_centroids_mm
    assert "spleen" not in case.class_spreads_mm


def test_regions_join_their_values_and_ignore_is_left_out(write_set):
    image, label = image_and_label()
    label[0, 0, 0] = 3
    image[0, 0, 0, 0] = 1000
    scheme = parse_labels({"background": 0, "both": [1, 2], "spleen": 2, "ignore": 3}, regions_class_order=[1, 2])
    found = compute_fingerprint(write_set((image, label), labels=scheme))
    case = found.cases["case_0"]
    assert case.class_volumes_ml == pytest.approx({"both": 0.027, "spleen": 0.009})
    assert case.class_centroids_mm["both"] == pytest.approx((4.0, 6.0, 7.5))  # mean of voxels W 3, 5, 7 is 5
    assert found.intensities[0].maximum < 10


def test_a_set_without_any_foreground_has_neutral_statistics(write_set):
    image, label = image_and_label()
    (seen,) = compute_fingerprint(write_set((image, label * 0))).intensities
    assert (seen.mean, seen.std) == (0, 1)


def test_workers_change_nothing_and_cases_weigh_the_same(write_set):
    big = np.random.default_rng(0).normal(0, 1, (1, 30, 30, 30)).astype(np.float32)
    small = np.full((1, 22, 22, 22), 100, np.float32)
    ones = [(array, np.ones(array.shape[1:], np.uint8)) for array in (big, small, big + 1)]
    dataset = write_set(*ones)
    serial = compute_fingerprint(dataset)
    assert serial == compute_fingerprint(dataset, workers=2)
    assert SAMPLES_PER_CASE < 22**3
    assert serial.intensities[0].mean == pytest.approx((0 + 100 + 1) / 3, abs=0.05)


def test_progress_counts_cases(write_set):
    seen: list[int] = []
    compute_fingerprint(write_set(image_and_label(), image_and_label(1)), progress=seen.append)
    assert seen == [1, 2]


def test_json_is_read_back_equal(write_set, tmp_path):
    found = compute_fingerprint(write_set(image_and_label()))
    found.write(tmp_path / "fingerprint.json")
    assert read_fingerprint(tmp_path / "fingerprint.json") == found


@pytest.mark.parametrize("content", ["{}", "[]", '{"channels": ["MRI"], "extra": 1}', "{"])
def test_a_fingerprint_that_is_none_is_an_error(tmp_path, content):
    (tmp_path / "fingerprint.json").write_text(content)
    with pytest.raises(DataError, match=r"fingerprint.json: .*Delete it and run `voxelseg plan` again"):
        read_fingerprint(tmp_path / "fingerprint.json")


def test_all_bad_cases_are_listed_together(write_set):
    image, label = image_and_label()
    broken, infinite = image.copy(), image.copy()
    broken[0, 1, 1, 3], infinite[0, 1, 1, 3] = np.nan, np.inf
    dataset = write_set((image, label), (broken, label), (infinite, label), (image, label[:3]))
    with pytest.raises(DataError) as caught:
        compute_fingerprint(dataset)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 cases could not be measured:"
    assert "label_3.nii.gz: not on the grid of its scan: shape (4, 6, 8) against (3, 6, 8)" in lines[1]
    assert "case_1: the scan holds NaN or infinite voxels" in lines[2]
    assert "case_2: the scan holds NaN or infinite voxels" in lines[3]


def test_label_values_outside_the_description_are_an_error(write_set):
    image, label = image_and_label()
    label[0, 0, :2] = 7, 9
    with pytest.raises(DataError, match=r"label_0.nii.gz: label values \[7, 9\] in 2 voxels .*known: \[0, 1, 2\]"):
        compute_fingerprint(write_set((image, label)))


def test_a_wrong_number_of_channels_is_an_error(write_set):
    with pytest.raises(DataError, match=r"case_0: the scan has 1 channel\(s\), expected 2"):
        compute_fingerprint(write_set(image_and_label(), channels=2))


def test_no_case_and_no_label_are_errors(write_set):
    dataset = write_set(image_and_label())
    with pytest.raises(DataError, match="no training case"):
        compute_fingerprint(dataclasses.replace(dataset, cases=()))
    unlabelled = dataclasses.replace(dataset.cases[0], label=None)
    with pytest.raises(DataError, match="case_0: has no label map"):
        compute_fingerprint(dataclasses.replace(dataset, cases=(unlabelled,)))


def test_nonzero_box_joins_the_channels():
    image = np.zeros((2, 5, 6, 7), np.int16)
    image[0, 1, 2, 3] = -4
    image[1, 3, 2, 5] = 1
    assert nonzero_box(image) == (slice(1, 4), slice(2, 3), slice(3, 6))
    assert nonzero_box(image * 0) == (slice(0, 5), slice(0, 6), slice(0, 7))


def test_integers_need_no_check_for_numbers():
    check_intensities(np.zeros((1, 2, 3, 4), np.int16))


def test_real_sets_give_json_that_a_person_can_read(shared_data, tmp_path):
    from voxelseg.data import read_dataset

    dataset = read_dataset(shared_data / "Dataset015_BraTS")
    found = compute_fingerprint(dataset)
    found.write(tmp_path / "fingerprint.json")
    text = (tmp_path / "fingerprint.json").read_text()
    assert json.loads(text)["channels"] == ["FLAIR", "T1c"]
    assert '"shape": [155, 240, 240]' in text


def scans_of(write_set, *images: np.ndarray, channels: int = 1) -> Dataset:
    """The same data set without its label maps, one of which is not even there."""
    dataset = write_set(*((image, np.zeros(image.shape[1:], np.uint8)) for image in images), channels=channels)
    dataset.cases[0].label.unlink()
    cases = tuple(dataclasses.replace(case, label=None) for case in dataset.cases)
    return dataclasses.replace(dataset, labels=NO_LABELS, cases=cases)


def test_a_scan_without_labels_measured_by_hand(write_set):
    image = np.full((1, *SHAPE), -5, np.int16)
    image[0, 1, 2, 3:6] = 7
    image[0, 2, 3, 4] = 10
    dataset = scans_of(write_set, image)
    found = compute_fingerprint(dataset)
    scan = found.cases["case_0"]
    assert (found.classes, scan.shape, scan.nonzero_shape, scan.class_volumes_ml) == ((), SHAPE, SHAPE, {})
    # Above the lowest value, -5, are 7, 7, 7 and 10; the next voxel along W has the same value for two of them.
    (seen,) = scan.intensities
    assert found.intensities == scan.intensities
    assert (seen.minimum, seen.median, seen.maximum, seen.mean) == (7, 7, 10, 7.75)
    assert (scan.num_values, scan.flat_share) == (2, 0.5)
    # Slices 1 and 2 of 4, 2 and 3 of 6, and 3 to 5 of 8 have more than one value.
    assert scan.constant_slices == (2 / 4, 4 / 6, 5 / 8)


def test_scans_without_labels_are_read_back_equal_and_planned(write_set, tmp_path):
    images = [np.random.default_rng(seed).normal(100, 9, (1, 20, 24, 30)).astype(np.float32) for seed in range(3)]
    dataset = scans_of(write_set, *images)
    found = compute_fingerprint(dataset)
    found.write(tmp_path / "fingerprint.json")
    again = read_fingerprint(tmp_path / "fingerprint.json")
    assert again == found
    assert all(isinstance(case, ScanFingerprint) for case in again.cases.values())
    assert found == compute_fingerprint(dataset, workers=2)
    plan = make_plan(found)
    assert (plan.normalization[0].kind, plan.mirror_axes) == ("zscore", ())
    assert not any("irrored" in note for note in plan.notes)
    ct = make_plan(compute_fingerprint(dataclasses.replace(dataset, channels=("CT",)))).normalization[0]
    assert (ct.mean, ct.std) == (pytest.approx(100, abs=0.5), pytest.approx(9, abs=0.3))


def test_of_large_scans_voxels_are_drawn(write_set):
    image = np.random.default_rng(0).normal(0, 1, (2, 40, 50, 60)).astype(np.float32)
    image[:, :, :25] = -9  # half of it is padding
    (first, _) = compute_fingerprint(scans_of(write_set, image, channels=2)).cases["case_0"].intensities
    assert image.size / 2 > VOXELS_TRIED > SAMPLES_PER_CASE
    assert first.minimum > -9
    assert (first.mean, first.std) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))


def test_constant_scans_without_labels_are_listed_together(write_set):
    image = np.random.default_rng(0).normal(0, 1, (2, *SHAPE)).astype(np.float32)
    half, empty = image.copy(), np.zeros_like(image)
    half[1] = 3
    with pytest.raises(DataError) as caught:
        compute_fingerprint(scans_of(write_set, image, half, empty, channels=2))
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 3 cases could not be measured:"
    assert "case case_1: every voxel of MRI has the value 3, expected a scan" in lines[1]
    assert "case case_2: every voxel of MRI has the value 0, expected a scan" in lines[2]


def test_no_scan_is_an_error(write_set):
    scans = scans_of(write_set, image_and_label()[0])
    with pytest.raises(DataError, match="no scan"):
        compute_fingerprint(dataclasses.replace(scans, cases=()))
