"""Conversion of look-alikes: what comes out is read, checked, and holds the very files of the makers."""

import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from look_alikes import MAKERS, SHAPE_IJK

from voxelseg.data import check_dataset, read_dataset, read_splits
from voxelseg.data.convert import convert_public_data, find_public_data
from voxelseg.data.splits import splits_of
from voxelseg.errors import ConfigError, DataError, VoxelsegError
from voxelseg.files import locked
from voxelseg.io import read_label, read_volume


@pytest.fixture
def convert(look_alike, tmp_path):
    """Function that writes the look-alike of a data set, if there is none yet, and converts it to `out`."""

    def run(name, **options):
        folder = tmp_path / "download"
        if not folder.exists():
            look_alike(name)
        return convert_public_data(find_public_data(name), folder, tmp_path / "out", **options)

    return run


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("name", MAKERS)
def test_the_result_is_read_and_checked_without_error(convert, name):
    conversion = convert(name)
    dataset, public = read_dataset(conversion.out), find_public_data(name)
    assert dataset.name == name
    assert dataset.layout == public.layout
    assert dataset.channels == public.channels
    assert dataset.labels == public.labels
    assert len(dataset.cases) == conversion.num_training > 1
    assert len(dataset.test_cases) == conversion.num_test
    report = check_dataset(dataset)
    assert report.ok, report.problems
    # few cases in a look-alike; some of its images lack the air of a real CT
    assert {one.code for one in report.problems} <= {"fewer-folds", "left-right-names", "left-right-flip"}


@pytest.mark.parametrize("name", MAKERS)
def test_every_file_is_that_of_the_makers(convert, name, tmp_path):
    conversion = convert(name)
    theirs = {content: path for path, content in _contents(tmp_path / "download").items() if path.endswith(".nii.gz")}
    ours = {path: content for path, content in _contents(conversion.out).items() if path.endswith(".nii.gz")}
    assert ours
    assert all(content in theirs for content in ours.values())


def test_files_of_brats21_go_to_channels_in_order(convert, tmp_path):
    out = convert("brats21").out
    for index, name in enumerate(("t1", "t1ce", "t2", "flair")):
        source = next((tmp_path / "download").rglob(f"BraTS2021_00002_{name}.nii.gz"))
        assert (out / "imagesTr" / f"BraTS2021_00002_{index:04d}.nii.gz").samefile(source)


def test_brats21_keeps_its_label_values_and_learns_regions(convert):
    dataset = read_dataset(convert("brats21").out)
    label = read_label(dataset.cases[0].label).array[0]
    assert set(np.unique(label)) == {0, 1, 2, 4}
    masks = {name: dataset.labels.mask(label, name) for name in dataset.labels.names}
    np.testing.assert_array_equal(masks["whole tumour"], label > 0)
    np.testing.assert_array_equal(masks["tumour core"], (label == 1) | (label == 4))
    np.testing.assert_array_equal(masks["enhancing tumour"], label == 4)
    # what a perfect network would paint is the label map, in the numbers of the challenge
    outputs = np.stack([mask.astype(np.float32) for mask in masks.values()])
    np.testing.assert_array_equal(dataset.labels.decode(outputs), label)


def test_brats21_as_classes_keeps_its_label_values_too(convert):
    dataset = read_dataset(convert("brats21_classes").out)
    label = read_label(dataset.cases[0].label).array[0]
    target = dataset.labels.encode(label)
    np.testing.assert_array_equal(target, np.select([label == 1, label == 2, label == 4], [1, 2, 3]))
    outputs = np.eye(4, dtype=np.float32)[target].transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(dataset.labels.decode(outputs), label)


def test_kits19_is_turned_by_its_affine(convert, tmp_path):
    dataset = read_dataset(convert("kits19").out)
    case = dataset.cases[0]
    array = nibabel.load(case.images[0]).get_fdata()
    volume = read_volume(case.images[0])
    # the file runs (slice, row, column) = (11, 9, 7), from superior, posterior and right: the affine has -3, -1.5, -2
    assert array.shape == SHAPE_IJK == volume.shape_dhw
    assert volume.spacing_mm == (3.0, 1.5, 2.0)
    np.testing.assert_array_equal(volume.array[0], array[::-1, ::-1, ::-1])
    assert read_label(case.label).grid.differences(volume.grid) == []


def test_four_sequences_of_msd_stay_in_one_file(convert):
    dataset = read_dataset(convert("msd_brats").out)
    assert [len(case.images) for case in dataset.cases] == [1, 1, 1]
    assert read_volume(dataset.cases[0].images[0]).array.shape[0] == 4


def test_the_description_says_where_the_data_come_from(convert):
    out = convert("btcv").out
    content = json.loads((out / "dataset.json").read_text())
    public = find_public_data("btcv")
    assert (content["name"], content["description"]) == ("btcv", public.title)
    assert (content["reference"], content["licence"]) == (public.citation, public.licence)
    assert content["numTraining"] == 5
    assert content["channel_names"] == {"0": "CT"}
    assert "regions_class_order" not in content
    assert sorted(path.name for path in out.iterdir()) == [
        *("dataset.json", "imagesTr", "imagesTs", "labelsTr", "splits_24_6.json", "splits_final.json")
    ]


def test_labelled_test_cases_keep_their_label_maps(convert):
    (case,) = read_dataset(convert("amos22_ct").out).test_cases
    assert case.id == "amos_0008"
    assert (case.images[0].parent / ".." / "labelsTs" / "amos_0008.nii.gz").is_file()


def test_a_real_folder_of_the_decathlon_is_read_as_before(shared_data, tmp_path):
    source = shared_data / "msd_hippocampus"
    conversion = convert_public_data(find_public_data("msd_hippocampus"), source, tmp_path / "out")
    before, after = read_dataset(source), read_dataset(conversion.out)
    assert [case.id for case in after.cases] == [case.id for case in before.cases]
    assert [one.values for one in after.labels.classes] == [one.values for one in before.labels.classes]
    for ours, theirs in zip(after.cases[:3], before.cases[:3], strict=True):
        for path, original in zip((*ours.images, ours.label), (*theirs.images, theirs.label), strict=True):
            assert path.read_bytes() == original.read_bytes()


# ------------------------------------------------------------------------------------------------------- folds


def test_nnunets_folds_are_read_by_default_and_the_papers_on_request(convert):
    conversion = convert("btcv")
    dataset = read_dataset(conversion.out)
    folds = splits_of(dataset)
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold.validation) == [case.id for case in dataset.cases]
    (fixed,) = read_splits(conversion.out / "splits_24_6.json", dataset.cases)
    assert fixed.train == ("img0001", "img0002", "img0021")
    assert fixed.validation == ("img0035", "img0040")
    assert set(conversion.splits) == {"splits_final.json", "splits_24_6.json"}
    missing = [one for one in conversion.warnings if "splits_24_6.json" in one.message]
    assert missing[0].message == "splits_24_6.json: 4 of 6 held-out cases are not there."


def test_a_division_whose_cases_are_absent_is_not_written(convert, tmp_path, look_alike):
    folder = look_alike("flare21")
    (folder / "TrainingImg" / "train_036_0000.nii.gz").unlink()
    (folder / "TrainingMask" / "train_036.nii.gz").unlink()
    conversion = convert("flare21")
    assert conversion.splits == {}  # and two cases are too few for five folds
    assert not list(conversion.out.glob("splits*"))
    assert any("so it is not written" in one.message for one in conversion.warnings)


# ----------------------------------------------------------------------------------------------- link and copy


def test_images_are_linked_and_label_maps_copied(convert, tmp_path):
    conversion = convert("btcv")
    theirs = tmp_path / "download" / "RawData" / "Training"
    assert (conversion.out / "imagesTr" / "img0001_0000.nii.gz").samefile(theirs / "img" / "img0001.nii.gz")
    label = conversion.out / "labelsTr" / "img0001.nii.gz"
    assert not label.samefile(theirs / "label" / "label0001.nii.gz")
    assert (conversion.num_linked, conversion.num_copied) == (6, 5)
    assert label.stat().st_mode & 0o200  # to be corrected
    shutil.rmtree(tmp_path / "download")
    assert check_dataset(conversion.out).ok


def test_everything_is_copied_on_request(convert, tmp_path):
    conversion = convert("btcv", how="copy")
    theirs = tmp_path / "download" / "RawData" / "Training" / "img" / "img0001.nii.gz"
    assert not (conversion.out / "imagesTr" / "img0001_0000.nii.gz").samefile(theirs)
    assert (conversion.num_linked, conversion.num_copied) == (0, 11)


def test_images_are_copied_where_there_are_no_links(convert, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link", source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    conversion = convert("btcv")
    assert (conversion.num_linked, conversion.num_copied) == (0, 11)
    assert check_dataset(conversion.out).ok


def test_links_lead_to_the_file_behind_a_symbolic_link(convert, look_alike, tmp_path):
    folder = look_alike("msd_spleen")
    image = folder / "imagesTr" / "spleen_2.nii.gz"
    image.rename(tmp_path / "elsewhere.nii.gz")
    image.symlink_to(tmp_path / "elsewhere.nii.gz")
    made = convert("msd_spleen").out / "imagesTr" / "spleen_2.nii.gz"
    assert not made.is_symlink()
    assert made.samefile(tmp_path / "elsewhere.nii.gz")


def test_an_unknown_way_is_refused(convert):
    with pytest.raises(ConfigError, match="how 'move': expected link or copy"):
        convert("btcv", how="move")


# -------------------------------------------------------------------------------------- refusals and beginnings


def test_everything_wrong_is_listed_before_anything_is_written(convert, look_alike, tmp_path):
    folder = look_alike("btcv") / "Training"
    (folder / "img" / "img0001.nii.gz").unlink()
    (folder / "label" / "label0002.nii.gz").unlink()
    (folder / "img" / "img0021.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="btcv cannot be converted, nothing was written") as error:
        convert("btcv")
    for found in (
        "img0001: Training/img/img0001.nii.gz",
        "img0002: Training/label/label0002.nii.gz",
        "img0021.nii.gz is",
    ):
        assert found in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["download"]


def test_files_with_other_names_are_shown_beside_what_is_missing(convert, look_alike):
    (image,) = look_alike("btcv").rglob("img0001.nii.gz")
    image.rename(image.with_name("IMG0001.nii.gz"))
    with pytest.raises(DataError, match=r"img0001\.nii\.gz not found.*\n.*IMG0001\.nii\.gz: not named like the files"):
        convert("btcv")


def test_a_long_list_of_errors_is_cut(convert, tmp_path):
    for number in range(45):
        path = tmp_path / "download" / "Training" / "img" / f"img{number:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="and 5 more"):  # img0000 is no case; 44 labels and the count are missing
        convert("btcv")


def test_a_filled_folder_is_refused_and_left_alone(convert, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(VoxelsegError, match=r"is not empty.*voxelseg check"):
        convert("btcv")
    assert _contents(tmp_path / "out") == {"mine.txt": b"keep"}


def test_an_empty_folder_is_filled(convert, tmp_path):
    (tmp_path / "out").mkdir()
    assert read_dataset(convert("btcv").out).cases


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_to_an_empty_folder_or_one_to_be_made(convert, tmp_path, there):
    disk = tmp_path / "disk"
    if there:
        disk.mkdir()
    (tmp_path / "out").symlink_to(disk)
    assert len(read_dataset(convert("flare22").out).cases) == 2
    assert (disk / "dataset.json").is_file()
    assert (tmp_path / "out").is_symlink()


def test_the_place_of_a_disk_is_refused_before_anything_is_copied(convert, monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    with pytest.raises(VoxelsegError, match=r"is where a disk is mounted\. Choose a folder in it, such as .*out.data"):
        convert("flare22")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "download"}


def test_a_file_in_the_place_of_the_folder_is_refused(convert, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(VoxelsegError, match="is a file"):
        convert("btcv")


def test_a_second_conversion_of_the_same_is_refused(convert):
    convert("btcv")
    with pytest.raises(VoxelsegError, match="go on with"):
        convert("btcv")


def test_two_conversions_at_once_do_not_meet(convert, tmp_path):
    with locked(tmp_path / ".partial-out"), pytest.raises(VoxelsegError, match="another voxelseg process"):
        convert("btcv")


def test_a_full_disk_is_foreseen(convert, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 17))
    with pytest.raises(VoxelsegError, match=r"0.0 GB are to be copied, 0.0 GB are free"):
        convert("btcv")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_renamed_is_an_error_of_the_user(convert, monkeypatch, tmp_path):
    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(type(tmp_path), "rename", refuse)
    with pytest.raises(VoxelsegError, match="out: cannot be written"):
        convert("btcv")


# ------------------------------------------------------------------------------------------------ interruption


class _Interrupt:
    """`shutil.copyfile` that is interrupted, as by Ctrl-C, in its n-th copy, with half of the file written."""

    def __init__(self, monkeypatch, *, at):
        self.left = at
        self.real = shutil.copyfile
        monkeypatch.setattr(shutil, "copyfile", self)

    def __call__(self, source, target):
        self.left -= 1
        if self.left == 0:
            target.write_bytes(source.read_bytes()[:20])
            raise KeyboardInterrupt
        return self.real(source, target)


def test_an_interrupted_conversion_leaves_no_data_set_and_goes_on(convert, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _Interrupt(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            convert("btcv", how="copy")
    assert not (tmp_path / "out").exists()
    built = tmp_path / ".partial-out" / "data"
    done = {path: path.stat().st_mtime_ns for path in built.rglob("*.nii.gz")}
    assert len(done) == 3
    (built / "labelsTr" / ".partial-0123-img0001.nii.gz").write_bytes(b"left by a killed process")
    seen = []
    conversion = convert("btcv", how="copy", progress=lambda count, of: seen.append((count, of)))
    assert seen[0] == (4, 11)
    assert seen[-1] == (11, 11)
    for path, time in done.items():
        assert (conversion.out / path.relative_to(built)).stat().st_mtime_ns == time
    assert check_dataset(conversion.out).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "out"]
    assert not [path for path in conversion.out.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("change", ["source", "how", "data set"])
def test_an_interrupted_conversion_of_something_else_starts_afresh(convert, look_alike, monkeypatch, tmp_path, change):
    first = "amos22_mri" if change == "data set" else "amos22_ct"
    look_alike(first)
    with monkeypatch.context() as patch:
        _Interrupt(patch, at=2)
        with pytest.raises(KeyboardInterrupt):
            convert(first, how="copy")
    if change == "source":
        label = tmp_path / "download" / "amos22" / "labelsTr" / "amos_0001.nii.gz"
        shutil.copy(tmp_path / "download" / "amos22" / "labelsTr" / "amos_0004.nii.gz", label)
        os.utime(label, (1, 1))
    seen = []
    options = {"how": "link"} if change == "how" else {"how": "copy"}
    conversion = convert("amos22_ct", progress=lambda count, of: seen.append(count), **options)
    assert seen == list(range(1, 9))  # 3 training and 1 test cases, each with an image and a label map
    assert read_dataset(conversion.out).labels == find_public_data("amos22_ct").labels
    assert [case.id for case in read_dataset(conversion.out).cases] == ["amos_0001", "amos_0004", "amos_0381"]
