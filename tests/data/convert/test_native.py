"""Reading a public data set in the folder of its makers: the right folder, and everything that is wrong in it."""

import gzip
import shutil

import pytest
from look_alikes import MAKERS

from voxelseg.data.convert import find_public_data
from voxelseg.data.convert.native import files_of_case, read_native
from voxelseg.errors import DataError


def _read(name, folder):
    return read_native(find_public_data(name), folder)


def _problems(native, code, severity="error"):
    return [one for one in native.problems if (one.code, one.severity) == (code, severity)]


# ------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    ("name", "training", "test", "left_out"),
    [
        ("btcv", ["img0001", "img0002", "img0021", "img0035", "img0040"], ["img0061"], 0),
        ("amos22_ct", ["amos_0001", "amos_0004", "amos_0381"], ["amos_0008"], 3),
        ("amos22_mri", ["amos_0507", "amos_0508"], ["amos_0540"], 4),
        ("flare21", ["train_000", "train_001", "train_036"], ["validation_001"], 0),
        ("flare22", ["FLARE22_Tr_0001", "FLARE22_Tr_0002"], [], 0),
        ("kits19", ["case_00000", "case_00001", "case_00209"], ["case_00210"], 0),
        ("feta21", ["sub-001", "sub-002", "sub-061"], [], 0),
        ("brats21", ["BraTS2021_00000", "BraTS2021_00002", "BraTS2021_01666"], [], 0),
        ("msd_brats", ["BRATS_001", "BRATS_002", "BRATS_003"], ["BRATS_485"], 0),
        ("msd_spleen", ["spleen_10", "spleen_12", "spleen_13", "spleen_2", "spleen_3"], ["spleen_1"], 0),
    ],
)
def test_cases_are_found(look_alike, name, training, test, left_out):
    native = _read(name, look_alike(name))
    assert [case.id for case in native.training] == training
    assert [case.id for case in native.test] == test
    assert native.left_out == left_out
    assert native.ending == ".nii.gz"
    assert {one.code for one in native.problems} == {"case-count"}  # a few voxels of a few cases
    assert all(one.severity == "warning" for one in native.problems)


def test_channels_are_in_the_order_of_the_description(look_alike):
    (first, *_) = _read("brats21", look_alike("brats21")).training
    assert [path.name for path in first.images] == [
        f"BraTS2021_00000_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")
    ]
    assert first.label is not None
    assert files_of_case(first) == [*first.images, first.label]


def test_numbers_of_missing_cases_are_warned_about(look_alike):
    native = _read("btcv", look_alike("btcv"))
    messages = [one.message for one in native.problems]
    assert messages == [
        "5 complete training cases found, btcv has 30.",
        "1 complete test cases found, btcv has 20.",
    ]


def test_test_cases_may_be_absent(look_alike):
    folder = look_alike("btcv")
    shutil.rmtree(folder / "Testing")
    native = _read("btcv", folder)
    assert native.test == []
    assert len(native.problems) == 1


# --------------------------------------------------------------------------------------------- the right folder


@pytest.mark.parametrize("name", MAKERS)
def test_the_folder_is_found_below_the_given_one(look_alike, name):
    folder = look_alike(name)
    assert _read(name, folder.parent).root == folder
    assert _read(name, folder.parent.parent).root == folder


def test_the_training_folder_of_btcv_alone_will_do(look_alike):
    folder = look_alike("btcv") / "Training"
    native = _read("btcv", folder)
    assert native.root == folder
    assert len(native.training) == 5


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("btcv", "Training/img"),
        ("kits19", "case_00000"),
        ("feta21", "sub-001/anat"),
        ("brats21", "BraTS2021_00002"),
        ("msd_spleen", "imagesTr"),
    ],
)
def test_a_folder_inside_the_data_set_is_refused_with_the_right_one(look_alike, name, below):
    folder = look_alike(name)
    with pytest.raises(DataError, match=f"lies inside .*Give {folder}\\.$"):
        _read(name, folder / below)


def test_two_copies_are_not_chosen_between(look_alike):
    folder = look_alike("msd_spleen")
    shutil.copytree(folder, folder.with_name("copy"))
    with pytest.raises(DataError, match=f"more than once. Give one of {folder}, {folder.with_name('copy')}"):
        _read("msd_spleen", folder.parent)


def test_a_link_to_the_data_set_is_not_a_second_copy(look_alike):
    root = look_alike("btcv")
    (root.parent / "link").symlink_to(root)
    (root.parent / "loop").symlink_to(root.parent)
    (root.parent / "self").symlink_to("self")
    assert len(_read("btcv", root.parent).training) == 5


def test_another_data_set_is_refused_with_what_was_expected(look_alike):
    with pytest.raises(DataError, match=r"case_00000/imaging.nii.gz and case_00000/segmentation.nii.gz") as error:
        _read("kits19", look_alike("btcv"))
    assert "It holds Testing/, Training/." in str(error.value)
    assert "voxelseg data show kits19" in str(error.value)


def test_an_empty_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="It holds nothing"):
        _read("kits19", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        _read("kits19", tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------- what may be wrong


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "RawData.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"RawData\.zip: is a file, expected a folder\. Unpack it"):
        _read("btcv", tmp_path / "RawData.zip")


def test_missing_files_are_errors_with_their_names(look_alike):
    folder = look_alike("brats21")
    (folder / "BraTS2021_00000" / "BraTS2021_00000_t1ce.nii.gz").unlink()
    (folder / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    native = _read("brats21", folder)
    (channel,), (label,) = _problems(native, "missing-channel"), _problems(native, "missing-label")
    assert (channel.case, channel.message) == (
        "BraTS2021_00000",
        "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz (T1ce) not found.",
    )
    assert (label.case, label.message) == ("BraTS2021_00002", "BraTS2021_00002/BraTS2021_00002_seg.nii.gz not found.")
    assert [case.id for case in native.training] == ["BraTS2021_01666"]


def test_a_label_without_image_is_an_error(look_alike):
    folder = look_alike("btcv")
    (folder / "Training" / "img" / "img0021.nii.gz").unlink()
    (problem,) = _problems(_read("btcv", folder), "missing-image")
    assert problem.message == "Training/img/img0021.nii.gz not found."


def test_one_file_under_two_names_is_an_error(look_alike):
    folder = look_alike("btcv")
    with gzip.open(folder / "Training/img/img0001.nii.gz") as packed:
        (folder / "Training/img/img0001.nii").write_bytes(packed.read())
    native = _read("btcv", folder)
    (problem,) = _problems(native, "duplicate-case")
    assert "Training/img/img0001.nii and Training/img/img0001.nii.gz" in problem.message
    assert "img0001" not in [case.id for case in native.training]


def test_two_reconstructions_of_one_subject_are_an_error(look_alike):
    folder = look_alike("feta21") / "sub-001" / "anat"
    shutil.copy(folder / "sub-001_rec-mial_T2w.nii.gz", folder / "sub-001_rec-irtk_T2w.nii.gz")
    (problem,) = _problems(_read("feta21", folder.parents[1]), "duplicate-case")
    assert problem.case == "sub-001"


def test_a_case_in_both_parts_is_an_error(look_alike):
    folder = look_alike("amos22_ct")
    for kind in ("images", "labels"):
        shutil.copy(folder / f"{kind}Tr" / "amos_0004.nii.gz", folder / f"{kind}Va" / "amos_0004.nii.gz")
    (problem,) = _problems(_read("amos22_ct", folder), "duplicate-case")
    assert problem.case == "amos_0004"


def test_two_suffixes_are_an_error(look_alike):
    folder = look_alike("btcv") / "Training"
    with gzip.open(folder / "img" / "img0002.nii.gz") as packed:
        (folder / "img" / "img0002.nii").write_bytes(packed.read())
    (folder / "img" / "img0002.nii.gz").unlink()
    (problem,) = _problems(_read("btcv", folder), "unexpected-file")
    assert "1 of 10 files have another suffix than the others: img/img0002.nii" in problem.message


def test_suffixes_in_capitals_are_suffixes(look_alike):
    root = look_alike("flare22")
    for path in root.rglob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    native = _read("flare22", root)
    assert [case.id for case in native.training] == ["FLARE22_Tr_0001", "FLARE22_Tr_0002"]
    assert native.ending == ".nii.gz"
    assert {one.code for one in native.problems} == {"case-count"}


def test_unpacked_files_are_taken_as_they_are(look_alike):
    folder = look_alike("flare22")
    for path in list(folder.rglob("*.nii.gz")):
        with gzip.open(path) as packed:
            path.with_suffix("").write_bytes(packed.read())
        path.unlink()
    native = _read("flare22", folder)
    assert native.ending == ".nii"
    assert len(native.training) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"<html>Please sign in</html>", "not compressed with gzip"),
    ],
)
def test_files_that_are_no_scans_are_errors(look_alike, content, message):
    folder = look_alike("kits19")
    (folder / "case_00001" / "imaging.nii.gz").write_bytes(content)
    (problem,) = _problems(_read("kits19", folder), "unreadable")
    assert problem.message.startswith("case_00001/imaging.nii.gz ")
    assert message in problem.message


def test_a_file_that_cannot_be_opened_is_an_error(look_alike, monkeypatch):
    folder = look_alike("kits19")
    path = folder / "case_00001" / "imaging.nii.gz"
    real = type(path).open

    def refuse(self, *args, **kwargs):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(path), "open", refuse)
    (problem,) = _problems(_read("kits19", folder), "unreadable")
    assert "cannot be read (Permission denied)" in problem.message


def test_files_with_other_names_are_warned_about(look_alike):
    folder = look_alike("btcv")
    images = folder / "Training" / "img"
    shutil.copy(images / "img0001.nii.gz", images / "img1.nii.gz")
    shutil.copy(images / "img0001.nii.gz", images / "img0061.nii.gz")  # the number of a test case
    names = [one.message.partition(":")[0] for one in _problems(_read("btcv", folder), "unexpected-file", "warning")]
    assert names == ["Training/img/img0061.nii.gz", "Training/img/img1.nii.gz"]


def test_folders_of_cases_with_other_names_are_warned_about(look_alike):
    folder = look_alike("kits19")
    (folder / "case_00001").rename(folder / "case_0001")
    (folder / "notes").mkdir()
    native = _read("kits19", folder)
    (problem,) = _problems(native, "unexpected-file", "warning")
    assert problem.message.startswith("case_0001: not named like")
    assert len(native.training) == 2


def test_label_maps_of_test_cases_are_left_out_with_a_warning(look_alike):
    folder = look_alike("kits19")
    shutil.copy(folder / "case_00000" / "segmentation.nii.gz", folder / "case_00210" / "segmentation.nii.gz")
    native = _read("kits19", folder)
    (problem,) = _problems(native, "unexpected-file", "warning")
    assert problem.message.startswith("case_00210/segmentation.nii.gz")
    assert native.test[0].label is None


def test_no_complete_case_is_an_error(look_alike):
    folder = look_alike("flare22")
    shutil.rmtree(folder / "labels")
    native = _read("flare22", folder)
    assert len(_problems(native, "missing-label")) == 2
    assert len(_problems(native, "case-count")) == 1
