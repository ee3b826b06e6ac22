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


def one_voxel(path):
    save(path, label_map(1))


def test_a_missing_channel_is_not_taken_from_another_case(tmp_path):
    for name in ("images/scan_0000_0000", "images/scan_0000_0001", "images/scan_0001_0001"):
        one_voxel(tmp_path / f"{name}.nii.gz")
    for name in ("labels/scan_0000", "labels/scan_0001"):
        one_voxel(tmp_path / f"{name}.nii.gz")
    dataset = read_dataset(tmp_path)
    assert [case.id for case in dataset.cases] == ["scan_0000"]
    assert codes(dataset)[0] == ("scan_0001", "error", "missing-channel")
    assert "images/scan_0001_0000.nii.gz: file of channel 0 not found" in dataset.problems[0].message


@pytest.mark.parametrize(
    ("label", "expected"),
    [("a", ("IMG_5000", "error", "missing-label")), ("IMG", ("IMG", "error", "missing-channel"))],
)
def test_a_number_that_counts_scans_is_one_problem(pairs, label, expected):
    one_voxel(pairs / "images/IMG_5000.nii.gz")
    if label == "IMG":
        one_voxel(pairs / "labels/IMG.nii.gz")
    assert [code for code in codes(read_dataset(pairs)) if code[1] == "error"] == [expected]


def test_a_whole_scan_beside_its_channels_is_told(pairs):
    one_voxel(pairs / "images/a_0000.nii.gz")
    dataset = read_dataset(pairs)
    assert codes(dataset)[0] == ("a", "error", "duplicate-case")
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz"]


def test_a_stray_images_folder_beside_msd_folders_is_passed_over(pairs):
    (pairs / "images").rename(pairs / "imagesTr")
    (pairs / "labels").rename(pairs / "labelsTr")
    (pairs / "images").mkdir()
    assert [case.id for case in read_dataset(pairs).cases] == ["a", "b"]


def test_too_many_values_in_all_label_maps_together_are_not_blamed_on_one(pairs):
    for number, case in enumerate(("a", "b", "c")):
        save(pairs / f"images/{case}.nii", np.ones((3, 4, 50), np.int16))
        (pairs / f"labels/{case}.nii").unlink(missing_ok=True)
        array = 200 * number + np.arange(600, dtype=np.uint16).reshape(3, 4, 50) % 200
        save(pairs / f"labels/{case}.nii", array)
    with pytest.raises(DataError, match=r"this and the other label maps hold 599 different values in all"):
        read_dataset(pairs)


def test_a_fault_in_labels_json_names_the_file_once(pairs):
    (pairs / "labels.json").write_text("{")
    with pytest.raises(DataError) as caught:
        read_dataset(pairs)
    assert str(caught.value).count(str(pairs)) == 1
    (pairs / "labels.json").write_text('{"liver": "2"}')
    with pytest.raises(DataError, match=r"labels\.json: 'labels' gives"):
        read_dataset(pairs)


def test_the_current_folder_has_a_name(pairs, monkeypatch):
    monkeypatch.chdir(pairs)
    assert read_dataset(".").name == pairs.name


def test_without_labels_scans_need_no_partner_and_labels_are_not_read(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
        nibabel.save(image, tmp_path / "images" / f"{name}.nii.gz")
    (tmp_path / "labels" / "a.nii.gz").write_bytes(b"damaged")
    scans = read_dataset(tmp_path, labelled=False)
    assert [(case.id, case.label) for case in scans.cases] == [("a", None), ("b", None)]
    assert not scans.labelled
