import pytest

from voxelseg.data import read_dataset
from voxelseg.errors import DataError


def codes(dataset):
    return [(problem.case, problem.severity, problem.code) for problem in dataset.problems]


def test_cases_channels_and_labels(tiny):
    data = tiny(3)
    dataset = read_dataset(data.root)
    assert (dataset.name, dataset.layout, dataset.root, dataset.file_ending) == ("Tiny", "nnunet", data.root, ".nii.gz")
    assert dataset.channels == ("CT", "PET")
    assert dataset.labels.names == ("liver", "spleen")
    assert [case.id for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    assert dataset.cases[1].images == (data.image("case_01", 0), data.image("case_01", 1))
    assert dataset.cases[1].label == data.label("case_01")
    assert dataset.problems == ()


def test_regions_and_ignore(tiny):
    data = tiny(2)
    data.describe(labels={"background": 0, "all": [1, 2], "spleen": 2, "ignore": 3}, regions_class_order=[1, 2])
    scheme = read_dataset(data.root).labels
    assert (scheme.names, scheme.has_regions, scheme.ignore) == (("all", "spleen"), True, 3)


def test_hidden_files_are_passed_over(tiny):
    data = tiny(2)
    (data.root / "imagesTr" / "._case_00_0000.nii.gz").touch()
    (data.root / "labelsTr" / "._case_00.nii.gz").touch()
    assert read_dataset(data.root).problems == ()


def test_missing_files_are_problems_and_the_cases_left_out(tiny):
    data = tiny(5)
    data.label("case_00").unlink()
    data.image("case_01", 1).unlink()
    data.image("case_02", 0).unlink()
    data.image("case_02", 1).unlink()
    dataset = read_dataset(data.root)
    assert [case.id for case in dataset.cases] == ["case_03", "case_04"]
    assert codes(dataset) == [
        ("case_00", "error", "missing-label"),
        ("case_01", "error", "missing-channel"),
        ("case_02", "error", "missing-image"),
    ]


def test_files_of_other_names_and_a_wrong_count_are_warnings(tiny):
    data = tiny(2)
    data.image("case_00", 0).with_name("scan.nii.gz").touch()
    data.describe(numTraining=3)
    assert codes(read_dataset(data.root)) == [("", "warning", "unexpected-file"), ("", "warning", "case-count")]


def test_patients_come_from_the_table(tiny):
    data = tiny(2)
    data.describe(patients={"case_00": 7, "case_99": "x"})
    dataset = read_dataset(data.root)
    assert [case.patient for case in dataset.cases] == ["7", "case_01"]
    assert codes(dataset) == [("", "warning", "unknown-patient-case")]


def test_test_cases_need_no_label_but_keep_the_one_they_have(tiny):
    data = tiny(3)
    for folder in ("imagesTs", "labelsTs"):
        (data.root / folder).mkdir()
    for case in ("case_00", "case_01"):
        for channel in (0, 1):
            path = data.image(case, channel)
            path.rename(data.root / "imagesTs" / path.name)
    data.label("case_00").rename(data.root / "labelsTs" / "case_00.nii.gz")
    data.label("case_01").unlink()
    data.describe(numTraining=1)
    dataset = read_dataset(data.root)
    assert [case.id for case in dataset.cases] == ["case_02"]
    assert [(case.id, case.label is None) for case in dataset.test_cases] == [("case_00", False), ("case_01", True)]
    assert dataset.problems == ()


def test_listed_files_replace_the_folders(tiny):
    data = tiny(2)
    data.describe(
        dataset={
            "zoe": {
                "images": ["imagesTr/case_01_0000.nii.gz", str(data.image("case_01", 1))],
                "label": "labelsTr/case_01.nii.gz",
            },
            "adam": {"images": ["imagesTr/gone_0000.nii.gz"], "label": "labelsTr/case_00.nii.gz"},
        }
    )
    dataset = read_dataset(data.root)
    assert [case.id for case in dataset.cases] == ["zoe"]
    assert dataset.cases[0].images == (data.image("case_01", 0), data.image("case_01", 1))
    assert codes(dataset) == [("adam", "error", "missing-image")]


@pytest.mark.parametrize("listed", [[], {"a": {"images": "x"}}, {"a": 3}, {"a": {"images": ["x"]}}])
def test_wrong_lists_are_refused(tiny, listed):
    data = tiny(2)
    data.describe(dataset=listed)
    with pytest.raises(DataError, match="'dataset'"):
        read_dataset(data.root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "'labels' is missing"),
        ({"file_ending": None}, "'file_ending' is None"),
        ({"file_ending": "nii.gz"}, "'file_ending' is 'nii.gz'"),
        ({"file_ending": ".mha"}, r"no complete training case. Looked for imagesTr/<case>_0000.mha"),
        (
            {"channel_names": {"0": "CT", "1": "PET", "2": "MR"}},
            r"no complete.*\n  case_00: .*channel 2 \(MR\) not found",
        ),
    ],
)
def test_descriptions_that_fit_no_file_are_refused(tiny, changes, words):
    data = tiny(2)
    data.describe(**changes)
    with pytest.raises(DataError, match=words):
        read_dataset(data.root)


def test_acdc_and_brats(shared_data):
    acdc = read_dataset(shared_data / "Dataset027_ACDC")
    assert (len(acdc.cases), acdc.channels, acdc.labels.names) == (32, ("cineMRI",), ("RV", "MYO", "LV"))
    assert acdc.cases[1].patient == "patient001"
    brats = read_dataset(shared_data / "Dataset015_BraTS")
    assert [len(case.images) for case in brats.cases] == [2, 2, 2, 2]
    assert brats.cases[0].patient == "brats_2013_pat0001"


def test_faults_in_the_test_set_are_warnings(tiny):
    data = tiny(2)
    for folder in ("imagesTs", "labelsTs"):
        (data.root / folder).mkdir()
    (data.root / "imagesTs" / "x_0001.nii.gz").touch()
    (data.root / "imagesTs" / "x_0002.nii.gz").touch()
    (data.root / "labelsTs" / "y.nii.gz").touch()
    dataset = read_dataset(data.root)
    assert (len(dataset.cases), dataset.test_cases) == (2, ())
    assert codes(dataset) == [
        ("x", "warning", "surplus-channel"),
        ("x", "warning", "missing-channel"),
        ("y", "warning", "missing-image"),
    ]


def test_patients_of_test_cases_are_known(tiny):
    data = tiny(2)
    (data.root / "imagesTs").mkdir()
    for channel in (0, 1):
        (data.root / "imagesTs" / f"x_000{channel}.nii.gz").touch()
    data.describe(patients={"x": "anna"})
    dataset = read_dataset(data.root)
    assert (dataset.test_cases[0].patient, dataset.problems) == ("anna", ())


def test_an_id_that_leads_out_of_the_output_folder_is_refused(tiny):
    data = tiny(2)
    data.describe(dataset={"../x": {"images": ["imagesTr/case_01_0000.nii.gz"], "label": "labelsTr/case_01.nii.gz"}})
    with pytest.raises(DataError, match=r"the id '\.\./x' cannot be a file name"):
        read_dataset(data.root)


def test_an_unexpected_file_is_named_within_the_data_set(tiny):
    data = tiny(2)
    data.image("case_00", 0).with_name("scan.nii.gz").touch()
    assert read_dataset(data.root).problems[0].message.startswith("imagesTr/scan.nii.gz: not named <case>_")


def test_problems_of_the_whole_set_are_listed_without_a_case(tiny):
    data = tiny(2)
    data.describe(file_ending=".mha")
    with pytest.raises(DataError, match=r"\n  imagesTr/case_00_0000.nii.gz: not named"):
        read_dataset(data.root)


def test_without_labels_neither_label_maps_nor_class_names_are_needed(tiny):
    data = tiny(2)
    data.describe(labels=None)
    data.label("case_00").unlink()
    with pytest.raises(DataError, match="'labels' is missing"):
        read_dataset(data.root)
    scans = read_dataset(data.root, labelled=False)
    assert [(case.id, len(case.images), case.label) for case in scans.cases] == [
        ("case_00", 2, None),
        ("case_01", 2, None),
    ]
    assert (scans.channels, scans.labelled) == (("CT", "PET"), False)
