import pytest

from voxelseg.data.convert.public import Part, Source
from voxelseg.data.convert.tree import Tree, is_case_folder, without_ending


def _part(image, label=None, **values):
    return Part(images=(image,), label=label, case="{n}", **values)


def _files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(root, template, **values):
    return [
        (number, path.relative_to(root).as_posix())
        for number, path in Tree().matches(root, template, _part(template, **values))
    ]


def test_files_in_one_folder_are_found_by_number(tmp_path):
    _files(tmp_path, "img/img0002.nii.gz", "img/img0001.nii", "img/img3.nii.gz", "img/other.nii.gz", "img0004.nii.gz")
    assert _found(tmp_path, "img/img{n}", digits=4) == [("0001", "img/img0001.nii"), ("0002", "img/img0002.nii.gz")]
    assert _found(tmp_path, "img/img{n}") == [*_found(tmp_path, "img/img{n}", digits=4), ("3", "img/img3.nii.gz")]


def test_a_number_is_the_same_in_folder_and_file(tmp_path):
    _files(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-01_T2w.nii.gz", "sub-03/sub-03_T2w.nii.gz")
    assert _found(tmp_path, "sub-{n}/anat/sub-{n}_T2w") == [("01", "sub-01/anat/sub-01_T2w.nii.gz")]


def test_a_number_may_occur_twice_in_a_name(tmp_path):
    _files(tmp_path, "a1_b1.nii.gz", "a1_b2.nii.gz")
    assert _found(tmp_path, "a{n}_b{n}") == [("1", "a1_b1.nii.gz")]


def test_a_star_is_any_text(tmp_path):
    _files(
        tmp_path, "sub-01/sub-01_rec-mial_T2w.nii.gz", "sub-02/sub-02_rec-irtk_T2w.nii.gz", "sub-03/sub-03_T2w.nii.gz"
    )
    assert [number for number, _ in _found(tmp_path, "sub-{n}/sub-{n}_rec-*_T2w")] == ["01", "02"]


def test_hidden_files_and_other_kinds_are_no_matches(tmp_path):
    _files(tmp_path, "._1.nii.gz", "1.json", "1.nii.gz.part", ".hidden/1.nii.gz")
    assert _found(tmp_path, "{n}") == []
    assert _found(tmp_path, "{n}/{n}") == []


def test_dots_and_brackets_in_a_template_are_themselves(tmp_path):
    _files(tmp_path, "v2x1(1).nii.gz", "v2.1(1).nii.gz")
    assert _found(tmp_path, "v2.1({n})") == [("1", "v2.1(1).nii.gz")]


def test_a_folder_without_rights_is_empty(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "denied", str(path))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    assert Tree().folders(tmp_path) == []


def test_a_source_is_held_where_an_image_or_a_label_lies(tmp_path):
    source = Source(folder="data", training=_part("img/{n}", "label/{n}"))
    tree = Tree()
    assert not tree.holds(tmp_path, source)
    _files(tmp_path, "label/1.nii.gz")
    assert Tree().holds(tmp_path, source)
    assert not tree.holds(tmp_path, source)  # folders are listed once


@pytest.mark.parametrize(
    ("name", "found"), [("case_00001", True), ("case_0001", False), ("case_00001_old", False), ("starter_code", None)]
)
def test_folders_of_cases_are_told_from_others(name, found):
    assert is_case_folder(name, "case_{n}", 5) is found


def test_names_lose_their_ending(tmp_path):
    assert without_ending(tmp_path / "a.nii.gz") == "a"
    assert without_ending(tmp_path / "a.nii") == "a"
    assert without_ending(tmp_path / "a.nrrd") is None
