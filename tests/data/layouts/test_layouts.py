import json

import pytest

from voxelseg.data import LAYOUTS, read_dataset
from voxelseg.errors import DataError


def test_layouts_say_what_they_look_for(tmp_path):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(DataError) as error:
        read_dataset(tmp_path)
    message = str(error.value)
    assert all(layout.looks_for in message for layout in LAYOUTS.values())
    assert "1 folder (stuff/)" in message
    assert "1 file (scan.nii.gz)" in message


def test_a_data_set_inside_the_folder_is_pointed_to(tiny):
    root = tiny(2).root
    with pytest.raises(DataError, match=r"Give the data set inside it: .*Dataset001_Tiny"):
        read_dataset(root.parent)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset(tmp_path / "nothing")


def test_an_image_file_is_no_data_set(tiny):
    data = tiny(2)
    with pytest.raises(DataError, match="not a data set"):
        read_dataset(data.label("case_00"))


def test_dataset_json_stands_for_its_folder(tiny):
    root = tiny(2).root
    assert read_dataset(str(root / "dataset.json")) == read_dataset(root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "dataset.json: not valid JSON"),
        ("", "dataset.json: not valid JSON"),
        ("\xff\xfe", "no|not valid JSON"),
        ("[1, 2]", "holds a JSON list, expected an object"),
        (json.dumps({"channel_names": {"0": "CT"}, "labels": {"liver": -1}}), r"dataset.json: 'labels' gives 'liver'"),
        (
            json.dumps({"channel_names": {"1": "CT"}, "labels": {"liver": 1}}),
            "a name for every channel, counted from 0",
        ),
        (json.dumps({"channel_names": {}, "labels": {"liver": 1}}), "a name for every channel"),
        (json.dumps({"channel_names": {"0": 7}, "labels": {"liver": 1}}), "a name for every channel"),
        (json.dumps({"channel_names": ["CT"], "labels": {"liver": 1}, "patients": ["a"]}), "'patients' is"),
    ],
)
def test_an_invalid_description_is_named(tiny, content, words):
    root = tiny(2).root
    (root / "dataset.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=words):
        read_dataset(root)


def test_a_folder_that_may_not_be_listed(tiny, monkeypatch):
    root = tiny(2).root

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(DataError, match=r"imagesTr: cannot be read \(Permission denied\)"):
        read_dataset(root)


def test_the_source_of_a_folder_is_the_folder(tiny):
    root = tiny(2).root
    assert read_dataset(root).source == root
    assert read_dataset(root / "dataset.json").source == root


def test_many_files_are_named_in_short(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}.nii.gz").touch()
    with pytest.raises(DataError, match=r"no folders and 7 files \(0.nii.gz, .*4.nii.gz and 2 more\)"):
        read_dataset(tmp_path)
