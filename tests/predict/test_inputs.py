import json
import shutil

import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.predict.inputs import find_cases
from voxelseg.volume import Volume


def save(folder, *names, channels=1):
    for name in names:
        array = np.zeros((channels, 2, 3, 4), np.uint8)
        write_volume(folder / name, Volume(array, Grid(shape_ijk=(4, 3, 2), affine_ijk=np.eye(4))))
    return folder


def found(path, channels=("CT",)):
    return {case.id: [file.name for file in case.images] for case in find_cases(path, channels=channels)}


def test_a_file_is_one_case(tmp_path):
    save(tmp_path, "a.nii.gz", "b.nii.gz")
    assert found(tmp_path / "a.nii.gz") == {"a": ["a.nii.gz"]}


def test_every_scan_of_a_folder_is_a_case_whatever_its_format(tmp_path):
    save(tmp_path, "b.nrrd", "a.nii.gz", "c.mha")
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / ".hidden.nii.gz").write_text("not a scan")
    assert found(tmp_path) == {"a": ["a.nii.gz"], "b": ["b.nrrd"], "c": ["c.mha"]}


def test_numbered_files_from_0000_on_are_channels(tmp_path):
    save(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "b_x_0000.nii.gz", "b_x_0001.nii.gz")
    assert found(tmp_path, ("FLAIR", "T1")) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b_x": ["b_x_0000.nii.gz", "b_x_0001.nii.gz"],
    }


def test_other_numbers_count_scans(tmp_path):
    save(tmp_path, "scan_2023.nii.gz", "scan_2024.nii.gz", "single_0000.nii.gz")
    assert found(tmp_path) == {
        "scan_2023": ["scan_2023.nii.gz"],
        "scan_2024": ["scan_2024.nii.gz"],
        "single": ["single_0000.nii.gz"],
    }


def test_one_file_may_hold_all_channels(tmp_path):
    save(tmp_path, "a.nii.gz", channels=2)
    assert found(tmp_path, ("FLAIR", "T1")) == {"a": ["a.nii.gz"]}


def test_all_cases_with_another_number_of_channels_are_named_at_once(tmp_path):
    save(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "good.nii.gz")
    save(tmp_path, "c.nii.gz", channels=3)
    with pytest.raises(DataError) as error:
        find_cases(tmp_path, channels=("CT",))
    message = str(error.value)
    assert "expects 1 channel(s) (CT)" in message
    assert "a: 2 in a_0000.nii.gz, a_0001.nii.gz" in message
    assert "c: 3 in c.nii.gz" in message
    assert "good" not in message
    with pytest.raises(DataError, match=r"expects 2 channel\(s\) \(FLAIR, T1\), but\n  good: 1 in good"):
        find_cases(tmp_path / "good.nii.gz", channels=("FLAIR", "T1"))


def test_damaged_scans_are_left_for_the_prediction_to_report(tmp_path):
    save(tmp_path, "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"damaged")
    assert set(found(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    "names",
    [("a.nii.gz", "a.nrrd"), ("a.nii.gz", "a_0000.nii.gz"), ("a_0000.nii.gz", "a_0002.nii.gz")],
    ids=["two formats", "with and without channels", "a gap"],
)
def test_files_that_may_be_one_scan_or_several_are_refused(tmp_path, names):
    save(tmp_path, *names)
    with pytest.raises(DataError, match="cannot tell which files make a scan") as error:
        find_cases(tmp_path, channels=("CT", "PET"))
    assert all(name in str(error.value) for name in names)


def test_a_data_set_gives_its_test_cases(tiny_msd):
    assert list(found(tiny_msd)) == ["tiny_4", "tiny_5"]


def described(tiny_msd, folder, **changes):
    """A copy of the tiny data set with another description."""
    data = shutil.copytree(tiny_msd, folder)
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**description, **changes}))
    return data


def test_a_data_set_without_test_cases_gives_its_training_cases_and_says_so(tiny_msd, tmp_path, caplog):
    data = described(tiny_msd, tmp_path / "data", test=[])
    assert list(found(data)) == ["tiny_0", "tiny_1", "tiny_2", "tiny_3"]
    assert "describes no test cases; its training cases are predicted" in caplog.text


@pytest.mark.parametrize("lost", [["tiny_4"], ["tiny_4", "tiny_5"]], ids=["some", "all"])
def test_test_cases_that_are_described_but_not_there_are_named(tiny_msd, tmp_path, lost):
    data = described(tiny_msd, tmp_path / "data")
    for name in lost:
        (data / "imagesTs" / f"{name}.nii.gz").unlink()
    with pytest.raises(DataError, match="scans of the data set are not there") as error:
        find_cases(data, channels=("MRI",))
    assert all(name in str(error.value) for name in lost)


def test_lost_training_cases_do_not_keep_test_cases_from_being_predicted(tiny_msd, tmp_path):
    data = described(tiny_msd, tmp_path / "data")
    (data / "imagesTr" / "tiny_0.nii.gz").unlink()
    assert list(found(data, ("MRI",))) == ["tiny_4", "tiny_5"]


def test_channels_in_another_order_than_the_model_s_are_refused(tmp_path, caplog):
    for part in ("images", "labels"):
        channels = ("_0000", "_0001") if part == "images" else ("",)
        save(tmp_path / f"{part}Tr", *(f"a{channel}.nii.gz" for channel in channels))
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "ball": 1}, "numTraining": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    with pytest.raises(DataError, match=r"the channels are T1, FLAIR, those of the model flair, T1.*model's order"):
        find_cases(tmp_path, channels=("flair", "T1"))
    assert list(found(tmp_path, ("T1 ", "Flair"))) == ["a"]
    assert "taken in this order" not in caplog.text
    assert list(found(tmp_path, ("T1", "T2"))) == ["a"]
    assert "the channels are T1, FLAIR, those of the model T1, T2; they are taken in this order" in caplog.text


def test_a_scan_beside_a_data_set_s_folders_does_not_hide_the_data_set(tiny_msd, tmp_path):
    data = described(tiny_msd, tmp_path / "data")
    shutil.copy(data / "imagesTs" / "tiny_4.nii.gz", data / "atlas.nii.gz")
    assert list(found(data, ("MRI",))) == ["tiny_4", "tiny_5"]


def test_a_file_list_is_a_data_set(tiny_msd, tmp_path):
    rows = [f"{tiny_msd}/imagesTr/tiny_{n}.nii.gz,{tiny_msd}/labelsTr/tiny_{n}.nii.gz" for n in (0, 2)]
    (tmp_path / "list.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    assert list(found(tmp_path / "list.csv")) == ["tiny_0", "tiny_2"]


def test_what_is_no_scan_is_refused(tmp_path):
    with pytest.raises(DataError, match="not found"):
        find_cases(tmp_path / "nothing", channels=("CT",))
    with pytest.raises(DataError, match="neither scans nor a data set"):
        find_cases(tmp_path, channels=("CT",))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt"):
        find_cases(tmp_path / "notes.txt", channels=("CT",))
