import json
import shutil

import pytest

from voxelseg.data import read_dataset
from voxelseg.errors import DataError


def msd(root, **changes):
    """Two training cases and a test case with empty files: reading a layout opens no image."""
    for name in ("imagesTr/a", "imagesTr/b", "labelsTr/a", "labelsTr/b", "imagesTs/t", "imagesTr/._a"):
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    content = {
        "name": "Toy",
        "modality": {"0": "FLAIR", "1": "T1"},
        "labels": {"0": "background", "1": "edema"},
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in ("b", "a")
        ],
        "test": ["./imagesTs/t.nii.gz"],
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def codes(dataset):
    return [(problem.case, problem.severity, problem.code) for problem in dataset.problems]


def test_cases_channels_and_labels(tmp_path):
    dataset = read_dataset(msd(tmp_path))
    assert (dataset.name, dataset.layout, dataset.channels) == ("Toy", "msd", ("FLAIR", "T1"))
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (tmp_path / "imagesTr/a.nii.gz",)
    assert [(case.id, case.label) for case in dataset.test_cases] == [("t", None)]
    assert dataset.problems == ()


def test_missing_and_repeated_files_are_problems(tmp_path):
    root = msd(tmp_path)
    records = json.loads((root / "dataset.json").read_text())["training"]
    records += [
        records[0],
        {"image": "imagesTr/c.nii.gz", "label": "labelsTr/a.nii.gz"},
        {"image": "imagesTr/d.nii.gz"},
    ]
    (root / "imagesTr/d.nii.gz").touch()
    dataset = read_dataset(msd(tmp_path, training=records))
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert codes(dataset) == [
        ("b", "error", "duplicate-case"),
        ("c", "error", "missing-image"),
        ("d", "error", "missing-label"),
    ]


def test_one_file_per_channel_of_nnunet_v1(tmp_path):
    root = msd(tmp_path)
    for case in ("a", "b"):
        (root / f"imagesTr/{case}.nii.gz").rename(root / f"imagesTr/{case}_0000.nii.gz")
        (root / f"imagesTr/{case}_0001.nii.gz").touch()
    dataset = read_dataset(root)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": None}, r"is missing\. Add it, such as \"modality\": \{\"0\": \"CT\"\}"),
        ({"labels": None}, "'labels' is missing"),
        ({"training": []}, "no complete training case"),
        ({"training": ["imagesTr/a.nii.gz"]}, "no complete training case.*\n  a: no label map is named"),
        ({"training": [{"label": "labelsTr/a.nii.gz"}]}, "names no image"),
        ({"training": [7]}, "record 0 is 7"),
        ({"training": [{"image": "imagesTr/a.nii.gz", "label": 3}]}, "'label' is 3"),
        ({"training": [{"image": "imagesTr/a.txt", "label": "labelsTr/a.nii.gz"}]}, "no known image suffix"),
        ({"test": {"a": 1}}, "expected a list of records"),
        ({"training": [{"image": "imagesTr/._a.nii.gz", "label": "labelsTr/a.nii.gz"}]}, r"the id '\._a' cannot be"),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_dataset(msd(tmp_path, **changes))


def test_a_half_downloaded_test_set_is_no_error(tmp_path):
    dataset = read_dataset(msd(tmp_path, test=["./imagesTs/t.nii.gz", "./imagesTs/gone.nii.gz"]))
    assert [case.id for case in dataset.test_cases] == ["t"]
    assert codes(dataset) == [("gone", "warning", "missing-image")]


def test_pairs_that_the_list_forgets_and_a_wrong_count_are_warnings(tmp_path):
    for name in ("imagesTr/c.nii.gz", "labelsTr/c.nii.gz", "imagesTr/no_label.nii.gz"):
        (msd(tmp_path, numTraining=3) / name).touch()
    dataset = read_dataset(tmp_path)
    assert codes(dataset) == [("", "warning", "case-count"), ("", "warning", "unlisted-case")]
    assert "does not list 1 pairs in imagesTr/ and labelsTr/: c." in dataset.problems[1].message


def test_other_lists_of_cases_are_told(tmp_path):
    dataset = read_dataset(msd(tmp_path, validation=[{"image": "imagesTr/b.nii.gz"}], testing=["imagesTs/t.nii.gz"]))
    assert codes(dataset) == [("", "warning", "unused-list")] * 2
    assert "the 1 records under 'validation' are not used" in dataset.problems[0].message


def test_patients_of_test_cases_are_known(tmp_path):
    assert read_dataset(msd(tmp_path, patients={"t": "anna"})).problems == ()


def test_hippocampus(shared_data):
    dataset = read_dataset(shared_data / "msd_hippocampus")
    assert (len(dataset.cases), dataset.channels, dataset.labels.names) == (208, ("MRI",), ("Anterior", "Posterior"))
    assert dataset.cases[0].id == dataset.cases[0].patient == "hippocampus_003"


def test_without_labels_only_the_list_of_scans_is_needed(tiny_msd, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tiny_msd, root)
    shutil.rmtree(root / "labelsTr")
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({key: content[key] for key in ("training", "test")}))
    with pytest.raises(DataError, match="'modality' is missing"):
        read_dataset(root)
    scans = read_dataset(root, labelled=False)
    assert [case.label for case in (*scans.cases, *scans.test_cases)] == [None] * 6
    assert (scans.channels, scans.labelled) == (("channel_0",), False)
