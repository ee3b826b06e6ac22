import json

import pytest

from voxelseg.data import read_dataset
from voxelseg.errors import DataError

LABELS = {"background": 0, "liver": 1}
DESCRIPTION = {"name": "Toy", "channel_names": {"0": "CT"}, "labels": LABELS}


@pytest.fixture
def folder(tmp_path):
    """Empty files in folders of no layout: reading a list opens no image."""
    for name in ("x/a.nii.gz", "x/b.mha", "x/b2.mha", "y/a.nii.gz", "y/b.mha"):
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    (tmp_path / "files" / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return tmp_path / "files"


def write(folder, text, name="list.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def test_csv_with_all_columns(folder):
    text = "id,image,label,patient,fold\nfirst,x/a.nii.gz,y/a.nii.gz,anna,1\n,x/b.mha,y/b.mha,,\n\n"
    dataset = read_dataset(write(folder, text))
    assert (dataset.layout, dataset.root, dataset.name, dataset.file_ending) == ("filelist", folder, "Toy", ".mha")
    b, first = dataset.cases
    assert (b.id, b.patient, b.fold) == ("b", "b", None)
    assert (first.id, first.patient, first.fold) == ("first", "anna", 1)
    assert first.images == (folder / "x/a.nii.gz",)
    assert dataset.problems == ()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_from_other_spreadsheets(folder, separator):
    text = "image,label\r\nx/a.nii.gz,y/a.nii.gz\r\n".replace(",", separator)
    assert [case.id for case in read_dataset(write(folder, text, encoding="utf-8-sig")).cases] == ["a"]


def test_csv_with_quotes(folder):
    text = '"id", "image", "label"\n"first, or so","x/a.nii.gz","y/a.nii.gz"\n'
    assert [case.id for case in read_dataset(write(folder, text)).cases] == ["first, or so"]


def test_csv_with_one_column_per_channel(folder):
    (folder / "list.json").write_text(json.dumps({"channels": ["T1", "T2"], "labels": LABELS}))
    text = "id,image_1,image_0,label\nb,x/b2.mha,x/b.mha,y/b.mha\na,x/a.nii.gz,,y/a.nii.gz\n"
    dataset = read_dataset(write(folder, text))
    assert dataset.channels == ("T1", "T2")  # from list.json, which goes before dataset.json
    assert dataset.cases[0].images == (folder / "x/b.mha", folder / "x/b2.mha")
    assert [(problem.case, problem.code) for problem in dataset.problems] == [("a", "missing-channel")]


def test_missing_and_unused_are_told(folder):
    text = (
        "image,label,pateint\nx/a.nii.gz,y/a.nii.gz,anna\nx/b.mha,,ben\nx/c.mha,y/b.mha,carl\nx/a.nii.gz,y/a.nii.gz,d\n"
    )
    assert [(p.case, p.severity, p.code) for p in read_dataset(write(folder, text)).problems] == [
        ("a", "error", "duplicate-case"),
        ("b", "error", "missing-label"),
        ("c", "error", "missing-image"),
        ("", "info", "unused-column"),
    ]


def test_json_object_with_its_own_description(folder):
    content = {
        **DESCRIPTION,
        "name": "Own",
        "training": [{"image": ["x/b.mha", "x/b2.mha"], "label": "y/b.mha", "fold": 0, "patient": 3}],
        "test": ["x/a.nii.gz", {"id": "t", "image": "x/a.nii.gz", "label": "y/a.nii.gz"}],
    }
    dataset = read_dataset(write(folder, json.dumps(content), "list.json"))
    (case,) = dataset.cases
    assert (dataset.name, case.id, case.fold, case.patient, len(case.images)) == ("Own", "b", 0, "3", 2)
    assert [(one.id, one.label is None) for one in dataset.test_cases] == [("a", True), ("t", False)]


def test_json_list_and_absolute_paths(folder):
    content = [{"image": str(folder / "x/a.nii.gz"), "label": str(folder / "y/a.nii.gz")}]
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "dataset.json").write_text(json.dumps(DESCRIPTION))
    dataset = read_dataset(write(folder / "elsewhere", json.dumps(content), "list.json"))
    assert dataset.cases[0].images == (folder / "x/a.nii.gz",)
    assert dataset.labels.names == ("liver",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns"),
        ("picture,label\nx/a.nii.gz,y/a.nii.gz", r"columns \['picture', 'label'\] found, expected 'image'"),
        ("image\nx/a.nii.gz", "expected 'image'.*and 'label'"),
        ("image,label\n", "no complete training case"),
        ("image,label\nx/a.nii.gz,y/a.nii.gz,7", "line 2 has more fields than the 2 columns"),
        ("image,label,fold\nx/a.nii.gz,y/a.nii.gz,two", "case a: 'fold' is 'two'"),
        ("image,label,fold\nx/a.nii.gz,y/a.nii.gz,-1", "case a: 'fold' is '-1'"),
        ("id,image,label\n../a,x/a.nii.gz,y/a.nii.gz", "'../a' cannot be a file name"),
        ("id,image,label\na,,y/a.nii.gz", "names no image"),
        ("image,label\nx/a.png,y/a.nii.gz", "no known image suffix"),
    ],
)
def test_wrong_csv_is_refused(folder, text, words):
    with pytest.raises(DataError, match=words):
        read_dataset(write(folder, text))


def test_csv_in_another_encoding_is_refused(folder):
    with pytest.raises(DataError, match="Save it as CSV in UTF-8"):
        read_dataset(write(folder, "image,label\n\u00e4.nii.gz,b.nii.gz", encoding="latin-1"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("3", "not a file list. Found int"),
        ('{"cases_": []}', "not a file list.*cases_"),
        ('{"training": {}}', "expected a list of records"),
        ("[3]", "record 0 is 3"),
        ('[{"image": ["a.mha", 3], "label": "b.mha"}]', "names no image"),
        ('[{"image": "x/a.nii.gz", "label": "y/a.nii.gz", "fold": true}]', "'fold' is True"),
    ],
)
def test_wrong_json_is_refused(folder, content, words):
    with pytest.raises(DataError, match=words):
        read_dataset(write(folder, content, "list.json"))


PAIR = {"image": "x/a.nii.gz", "label": "y/a.nii.gz"}


def codes(dataset):
    return [(problem.case, problem.severity, problem.code) for problem in dataset.problems]


def test_the_source_is_the_list_and_the_root_its_folder(folder):
    file = write(folder, "image,label\nx/a.nii.gz,y/a.nii.gz")
    assert (read_dataset(file).source, read_dataset(file).root) == (file, folder)


@pytest.mark.parametrize("key", ["id", "patient"])
def test_a_name_that_is_the_number_0_is_not_lost(folder, key):
    cases = read_dataset(write(folder, json.dumps([PAIR | {key: 0}]), "list.json")).cases
    assert (cases[0].id, cases[0].patient) == ("a" if key == "patient" else "0", "0")


@pytest.mark.parametrize("key", ["id", "patient"])
@pytest.mark.parametrize("given", [True, ["anna"]])
def test_a_name_that_is_neither_text_nor_number_is_refused(folder, key, given):
    with pytest.raises(DataError, match=f"'{key}' is .* expected a name or a number"):
        read_dataset(write(folder, json.dumps([PAIR | {key: given}]), "list.json"))


def test_a_list_without_labels_keeps_what_it_says_itself(folder):
    content = {"training": [PAIR], "channel_names": {"0": "MRI"}, "patients": {"a": "anna"}, "name": "Own"}
    dataset = read_dataset(write(folder, json.dumps(content), "list.json"))
    assert (dataset.name, dataset.channels, dataset.cases[0].patient) == ("Own", ("MRI",), "anna")
    assert dataset.labels.names == ("liver",)  # from dataset.json


def test_a_list_without_anything_else_is_described_by_the_file_beside_it(folder):
    dataset = read_dataset(write(folder, json.dumps({"cases": [PAIR]}), "list.json"))
    assert (dataset.name, dataset.channels, dataset.labels.names) == ("Toy", ("CT",), ("liver",))


def test_lists_that_are_not_used_are_told(folder):
    content = {**DESCRIPTION, "training": [PAIR], "validation": [PAIR], "testing": ["x/b.mha", "x/b2.mha"]}
    dataset = read_dataset(write(folder, json.dumps(content), "list.json"))
    assert codes(dataset) == [("", "warning", "unused-list")] * 2
    assert dataset.problems[1].message == "list.json: the 2 records under 'testing' are not used."


@pytest.mark.parametrize("beside", ["[1, 2]", '{"training": []}', '{"name": "settings"}'])
def test_another_file_of_the_list_s_name_is_not_taken_for_its_description(folder, beside):
    (folder / "list.json").write_text(beside)
    assert read_dataset(write(folder, "image,label\nx/a.nii.gz,y/a.nii.gz")).channels == ("CT",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image_20230101,label\nx/a.nii.gz,y/a.nii.gz", "in the columns image_20230101, expected image_0"),
        ("image_1,image_2,label\nx/b.mha,x/b2.mha,y/b.mha", "in the columns image_1, image_2, expected image_0"),
        ("image_0,image_00,label\nx/b.mha,x/b2.mha,y/b.mha", "in the columns image_0, image_00, expected"),
        ("image,label,image\nx/b.mha,y/b.mha,x/b2.mha", "several columns are called image"),
        ("id,image,label\n.a,x/a.nii.gz,y/a.nii.gz", r"the id '\.a' cannot be a file name"),
        ("image,label\n\n\nx/a.nii.gz,y/a.nii.gz\n\nx/b.mha,y/b.mha,7", "line 6 has more fields"),
    ],
)
def test_more_wrong_csv_is_refused(folder, text, words):
    with pytest.raises(DataError, match=words):
        read_dataset(write(folder, text))


def test_the_id_comes_from_the_first_channel_that_is_named(folder):
    text = "image_0,image_1,label\nx/b.mha,x/b2.mha,y/b.mha\n,x/a.nii.gz,y/a.nii.gz\n"
    assert codes(read_dataset(write(folder, text)))[0] == ("a", "error", "missing-channel")


def test_patients_and_faults_of_test_cases(folder):
    content = {**DESCRIPTION, "patients": {"b": "ben"}, "training": [PAIR], "test": ["x/b.mha", "x/gone.mha"]}
    dataset = read_dataset(write(folder, json.dumps(content), "list.json"))
    assert [(case.id, case.patient) for case in dataset.test_cases] == [("b", "ben")]
    assert codes(dataset) == [("gone", "warning", "missing-image")]


@pytest.mark.parametrize("name", ["scans.csv", "scans.json"])
def test_without_labels_a_list_of_images_is_enough(tiny, name):
    data = tiny(2)
    (data.root / "dataset.json").unlink()
    images = [f"imagesTr/{case}_0001.nii.gz" for case in data.ids]
    rows = "\n".join(["image", *images])
    (data.root / name).write_text(rows if name.endswith("csv") else json.dumps([{"image": image} for image in images]))
    scans = read_dataset(data.root / name, labelled=False)
    assert [(case.images[0].name, case.label) for case in scans.cases] == [
        ("case_00_0001.nii.gz", None),
        ("case_01_0001.nii.gz", None),
    ]
    assert (scans.channels, scans.labelled) == (("channel_0",), False)
    with pytest.raises(DataError):
        read_dataset(data.root / name)
