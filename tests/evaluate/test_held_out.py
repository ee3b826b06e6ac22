import json

import pytest

from voxelseg.errors import DataError
from voxelseg.evaluate.held_out import CaseFiles, fold_folders, fold_name, read_pairs


def test_folds_come_by_their_numbers_and_those_without_one_last(tmp_path):
    for name in ("fold_10", "fold_all", "fold_2", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "fold_3").write_text("a file")
    assert [fold_name(folder) for folder in fold_folders(tmp_path)] == ["2", "10", "all"]


def write_pairs(folder, **more):
    entry = {"case": "a", "images": ["scans/a.nii"], "label": "labels/a.nii", "prediction": "a.nii", **more}
    (folder / "pairs.json").write_text(json.dumps([entry]))


def test_paths_are_seen_from_the_folder(tmp_path):
    write_pairs(tmp_path, patient="p1")
    assert read_pairs(tmp_path / "pairs.json") == {
        "a": CaseFiles((tmp_path / "scans/a.nii",), tmp_path / "labels/a.nii", tmp_path / "a.nii", "p1")
    }


def test_predictions_are_found_after_the_folder_was_moved(tmp_path):
    write_pairs(tmp_path, prediction="/gone/with/the/old/place/a.nii")
    found = read_pairs(tmp_path / "pairs.json")["a"]
    assert (found.prediction, found.patient) == (tmp_path / "a.nii", "")


def test_without_the_file_there_is_nothing(tmp_path):
    assert read_pairs(tmp_path / "pairs.json") == {}


@pytest.mark.parametrize("content", ["[1]", '[{"case": "a"}]'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(DataError, match=r"pairs\.json: expected a list of objects with case, images"):
        read_pairs(tmp_path / "pairs.json")
