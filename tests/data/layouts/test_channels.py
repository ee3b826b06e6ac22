from pathlib import Path

import pytest

from voxelseg.data.layouts.channels import cases_of_files, channel_name, channel_of, group_files
from voxelseg.errors import DataError


def grouped(*stems, known=()):
    files = [Path(f"{stem}.nii.gz") for stem in stems]
    return {case: [file.name[:-7] for file in group] for case, group in group_files(files, known=known).items()}


def test_the_name_of_a_channel_is_taken_apart_again():
    assert channel_name("scan_0000", 12) == "scan_0000_0012"
    assert channel_of("scan_0000_0012") == ("scan_0000", 12)
    assert channel_of("scan_012") is None


def test_numbers_from_0000_on_are_channels():
    assert grouped("a_0000", "a_0001", "b_2023", "b_2024", "c") == {
        "a": ["a_0000", "a_0001"],
        "b_2023": ["b_2023"],
        "b_2024": ["b_2024"],
        "c": ["c"],
    }


def test_a_known_case_may_lack_its_first_channel_and_end_in_digits_itself():
    assert grouped("a_0001", "b_0001", "b_0002", known={"a", "b_0001"}) == {
        "a": ["a_0001"],
        "b_0001": ["b_0001"],
        "b_0002": ["b_0002"],
    }


def test_files_of_a_folder_become_cases():
    files = [Path("b.nrrd"), Path("a_0001.nii.gz"), Path("a_0000.nii.gz")]
    found = [(case.id, [file.name for file in case.images], case.label) for case in cases_of_files(files)]
    assert found == [("a", ["a_0000.nii.gz", "a_0001.nii.gz"], None), ("b", ["b.nrrd"], None)]
    with pytest.raises(DataError, match=r"cannot tell which files make a scan: a_0000.nii, a_0002.nii"):
        cases_of_files([Path("x/a_0000.nii"), Path("x/a_0002.nii")])
