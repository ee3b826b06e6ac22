import json

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
        {"image": "imagesTr/._a.nii.gz"},
    ]
    dataset = read_dataset(msd(tmp_path, training=records))
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert [(problem.case, problem.code) for problem in dataset.problems] == [
        ("b", "duplicate-case"),
        ("._a", "missing-label"),
        ("c", "missing-image"),
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
        ({"modality": None}, "'modality' is missing"),
        ({"labels": None}, "'labels' is missing"),
        ({"training": []}, "no complete training case"),
        ({"training": ["imagesTr/a.nii.gz"]}, "no complete training case.*\n  a: no label map is named"),
        ({"training": [{"label": "labelsTr/a.nii.gz"}]}, "names no image"),
        ({"training": [7]}, "record 0 is 7"),
        ({"training": [{"image": "imagesTr/a.nii.gz", "label": 3}]}, "'label' is 3"),
        ({"training": [{"image": "imagesTr/a.txt", "label": "labelsTr/a.nii.gz"}]}, "no known image suffix"),
        ({"test": {"a": 1}}, "expected a list of records"),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_dataset(msd(tmp_path, **changes))


def test_hippocampus(shared_data):
    dataset = read_dataset(shared_data / "msd_hippocampus")
    assert (len(dataset.cases), dataset.channels, dataset.labels.names) == (208, ("MRI",), ("Anterior", "Posterior"))
    assert dataset.cases[0].id == dataset.cases[0].patient == "hippocampus_003"
