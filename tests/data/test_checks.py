import gzip
import io
import json
import math
import os
import struct
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from rich.console import Console

from voxelseg.data import check_dataset, checks, print_report, read_dataset
from voxelseg.data.codes import CODES
from voxelseg.data.examination import Findings
from voxelseg.errors import DataError

AFFINE = np.array([[1.5, 0, 0, -11], [0, 2, 0, 7], [0, 0, 3, 40], [0, 0, 0, 1.0]])


def moved(**changes):
    affine = AFFINE.copy()
    if "shift_mm" in changes:
        affine[0, 3] += changes["shift_mm"]
    if "slice_mm" in changes:
        affine[2, 2] = changes["slice_mm"]
    if "degrees" in changes:  # about the head-foot axis, so that the origin voxel stays
        angle = math.radians(changes["degrees"])
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        affine[:2, :2] = turn @ affine[:2, :2]
    return affine


def truncate(tiny, case):
    path = tiny.image(case, 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_label(tiny, case):
    path = tiny.label(case)
    path.write_bytes(path.read_bytes()[:40])


def put_text_for_image(tiny, case):
    tiny.image(case, 0).write_text("<html>404 not found</html>")


def remove_label(tiny, case):
    tiny.label(case).unlink()


def remove_image(tiny, case):
    tiny.image(case, 0).unlink()
    tiny.image(case, 1).unlink()


def remove_channel(tiny, case):
    tiny.image(case, 1).unlink()


def add_channel(tiny, case):
    tiny.write(tiny.image(case, 2), tiny.read(tiny.image(case, 1)) + 1)


def stack_channels(tiny, case):
    image = tiny.read(tiny.image(case, 1))
    tiny.write(tiny.image(case, 1), np.stack([image, image + 1], axis=-1))


def crop_label(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array()[:, :-1])


def crop_channel(tiny, case):
    tiny.write(tiny.image(case, 1), tiny.read(tiny.image(case, 1))[:, :, 1:])


def stretch_label(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array(), moved(slice_mm=3.3))


def shift_label(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array(), moved(shift_mm=5))


def shift_channel(tiny, case):
    tiny.write(tiny.image(case, 1), tiny.read(tiny.image(case, 1)), moved(shift_mm=-5))


def shift_label_slightly(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array(), moved(shift_mm=0.3))  # 0.2 of a 1.5 mm voxel


def turn_label(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array(), moved(degrees=10))


def write_with_qform(tiny, case, channel, qform):
    image = nibabel.Nifti1Image(tiny.read(tiny.image(case, channel)), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(qform, code=1)
    nibabel.save(image, tiny.image(case, channel))


def part_sform_and_qform(tiny, case):
    write_with_qform(tiny, case, 0, moved(degrees=5))


def part_sform_and_qform_of_second_channel(tiny, case):
    write_with_qform(tiny, case, 1, moved(degrees=5))


def damage_qform(tiny, case):
    write_with_qform(tiny, case, 0, AFFINE)
    content = bytearray(gzip.decompress(tiny.image(case, 0).read_bytes()))
    content[256:260] = struct.pack("<f", np.nan)  # quatern_b
    tiny.image(case, 0).write_bytes(gzip.compress(content))


def put_nan(tiny, case):
    image = tiny.read(tiny.image(case, 1)).copy()
    image[3, 4, 5] = np.nan
    tiny.write(tiny.image(case, 1), image)


def put_infinity(tiny, case):
    image = tiny.read(tiny.image(case, 1)).copy()
    image[3, 4, 5] = -np.inf
    tiny.write(tiny.image(case, 1), image)


def make_constant(tiny, case):
    tiny.write(tiny.image(case, 1), np.full_like(tiny.read(tiny.image(case, 1)), 7))


def put_unknown_value(tiny, case):
    label = tiny.label_array()
    label[5, 5, 5] = 9
    tiny.write(tiny.label(case), label)


def put_negative_value(tiny, case):
    label = tiny.label_array().astype(np.int16)
    label[5, 5, 5] = -1
    tiny.write(tiny.label(case), label)


def make_mask_of_255(tiny, case):
    tiny.write(tiny.label(case), np.where(tiny.label_array() > 0, 255, 0).astype(np.uint8))


def interpolate_label(tiny, case):
    label = tiny.label_array().astype(np.float32)
    label[5, 5, 5] = 0.5
    tiny.write(tiny.label(case), label)


def nearly_integer_label(tiny, case):
    tiny.write(tiny.label(case), tiny.label_array().astype(np.float32) * np.float32(0.9999))


def put_nan_in_label(tiny, case):
    label = tiny.label_array().astype(np.float32)
    label[5, 5, 5] = np.nan
    tiny.write(tiny.label(case), label)


def stack_labels(tiny, case):
    label = tiny.label_array()
    tiny.write(tiny.label(case), np.stack([label == 1, label == 2], axis=-1).astype(np.uint8))


def empty_label(tiny, case):
    tiny.write(tiny.label(case), np.zeros_like(tiny.label_array()))


def blank_under_label(tiny, case):
    for channel in (0, 1):
        image = tiny.read(tiny.image(case, channel)).copy()
        image[tiny.label_array() > 0] = image.min()
        tiny.write(tiny.image(case, channel), image)


def copy_image_of_first_case(tiny, case):
    # stored as another type, so that only the values are the same
    tiny.write(tiny.image(case, 0), tiny.read(tiny.image(tiny.ids[0], 0)).astype(np.float32))


def copy_channel(tiny, case):
    tiny.write(tiny.image(case, 1), tiny.read(tiny.image(case, 0)))


def forget_rescale(tiny, case):
    tiny.write(tiny.image(case, 0), tiny.read(tiny.image(case, 0)) + 1024)


def cut_air(tiny, case):
    tiny.write(tiny.image(case, 0), np.maximum(tiny.read(tiny.image(case, 0)), -200))


def damage_affine(tiny, case):
    image = nibabel.Nifti1Image(tiny.label_array(), AFFINE)
    image.header["srow_x"] = np.nan
    image.header["sform_code"] = 1
    raw = image.header.binaryblock + b"\0" * 4 + tiny.label_array().tobytes(order="F")
    tiny.label(case).write_bytes(gzip.compress(raw))


def empty_file(tiny, case):
    tiny.image(case, 0).write_bytes(b"")


def flip(tiny, case):
    for path in (tiny.image(case, 0), tiny.image(case, 1), tiny.label(case)):
        tiny.write(path, tiny.read(path)[::-1])


PLANTS = [
    (truncate, "error", "unreadable", "imagesTr/case_04_0001.nii.gz: the compressed data are truncated"),
    (truncate_label, "error", "unreadable", "labelsTr/case_04.nii.gz"),
    (put_text_for_image, "error", "unreadable", "not compressed with gzip"),
    (empty_file, "error", "unreadable", "the file is empty"),
    (damage_affine, "error", "unreadable", "labelsTr/case_04.nii.gz"),
    (remove_label, "error", "missing-label", "case_04.nii.gz: label map not found"),
    (remove_image, "error", "missing-image", "case_04_0000.nii.gz: image not found"),
    (remove_channel, "error", "missing-channel", "file of channel 1 (PET) not found"),
    (add_channel, "error", "surplus-channel", "files of channel 2 exist"),
    (stack_channels, "error", "channel-count", "3 channels in"),
    (crop_label, "error", "shape-mismatch", "of the image: shape (10, 12, 14) against (10, 11, 14)"),
    (crop_channel, "error", "shape-mismatch", "of the first channel: shape (10, 12, 14) against (9, 12, 14)"),
    (stretch_label, "error", "spacing-mismatch", "spacing (3, 2, 1.5) against (3.3, 2, 1.5) mm"),
    (shift_label, "error", "origin-mismatch", "labelsTr/case_04.nii.gz: does not lie on the grid of the image"),
    (shift_channel, "error", "origin-mismatch", "imagesTr/case_04_0001.nii.gz: does not lie"),
    (shift_label_slightly, "warning", "origin-mismatch", "less than 0.5 voxels"),
    (turn_label, "error", "direction-mismatch", "turned by (0, 10, 10) degrees"),
    (part_sform_and_qform, "warning", "sform-qform", "imagesTr/case_04_0000.nii.gz: sform and qform"),
    (
        part_sform_and_qform_of_second_channel,
        "warning",
        "sform-qform",
        "imagesTr/case_04_0001.nii.gz: sform and qform",
    ),
    (damage_qform, "warning", "sform-qform", "imagesTr/case_04_0000.nii.gz: the qform is damaged"),
    (put_nan, "error", "non-finite", "imagesTr/case_04_0001.nii.gz: 1 of 1680 voxels"),
    (put_infinity, "error", "non-finite", "1 of 1680 voxels are NaN or infinite"),
    (make_constant, "error", "constant-image", "every voxel has the value 7"),
    (
        put_unknown_value,
        "error",
        "unknown-label",
        "label values 9 (1 voxels) are not in the description (known: 0, 1, 2)",
    ),
    (put_negative_value, "error", "unknown-label", "label values -1 (1 voxels)"),
    (make_mask_of_255, "error", "unknown-label", "label values 255 (70 voxels)"),
    (interpolate_label, "error", "label-not-integer", "no integers: 0.5"),
    (nearly_integer_label, "warning", "label-near-integer", "up to 0.0002 away"),
    (put_nan_in_label, "error", "non-finite", "1 voxels of the label map"),
    (stack_labels, "error", "label-channels", "2 channels, expected one map"),
    (empty_label, "warning", "empty-label", "nothing but background"),
    (blank_under_label, "warning", "label-outside-image", "lowest value"),
    (copy_image_of_first_case, "error", "duplicate-image", "same voxels as that of case_00"),
    (copy_channel, "warning", "repeated-channel", "identical voxels"),
    (forget_rescale, "warning", "ct-not-negative", "values from"),
    (cut_air, "warning", "ct-no-air", "none near air"),
    (flip, "warning", "left-right-flip", "'liver' and 'spleen' lie the other way round than in 11 of 12 cases"),
]


def serious(report):
    return [(p.case, p.severity, p.code) for p in report.problems if p.severity != "info"]


def test_a_clean_data_set_has_no_problem(tiny):
    report = check_dataset(tiny().root)
    assert report.problems == ()
    assert (report.ok, report.exit_code, report.num_cases) == (True, 0, 12)


@pytest.mark.parametrize(("plant", "severity", "code", "words"), PLANTS, ids=[plant.__name__ for plant, *_ in PLANTS])
def test_each_problem_is_found_and_nothing_else(tiny, plant, severity, code, words):
    data = tiny()
    plant(data, "case_04")
    report = check_dataset(data.root)
    assert serious(report) == [("case_04", severity, code)]
    (problem,) = report.problems
    assert words in problem.message
    assert problem.remedy
    assert report.exit_code == (1 if severity == "error" else 0)


def test_all_problems_at_once_are_all_found_in_two_processes(tiny):
    data = tiny(len(PLANTS) + 9)
    expected = []
    for case, (plant, severity, code, _) in zip(data.ids[1:], PLANTS, strict=False):
        plant(data, case)
        expected.append((case, severity, code))
    data.describe(labels={"background": 0, "liver": 1, "spleen": 2, "pancreas": 3})
    expected.append(("", "warning", "class-never-occurs"))
    (data.root / "splits.json").write_text(json.dumps([{"train": data.ids[-3:-1], "val": data.ids[-1:]}]))
    assert sorted(serious(check_dataset(data.root, workers=2))) == sorted(expected)


def test_class_that_never_occurs(tiny):
    data = tiny()
    data.describe(labels={"background": 0, "liver": 1, "pancreas": 3, "spleen": 2})
    (problem,) = check_dataset(data.root).problems
    assert (problem.case, problem.severity, problem.code) == ("", "warning", "class-never-occurs")
    assert "'pancreas' (3) occurs in none of 12 label maps" in problem.message


def test_label_that_is_all_ignore_counts_as_empty(tiny):
    data = tiny()
    data.describe(labels={"background": 0, "liver": 1, "spleen": 2, "ignore": 3})
    tiny_label = np.where(data.label_array() > 0, 3, 0).astype(np.uint8)
    data.write(data.label("case_04"), tiny_label)
    assert serious(check_dataset(data.root)) == [("case_04", "warning", "empty-label")]


def test_whole_numbers_stored_as_real_ones_are_only_remarked(tiny):
    data = tiny()
    data.write(data.label("case_04"), data.label_array().astype(np.float64))
    (problem,) = check_dataset(data.root).problems
    assert (problem.severity, problem.code) == ("info", "label-float")


def test_the_same_grid_stored_in_another_orientation_is_no_difference(tiny):
    data = tiny()
    mirrored = AFFINE @ np.array([[-1, 0, 0, 13], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])  # 14 voxels along i
    data.write(data.label("case_04"), data.label_array()[::-1], mirrored)
    assert check_dataset(data.root).problems == ()


def test_images_of_one_patient_may_repeat_with_a_warning(tiny):
    data = tiny()
    data.describe(patients={"case_00": "anna", "case_04": "anna"})
    copy_image_of_first_case(data, "case_04")
    assert serious(check_dataset(data.root)) == [("case_04", "warning", "duplicate-image")]


def test_test_cases_are_checked_too_and_may_not_repeat_training_images(tiny):
    data = tiny()
    (data.root / "imagesTs").mkdir()
    for channel in (0, 1):
        name = f"imagesTs/extra_{channel:04d}.nii.gz"
        (data.root / name).write_bytes(data.image("case_03", channel).read_bytes())
    assert serious(check_dataset(data.root)) == [("extra", "error", "duplicate-image")]


def test_sides_that_contradict_the_names_are_one_problem_of_the_data_set(tiny):
    data = tiny()
    data.describe(labels={"background": 0, "left_kidney": 1, "right_kidney": 2})  # value 1 lies right of value 2
    (problem,) = check_dataset(data.root).problems
    assert (problem.case, problem.severity, problem.code) == ("", "warning", "left-right-names")
    assert "in 12 of 12 cases 'left_kidney' lies to the patient's right of 'right_kidney'" in problem.message


def test_patients_in_several_folds_of_a_split_file(tiny):
    data = tiny(4)
    data.describe(patients={"case_00": "anna", "case_03": "anna"})
    fold = {"train": ["case_00", "case_01", "case_02"], "val": ["case_03"]}
    (data.root / "splits_final.json").write_text(json.dumps([fold]))
    (problem,) = check_dataset(data.root).problems
    assert (problem.severity, problem.code) == ("error", "patient-in-folds")
    assert "fold 0 trains and validates on the same patients: anna" in problem.message


@pytest.mark.parametrize("content", ["[", "{}", '[{"train": ["nobody"], "val": ["case_00"]}]'])
def test_other_faults_of_a_split_file(tiny, content):
    data = tiny(4)
    (data.root / "splits.json").write_text(content)
    (problem,) = check_dataset(data.root).problems
    assert (problem.severity, problem.code) == ("error", "split-file")


def test_patients_in_several_folds_of_a_file_list(tiny):
    data = tiny(3)
    lines = ["id,image_0,image_1,label,patient,fold"]
    for case, patient, fold in zip(data.ids, ("anna", "anna", "ben"), (0, 1, 0), strict=True):
        files = [path.relative_to(data.root) for path in (data.image(case, 0), data.image(case, 1), data.label(case))]
        lines.append(",".join([case, *map(str, files), patient, str(fold)]))
    (data.root / "list.csv").write_text("\n".join(lines))
    (problem,) = check_dataset(data.root / "list.csv").problems
    assert (problem.code, problem.message) == ("patient-in-folds", "patient anna is in folds 0, 1.")


def test_a_single_case_leaves_nothing_to_hold_out(tiny):
    (problem,) = check_dataset(tiny(1).root).problems
    assert (problem.severity, problem.code) == ("error", "no-held-out-case")


def test_folds_of_a_file_list_that_start_at_one(tiny):
    data = tiny(2)
    records = [
        {
            "image": [str(data.image(case, 0)), str(data.image(case, 1))],
            "label": str(data.label(case)),
            "id": case,
            "fold": fold,
        }
        for case, fold in zip(data.ids, (1, 2), strict=True)
    ]
    (data.root / "list.json").write_text(json.dumps(records))
    (problem,) = check_dataset(data.root / "list.json").problems
    assert (problem.severity, problem.code) == ("error", "wrong-folds")
    assert "no case is held out in fold 0" in problem.message


def test_progress_counts_the_cases(tiny):
    calls = []
    check_dataset(tiny(3).root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def die_at_case_2(case):
    if case.id == "case_02":
        os._exit(1)
    return Findings()


def test_a_case_that_kills_its_worker_is_that_cases_problem(tiny):
    cases = read_dataset(tiny(6).root).cases
    found = dict(checks._examine_all(die_at_case_2, cases, workers=2))
    assert [[problem.code for problem in found[index].problems] for index in range(6)] == [
        [], [], ["reader-died"], [], [], [],
    ]  # fmt: skip


def test_a_failure_of_the_check_itself_is_that_cases_problem(tiny, monkeypatch):
    def fail(path):
        if path.name == "case_01_0000.nii.gz":
            raise ZeroDivisionError("half a voxel")
        return original(path)

    original = checks.examine_case.__globals__["read_volume"]
    monkeypatch.setitem(checks.examine_case.__globals__, "read_volume", fail)
    (problem,) = check_dataset(tiny(3).root).problems[:1]
    assert (problem.case, problem.code) == ("case_01", "check-failed")
    assert "ZeroDivisionError: half a voxel" in problem.message


def test_report_is_json_and_counts_severities(tiny):
    data = tiny()
    put_nan(data, "case_04")
    empty_label(data, "case_05")
    content = json.loads(json.dumps(check_dataset(data.root).to_dict()))
    assert (content["ok"], content["num_cases"]) == (False, 12)
    assert content["counts"] == {"error": 1, "warning": 1, "info": 0}
    assert [(p["case"], p["code"]) for p in content["problems"]] == [
        ("case_04", "non-finite"),
        ("case_05", "empty-label"),
    ]
    assert set(content["problems"][0]) == {"case", "severity", "code", "message", "remedy"}


def printed(report):
    console = Console(width=100, file=io.StringIO())
    print_report(report, console)
    return console.file.getvalue()


def test_table_shows_errors_first_and_shortens_long_lists_of_cases(tiny):
    data = tiny()
    for case in data.ids[3:]:
        put_nan(data, case)
    shift_label_slightly(data, "case_00")
    text = printed(check_dataset(data.root))
    assert text.index("non-finite") < text.index("origin-mismatch")
    assert "case_06" in text
    assert "case_07" not in text
    assert "and 5 more" in text
    assert "Not ready for training: 9 errors, 1 warning." in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_table_of_a_clean_data_set_is_one_line(tiny):
    assert "Ready for training: no problems." in printed(check_dataset(tiny(6).root))


def test_markup_in_file_names_is_printed_as_it_is(tiny):
    data = tiny(6)
    for path in (data.image("case_00", 0), data.image("case_00", 1), data.label("case_00")):
        path.rename(path.with_name(path.name.replace("case_00", "[bold]x")))
    empty_label(data, "[bold]x")
    assert "[bold]x" in printed(check_dataset(data.root))


def test_a_data_set_without_any_foreground_is_an_error(tiny):
    data = tiny(6)
    for case in data.ids:
        empty_label(data, case)
    report = check_dataset(data.root)
    assert [(case, code) for case, severity, code in serious(report) if severity == "error"] == [("", "no-foreground")]
    assert report.exit_code == 1


def add_test_case(data, name, *, like=None):
    (data.root / "imagesTs").mkdir(exist_ok=True)
    rng = np.random.default_rng(99)
    for channel in (0, 1):
        array = data.read(data.image(like, channel)) if like else rng.normal(-500, 100, (14, 12, 10)).astype(np.float32)
        data.write(data.root / "imagesTs" / f"{name}_{channel:04d}.nii.gz", array)


def test_faults_of_test_cases_are_warnings(tiny):
    data = tiny(6)
    add_test_case(data, "extra")
    (data.root / "imagesTs/extra_0001.nii.gz").write_bytes(b"damaged")
    report = check_dataset(data.root)
    assert serious(report) == [("extra", "warning", "unreadable")]
    assert report.exit_code == 0


def test_two_test_cases_may_be_equal_with_a_warning(tiny):
    data = tiny(6)
    add_test_case(data, "x")
    add_test_case(data, "y")
    assert serious(check_dataset(data.root)) == [("y", "warning", "duplicate-image")]


def test_a_training_image_in_the_test_set_is_an_error_even_for_the_same_patient(tiny):
    data = tiny(6)
    data.describe(patients={"case_03": "anna", "extra": "anna"})
    add_test_case(data, "extra", like="case_03")
    assert serious(check_dataset(data.root)) == [
        ("extra", "error", "duplicate-image"),
        ("", "warning", "patient-in-test"),
    ]


def test_a_patient_in_training_and_test_set_is_told(tiny):
    data = tiny(6)
    data.describe(patients={"case_03": "anna", "extra": "anna"})
    add_test_case(data, "extra")
    (problem,) = check_dataset(data.root).problems
    assert (problem.severity, problem.code) == ("warning", "patient-in-test")
    assert "patient anna has training cases (case_03) and test cases (extra)" in problem.message


def listed(data, **changes):
    """Path of a file list of the cases of `data`, with files of a case replaced by those in `changes`."""
    records = []
    for case in data.ids:
        record = {"id": case, "image": [str(data.image(case, 0)), str(data.image(case, 1))], "label": data.label(case)}
        records.append({**record, **changes.get(case, {})})
    (data.root / "list.json").write_text(json.dumps(records, default=str))
    return data.root / "list.json"


def test_a_label_map_of_two_cases_is_named(tiny):
    data = tiny(6)
    other_way = data.root / "imagesTr" / ".." / "labelsTr" / "case_00.nii.gz"
    report = check_dataset(listed(data, case_03={"label": str(other_way)}))
    (problem,) = report.problems
    assert (problem.case, problem.severity, problem.code) == ("case_03", "error", "shared-label")
    assert "is the label map of case_00 too" in problem.message
    assert (report.source, report.root) == (data.root / "list.json", data.root)
    assert f"read from {data.root / 'list.json'}" in printed(report).replace("\n", "")


def test_an_image_in_the_place_of_a_label_map_is_named(tiny):
    data = tiny(6)
    problems = check_dataset(listed(data, case_03={"label": str(data.image("case_01", 0))})).problems
    assert ("case_03", "error", "label-is-image") in [(p.case, p.severity, p.code) for p in problems]


def test_a_file_list_with_ten_folds_can_be_trained_on(tiny):
    data = tiny(12)
    folds = {case: {"fold": number} for number, case in enumerate(data.ids[:10])}
    assert check_dataset(listed(data, **folds)).problems == ()


def test_a_mirrored_case_is_found_in_a_data_set_with_one_class(tiny):
    data = tiny(12)
    data.describe(labels={"background": 0, "liver": 1})
    for case in data.ids:
        data.write(data.label(case), (data.label_array() == 1).astype(np.uint8))
    assert check_dataset(data.root).problems == ()
    flip(data, "case_04")
    (problem,) = check_dataset(data.root).problems
    assert (problem.case, problem.code) == ("case_04", "left-right-flip")
    assert "'liver' lies on the other side of the scan's centre than in 11 of 12 cases" in problem.message


def test_too_little_memory_is_said_as_that(tiny, monkeypatch):
    def fail(path):
        raise MemoryError

    monkeypatch.setitem(checks.examine_case.__globals__, "read_volume", fail)
    problems = [problem for problem in check_dataset(tiny(2).root).problems if problem.severity == "error"]
    assert [(problem.case, problem.code) for problem in problems] == [
        ("case_00", "out-of-memory"),
        ("case_01", "out-of-memory"),
    ]
    assert "--workers 1" in problems[0].remedy


def test_a_script_without_main_guard_is_told_so_and_no_case_blamed(tiny, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"from voxelseg.data import check_dataset\n"
        f"print({{problem.code for problem in check_dataset({str(tiny(6).root)!r}, workers=2).problems}})\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("voxelseg.errors.WorkerError")][-1:]
    assert "died without an error of its own. In a script of your own, start work under if __name__ ==" in told


@pytest.mark.parametrize(("plant", "severity", "code", "words"), PLANTS, ids=[plant.__name__ for plant, *_ in PLANTS])
def test_codes_and_severities_are_the_documented_ones(plant, severity, code, words):
    assert severity in CODES[code][0].split(" or ")


@pytest.mark.parametrize("name", ["msd_hippocampus", "la_mri", "Dataset027_ACDC", "Dataset015_BraTS"])
def test_real_data_sets_have_no_error_and_no_warning(shared_data, name):
    report = check_dataset(shared_data / name, workers=2)
    assert serious(report) == []
    assert report.exit_code == 0


@pytest.mark.parametrize("name", ["fetal_sta", "ivadomed_bids", "totalseg", "nifti_nibabel", "README.md"])
def test_folders_of_other_kinds_are_no_data_sets(shared_data, name):
    with pytest.raises(DataError, match="not a data set"):
        check_dataset(shared_data / name)
