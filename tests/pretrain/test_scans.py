import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxelseg.errors import ConfigError, DataError
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.pretrain.scans import read_scans
from voxelseg.volume import Volume


def write_scan(path: Path, *, channels: int = 1, shape: tuple[int, int, int] = (4, 5, 6), seed: int = 0) -> Path:
    """Noise of `shape` (D, H, W) in whichever format the name has."""
    d, h, w = shape
    array = np.random.default_rng(seed).normal(100, 9, (channels, d, h, w)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(array, Grid(shape_ijk=(w, h, d), affine_ijk=np.diag([1.0, 1.5, 1.0 + seed, 1.0]))))
    return path


def ids(folder: Path) -> list[str]:
    return [case.id for case in read_scans(folder).cases]


def test_every_scan_below_a_folder_counts_whatever_its_format_and_size(tmp_path):
    for number, name in enumerate(["b.nrrd", "a.nii.gz", "site/a.nii", "site/deep/c.mha", "d.mhd"]):
        write_scan(tmp_path / name, shape=(4, 5, 6 + number), seed=number)
    found = read_scans(tmp_path)
    assert [case.id for case in found.cases] == ["a", "b", "d", "site_a", "site_deep_c"]
    assert all(len(case.images) == 1 and case.label is None for case in found.cases)
    assert (found.name, found.layout, found.labelled, found.source) == (tmp_path.name, "scans", False, tmp_path)
    assert found.channels == ("channel_0",)


def test_hidden_and_temporary_files_and_other_files_are_passed_over(tmp_path):
    write_scan(tmp_path / "a.nii.gz")
    for name in ("._a.nii.gz", ".partial-12ab-b.nii.gz", ".hidden/c.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "a.nii.gz", tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "empty.nii.gz").mkdir()
    assert ids(tmp_path) == ["a"]


def test_patients_are_read_from_folders_as_from_names(tmp_path):
    for name in ("sub-01/ses-1/t1.nii", "sub-01/ses-2/t1.nii", "patient7/a.nii", "patient7/b.nii", "x/y.nii"):
        write_scan(tmp_path / name)
    patients = {case.id: case.patient for case in read_scans(tmp_path).cases}
    assert patients == {
        "patient7_a": "patient7",
        "patient7_b": "patient7",
        "sub-01_ses-1_t1": "sub-01",
        "sub-01_ses-2_t1": "sub-01",
        "x_y": "x_y",
    }


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("P1/a", "P1/b", "P2/a", "P2/b", "P3/a", "P3/b"), "3 folders of several scans (P1, P2, P3)"),
        (("P1/s/a", "P1/t/b", "P2/s/a", "P2/t/b", "P3/a", "P3/b"), "3 folders of several scans (P1, P2, P3)"),
        (("x/P1/a", "x/P1/b", "x/P2/a", "x/P2/b", "x/P3/a", "x/P3/b"), "(x/P1, x/P2, x/P3)"),
        (("images/a", "images/b", "more/a", "more/b"), ""),  # two collections
        (("P1/a", "P2/a", "P3/a", "P4/a"), ""),
        (("a", "b", "c", "P1/a", "P1/b"), ""),
        (("sub-1/a", "sub-1/b", "sub-2/a", "sub-2/b", "sub-3/a", "sub-3/b"), ""),
    ],
)
def test_folders_that_may_be_patients_are_named_with_the_remedy(tmp_path, caplog, names, named):
    for name in names:
        write_scan(tmp_path / f"{name}.nii")
    read_scans(tmp_path)
    assert named in caplog.text
    assert ("name them sub-1, sub-2, ... directly in this folder" in caplog.text) == bool(named)


def test_a_list_of_the_scans_says_whose_they_are(tmp_path, caplog):
    names = [f"P{patient}/{name}.nii" for patient in range(3) for name in "ab"]
    for name in names:
        write_scan(tmp_path / name)
    rows = [f"{name},{name.replace('/', '_')},{Path(name).parent}" for name in names]
    (tmp_path / "scans.csv").write_text("\n".join(["image,id,patient", *rows]))
    assert [case.patient for case in read_scans(tmp_path / "scans.csv").cases] == ["P0", "P0", "P1", "P1", "P2", "P2"]
    assert not caplog.text


def test_numbered_files_are_channels_of_one_scan(tmp_path):
    for name in ("p/a_0000.nii", "p/a_0001.nii", "q/a_0000.nii", "q/a_0001.nii"):
        write_scan(tmp_path / name)
    found = read_scans(tmp_path)
    assert [(case.id, len(case.images)) for case in found.cases] == [("p_a", 2), ("q_a", 2)]
    assert found.channels == ("channel_0", "channel_1")


def test_links_are_followed_once(tmp_path):
    write_scan(tmp_path / "elsewhere" / "a.nii")
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "linked").symlink_to(tmp_path / "elsewhere")
    (scans / "around").symlink_to(scans)
    assert ids(scans) == ["linked_a"]


def test_links_that_lead_nowhere_are_named(tmp_path):
    write_scan(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(DataError, match=r"1 of 2 scans cannot be used:\n.*b\.nii\.gz"):
        read_scans(tmp_path)


def test_a_data_set_gives_all_its_scans_without_labels_and_says_that_of_test_cases(tiny_msd, caplog):
    found = read_scans(tiny_msd)
    assert [case.id for case in found.cases] == [f"tiny_{number}" for number in range(6)]
    assert all(case.label is None for case in found.cases)
    assert (found.channels, found.labelled, found.test_cases) == (("MRI",), False, ())
    assert "2 test cases are among the scans, since no labels are needed" in caplog.text


def test_label_maps_of_a_data_set_need_not_be_there(tiny_msd, tmp_path):
    shutil.copytree(tiny_msd, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "labelsTr")
    assert len(read_scans(tmp_path / "set").cases) == 6


def test_scans_that_a_data_set_lacks_are_named(tiny_msd, tmp_path, caplog):
    shutil.copytree(tiny_msd, tmp_path / "set")
    (tmp_path / "set" / "imagesTr" / "tiny_1.nii.gz").unlink()
    assert "tiny_1" not in ids(tmp_path / "set")
    assert "1 scan or file is left out: tiny_1 (imagesTr/tiny_1.nii.gz: image not found" in caplog.text


def test_data_sets_below_a_folder_are_read_as_such_so_that_no_label_map_is_a_scan(tiny_msd, tmp_path):
    shutil.copytree(tiny_msd, tmp_path / "first")
    shutil.copytree(tiny_msd, tmp_path / "more" / "second")
    found = read_scans(tmp_path)
    assert len(found.cases) == 12
    assert found.cases[0].id == "first_tiny_0"
    assert found.cases[-1].id == "more_second_tiny_5"
    assert found.channels == ("MRI",)
    write_scan(tmp_path / "loose.nii")  # nobody says what it shows
    assert read_scans(tmp_path).channels == ("channel_0",)


def test_what_scans_show_can_be_said(tiny_msd, tmp_path):
    write_scan(tmp_path / "a.nii", channels=2)
    assert read_scans(tiny_msd, channel="CT").channels == ("CT",)
    assert read_scans(tmp_path, channel="CT, PET").channels == ("CT", "PET")
    for wrong in ("CT", "CT,", "CT,PET,MR"):
        with pytest.raises(ConfigError, match=r"pretrain.channel names .* but the scans have 2"):
            read_scans(tmp_path, channel=wrong)


def test_a_folder_without_scans_says_what_is_in_it(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no scan in this folder or below it, expected \.nii\.gz.*dcm2niix"):
        read_scans(tmp_path / "empty")
    for number in range(3):
        (tmp_path / "empty" / f"{number}.dcm").touch()
    with pytest.raises(DataError, match=r"Other files found: 3 \.dcm"):
        read_scans(tmp_path / "empty")


def test_files_that_are_no_scans_are_named_beside_those_that_are(tmp_path, caplog):
    write_scan(tmp_path / "labels.nii.gz")
    for number in range(3):
        (tmp_path / f"{number}.dcm").touch()
    (tmp_path / "labels.json").touch()
    assert len(read_scans(tmp_path).cases) == 1
    assert "passed over what is no scan in a known format: 3 .dcm, 1 .json. Convert DICOM series" in caplog.text


def test_files_that_go_with_scans_are_not_taken_for_dicom(tmp_path, caplog):
    write_scan(tmp_path / "a.nii.gz")
    (tmp_path / "a.json").touch()
    read_scans(tmp_path)
    assert "1 .json." in caplog.text
    assert "DICOM" not in caplog.text


def test_a_single_scan_a_missing_folder_and_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="is one scan, expected many"):
        read_scans(write_scan(tmp_path / "a.nii"))
    with pytest.raises(DataError, match="no such file or folder"):
        read_scans(tmp_path / "nothing")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="not a data set"):
        read_scans(tmp_path / "notes.txt")


def test_all_files_that_cannot_be_used_are_listed_together(tmp_path):
    for name in "abc":
        write_scan(tmp_path / f"{name}.nii")
    write_scan(tmp_path / "two.nii", channels=2)
    (tmp_path / "damaged.nii.gz").write_bytes(b"no gzip")
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(DataError) as caught:
        read_scans(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}: 3 of 6 scans cannot be used:"
    assert "damaged.nii.gz" in lines[1]
    assert "rgb.nii: voxels are colours (RGB)" in lines[2]
    assert lines[3].endswith("two.nii: 2 channels, not 1")
    assert lines[4] == "Mend them, or take them out of the folder."


def test_scans_with_other_channels_than_their_data_set_names_are_refused(tiny_msd, tmp_path):
    shutil.copytree(tiny_msd, tmp_path / "set")
    description = tmp_path / "set" / "dataset.json"
    content = {**json.loads(description.read_text()), "modality": {"0": "T1", "1": "T2"}}
    description.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"6 of 6 scans cannot be used:\n.*tiny_0.nii.gz: 1 channel, not 2"):
        read_scans(tmp_path / "set")


THREE = ("a_b_c.nii", "a/b_c.nii", "a_b/c.nii")


def test_ids_that_occur_twice_are_listed_together(tmp_path):
    for name in ("a_b_c.nii", "a/b_c.nii", "a_b/c.nii", "d_e.nii", "d/e.nrrd", "f.nii"):
        write_scan(tmp_path / name)
    with pytest.raises(DataError) as caught:
        read_scans(tmp_path)
    lines = str(caught.value).splitlines()
    assert "2 ids stand for several scans" in lines[0]
    assert lines[1].split() == ["a_b_c:", *" and ".join(str(tmp_path / file) for file in THREE).split()]
    assert "d_e: " in lines[2]
    assert lines[-1].endswith("Rename the files, or keep one of each.")


def test_the_same_name_with_two_suffixes_is_refused(tmp_path):
    for name in ("a.nii", "a.nrrd"):
        write_scan(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.nii.*a\.nrrd"):
        read_scans(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    write_scan(tmp_path / "a.nii")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match=r"closed: cannot be read"):
        read_scans(tmp_path)
