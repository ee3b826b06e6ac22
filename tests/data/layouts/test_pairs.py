import json

import nibabel
import numpy as np
import pytest

from voxelseg.data import read_dataset
from voxelseg.errors import DataError


def save(path, array):
    path.parent.mkdir(exist_ok=True, parents=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 2, 3, 1])), path)


def label_map(*values):
    array = np.zeros((3, 4, 5), np.uint8)
    array[0, 0, : len(values)] = values
    return array


@pytest.fixture
def pairs(tmp_path):
    for case, values in (("a", (2,)), ("b", (2, 5))):
        save(tmp_path / f"images/{case}.nii.gz", np.ones((3, 4, 5), np.int16))
        save(tmp_path / f"labels/{case}.nii", label_map(*values))
    return tmp_path


def codes(dataset):
    return [(problem.case, problem.severity, problem.code) for problem in dataset.problems]


def test_without_description_names_come_from_the_files(pairs):
    dataset = read_dataset(pairs)
    assert (dataset.layout, dataset.name, dataset.file_ending) == ("pairs", pairs.name, ".nii.gz")
    assert dataset.channels == ("channel_0",)
    assert [(one.name, one.values) for one in dataset.labels.classes] == [("label_2", (2,)), ("label_5", (5,))]
    assert [(case.id, case.label.name) for case in dataset.cases] == [("a", "a.nii"), ("b", "b.nii")]
    assert codes(dataset) == [("", "info", "unnamed-channels"), ("", "info", "undescribed-labels")]


def test_a_description_names_channels_classes_and_patients(pairs):
    content = {
        "name": "Toy",
        "channel_names": {"0": "CT"},
        "labels": {"0": "background", "2": "liver", "5": "vein"},
        "patients": {"a": "x", "b": "x"},
    }
    (pairs / "dataset.json").write_text(json.dumps(content))
    dataset = read_dataset(pairs)
    assert (dataset.name, dataset.channels, dataset.labels.names) == ("Toy", ("CT",), ("liver", "vein"))
    assert [case.patient for case in dataset.cases] == ["x", "x"]
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", '{"liver": 2, "portal vein": 5}'),
        ("labels.json", '{"0": "background", "2": "liver", "5": "portal vein"}'),
        ("labels.txt", "# value name\n0 background\n2: liver\n\n5\tportal vein\n"),
        ("labels.txt", "\ufeff2=liver\n5, portal vein"),
    ],
)
def test_class_names_beside_the_folders(pairs, name, text):
    (pairs / name).write_text(text, encoding="utf-8")
    assert [(one.name, one.values) for one in read_dataset(pairs).labels.classes] == [
        ("liver", (2,)),
        ("portal vein", (5,)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labels.txt", "liver", "line 1 has no value and name"),
        ("labels.txt", "1 liver\n2 liver", "line 2 has a name that was already given"),
        ("labels.txt", "1 liver\n1 vein", "both 'liver' and 'vein'"),
        ("labels.json", "{", "labels.json: not valid JSON"),
        ("labels.json", '{"liver": "2"}', "integer from 0"),
    ],
)
def test_wrong_class_names_are_refused(pairs, name, text, words):
    (pairs / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_dataset(pairs)


def test_one_file_per_channel(tmp_path):
    for channel in (0, 1):
        save(tmp_path / f"images/a_000{channel}.nii.gz", np.ones((3, 4, 5), np.int16))
    save(tmp_path / "images/b_0001.nii.gz", np.ones((3, 4, 5), np.int16))
    for case in "ab":
        save(tmp_path / f"labels/{case}.nii.gz", label_map(1))
    dataset = read_dataset(tmp_path)
    assert [(case.id, len(case.images)) for case in dataset.cases] == [("a", 2)]
    assert dataset.channels == ("channel_0", "channel_1")
    assert codes(dataset)[0] == ("b", "error", "missing-channel")
    assert "images/b_0000.nii.gz" in dataset.problems[0].message


def test_four_digits_that_the_label_has_too_are_part_of_the_name(tmp_path):
    save(tmp_path / "images/scan_0007.nii.gz", np.ones((3, 4, 5), np.int16))
    save(tmp_path / "labels/scan_0007.nii.gz", label_map(1))
    assert [(case.id, len(case.images)) for case in read_dataset(tmp_path).cases] == [("scan_0007", 1)]


def test_msd_folder_names_without_a_description(pairs):
    (pairs / "images").rename(pairs / "imagesTr")
    (pairs / "labels").rename(pairs / "labelsTr")
    assert len(read_dataset(pairs).cases) == 2


def test_missing_partners_are_problems(pairs):
    save(pairs / "images/c.nii.gz", np.ones((3, 4, 5), np.int16))
    save(pairs / "labels/d.nii.gz", label_map(2))
    (pairs / "labels/._a.nii").touch()
    (pairs / "images/readme.txt").touch()
    assert codes(read_dataset(pairs))[:2] == [("c", "error", "missing-label"), ("d", "error", "missing-image")]


def test_two_suffixes_of_one_case_are_told(pairs):
    save(pairs / "images/a.nii", np.ones((3, 4, 5), np.int16))
    save(pairs / "labels/b.nii.gz", label_map(2))
    assert codes(read_dataset(pairs))[:2] == [("a", "error", "duplicate-case"), ("b", "error", "duplicate-case")]


def test_an_unreadable_label_map_does_not_hide_the_others(pairs):
    (pairs / "labels/a.nii").write_text("nothing")
    assert read_dataset(pairs).labels.names == ("label_2", "label_5")


def test_scans_in_the_place_of_label_maps_are_refused(pairs):
    save(pairs / "labels/a.nii", np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5))
    with pytest.raises(DataError, match="60 different values from -30 to 29; expected a label map"):
        read_dataset(pairs)


def test_label_maps_without_foreground_need_a_description(pairs):
    for case in "ab":
        save(pairs / f"labels/{case}.nii", label_map())
    with pytest.raises(DataError, match="has a foreground value"):
        read_dataset(pairs)


def test_empty_folders_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=r"no complete training case\. Looked for files of the same name"):
        read_dataset(tmp_path)
