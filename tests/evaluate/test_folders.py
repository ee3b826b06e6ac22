import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import ConfigError, DataError, WorkerError
from voxelseg.evaluate import evaluate, evaluate_pairs, read_evaluation
from voxelseg.evaluate.case import LabelPair
from voxelseg.evaluate.folders import description_near, match_files
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
AFFINE = np.diag([0.5, 1.0, 3.0, 1.0])


def save(path, values, affine=AFFINE):
    """Label map (3, 4, 5) whose first voxels have the given values."""
    label = np.zeros((3, 4, 5), np.uint8)
    label.flat[: len(values)] = values
    write_volume(path, Volume(label[None], Grid(shape_ijk=(5, 4, 3), affine_ijk=affine)))
    return path


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of cases a and b; a is perfect, of b's three liver voxels one is found."""
    prediction, reference = tmp_path / "prediction", tmp_path / "data" / "labelsTr"
    save(prediction / "a.nii.gz", [1, 1, 2])
    save(prediction / "b.mha", [1])
    save(reference / "a.nii.gz", [1, 1, 2])
    save(reference / "b.nrrd", [1, 1, 1])
    return prediction, reference


def describe(reference, labels, **more):
    (reference.parent / "dataset.json").write_text(json.dumps({"labels": labels, **more}))


def test_files_are_matched_by_name_whatever_their_format(folders, tmp_path):
    evaluation = evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert evaluation.cases == ("a", "b")
    assert evaluation.values("dice", "liver") == {"a": 1.0, "b": pytest.approx(0.5)}
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["classes"]["liver"]["dice"] == pytest.approx(0.75)
    assert summary["classes"]["spleen"]["dice"] == 1.0
    assert summary["mean"]["dice"] == pytest.approx(0.875)
    assert len((tmp_path / "scores" / "cases.csv").read_text().splitlines()) == 5


def test_class_names_come_from_the_description_above_the_references(folders, tmp_path):
    describe(folders[1], {"background": 0, "left": 1, "right": 2})
    assert evaluate(*folders, tmp_path / "scores").classes == ("left", "right")


@pytest.mark.parametrize(
    ("name", "text"), [("labels.txt", "1 left\n2 right\n"), ("labels.json", '{"left": 1, "right": 2}')]
)
@pytest.mark.parametrize("beside", ["the references", "their folder"])
def test_class_names_come_from_the_files_beside_plain_pairs(folders, tmp_path, name, text, beside):
    (folders[1].parent / "dataset.json").write_text('{"name": "without labels"}')
    ((folders[1] if beside == "the references" else folders[1].parent) / name).write_text(text)
    assert evaluate(*folders, tmp_path / "scores").classes == ("left", "right")


def test_without_description_label_values_are_the_names_in_every_case(folders, tmp_path):
    assert description_near(folders[1]).labels is None
    evaluation = evaluate(*folders, tmp_path / "scores")
    assert evaluation.classes == ("1", "2")
    assert np.isnan(evaluation.values("dice", "2")["b"])
    assert evaluation.summary()["classes"]["2"]["dice_undefined"] == 1


def test_patients_come_from_the_description_above_the_references(folders, tmp_path):
    describe(folders[1], {"background": 0, "left": 1, "right": 2}, patients={"a": "Ann", "b": "Ann", "c": "Bob"})
    for labels, out in ((None, "described"), (LABELS, "given")):
        evaluate(*folders, tmp_path / out, labels=labels)
        assert read_evaluation(tmp_path / out).patients == {"a": "Ann", "b": "Ann"}


def test_classes_beside_the_references_and_patients_above_them_are_taken_together(folders, tmp_path):
    describe(folders[1], {"background": 0, "one": 1, "two": 2}, patients={"a": "Ann"})
    (folders[1] / "labels.txt").write_text("1 left\n2 right\n")
    found = evaluate(*folders, tmp_path / "scores")
    assert (found.classes, found.patients) == (("left", "right"), {"a": "Ann"})


def test_where_nobody_said_whose_the_cases_are_nothing_is_written_of_it(folders, tmp_path):
    assert evaluate(*folders, tmp_path / "scores").patients == {}
    assert "patient" not in (tmp_path / "scores" / "cases.csv").read_text()


def test_several_workers_give_the_same_scores(folders, tmp_path):
    done = []
    one = evaluate(*folders, tmp_path / "one", labels=LABELS)
    evaluate(*folders, tmp_path / "two", labels=LABELS, workers=2, progress=lambda *counts: done.append(counts))
    assert (tmp_path / "one" / "cases.csv").read_text() == (tmp_path / "two" / "cases.csv").read_text()
    assert (tmp_path / "one" / "summary.json").read_text() == (tmp_path / "two" / "summary.json").read_text()
    assert done == [(1, 2), (2, 2)]
    assert one.scores


def test_two_files_make_one_case(folders, tmp_path):
    evaluation = evaluate(folders[0] / "b.mha", folders[1] / "b.nrrd", tmp_path / "scores", labels=LABELS)
    assert evaluation.cases == ("b",)


def test_references_without_prediction_are_all_listed(folders, tmp_path):
    for case in ("c", "d"):
        save(folders[1] / f"{case}.nii.gz", [1])
    with pytest.raises(DataError, match=r"2 of 4 cases of .* have no prediction: c, d\."):
        evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert not (tmp_path / "scores").exists()


def test_references_without_prediction_are_left_out_on_request_and_noted(folders, tmp_path):
    save(folders[1] / "c.nii.gz", [1])
    evaluation = evaluate(*folders, tmp_path / "scores", labels=LABELS, allow_missing=True)
    assert evaluation.cases == ("a", "b")
    assert evaluation.notes == ("Left out because they have no prediction: c.",)


def test_no_prediction_at_all_is_an_error_even_on_request(folders, tmp_path):
    save(tmp_path / "others" / "z.nii.gz", [1])
    with pytest.raises(DataError, match="2 of 2 cases"):
        match_files(tmp_path / "others", folders[1], allow_missing=True)


def test_predictions_without_reference_are_left_out_and_noted(folders, tmp_path):
    save(folders[0] / "z.nii.gz", [1])
    evaluation = evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert evaluation.cases == ("a", "b")
    assert evaluation.notes == ("Left out because they have no reference: z.",)
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["notes"] == list(evaluation.notes)


def test_every_case_that_cannot_be_scored_is_listed_and_nothing_written(folders, tmp_path):
    shifted = AFFINE.copy()
    shifted[1, 3] = 2.0
    save(folders[0] / "a.nii.gz", [1], shifted)
    (folders[0] / "b.mha").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)2 of 2 cases cannot be scored.*a\.nii\.gz: not on the grid.*b\.mha"):
        evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert not (tmp_path / "scores").exists()


def test_folders_that_hold_no_label_maps_are_explained(folders, tmp_path):
    with pytest.raises(DataError, match="prediction folder does not exist"):
        match_files(tmp_path / "nowhere", folders[1])
    with pytest.raises(DataError, match=r"Did you mean one of its folders \['labelsTr'\]"):
        match_files(folders[0], folders[1].parent)
    with pytest.raises(DataError, match="reference folder is a file"):
        match_files(folders[0], folders[1] / "a.nii.gz")


def test_two_files_of_one_case_are_refused(folders):
    save(folders[0] / "a.nrrd", [1])
    with pytest.raises(DataError, match=r"several files of one case: a\.nii\.gz, a\.nrrd"):
        match_files(*folders)


def test_a_damaged_description_is_an_error(folders, tmp_path):
    (folders[1].parent / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json"):
        evaluate(*folders, tmp_path / "scores")


def test_label_maps_without_any_class_cannot_be_scored(tmp_path):
    save(tmp_path / "p" / "a.nii.gz", [])
    save(tmp_path / "r" / "a.nii.gz", [])
    with pytest.raises(DataError, match="nothing to score"):
        evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "scores")


def test_cases_slightly_off_their_grid_are_scored_and_noted(folders, tmp_path):
    shifted = AFFINE.copy()
    shifted[1, 3] = 0.1  # of a voxel of 1 mm, a fifth of the smallest one
    save(folders[0] / "a.nii.gz", [1, 1, 2], shifted)
    evaluation = evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert evaluation.values("dice", "liver")["a"] == 1.0
    note = "Compared voxel by voxel though their headers place the voxels up to 0.5 of a voxel apart: a."
    assert evaluation.notes == (note,)
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["notes"] == [note]


def test_cases_whose_axes_are_not_at_right_angles_are_scored_and_noted(folders, tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.6  # slices 3 mm apart lie 0.6 mm off each other: a gantry tilted by 11 degrees
    for folder in folders:
        save(folder / "a.nii.gz", [1, 1, 2], sheared)
    evaluation = evaluate(*folders, tmp_path / "scores", labels=LABELS)
    assert evaluation.values("dice", "liver")["a"] == 1.0
    assert evaluation.notes == (
        "Distances are as if the scan's axes were at right angles, which they are not (gantry tilt): a.",
    )


class Deadly:
    """Ends the process that receives it."""

    def __reduce__(self):
        return (os._exit, (1,))


def test_cases_of_a_worker_that_died_are_named():
    pairs = [LabelPair(case, Deadly(), Path()) for case in ("liver_01", "liver_02")]
    with pytest.raises(WorkerError, match=r"In work were: case liver_01, case liver_02\. "):
        evaluate_pairs(pairs, None, labels=LABELS, workers=2)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused_before_anything_is_read(folders, tmp_path, tolerance_mm):
    (folders[0] / "a.nii.gz").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="tolerance_mm must be a number of at least 0"):
        evaluate(*folders, tmp_path / "scores", tolerance_mm=tolerance_mm)


def test_pairs_are_scored_in_the_order_of_their_ids(folders):
    files = [("b", folders[0] / "b.mha", folders[1] / "b.nrrd"), ("a", *(f / "a.nii.gz" for f in folders))]
    assert evaluate_pairs(files, None, labels=LABELS).cases == ("a", "b")


def test_real_label_maps_score_one_against_themselves(shared_data, tmp_path):
    reference = shared_data / "msd_hippocampus" / "labelsTr"
    files = sorted(path for path in reference.glob("*.nii.gz") if not path.name.startswith("."))[:3]
    evaluation = evaluate_pairs(
        [(path.name, path, path) for path in files], tmp_path / "scores", labels=description_near(reference).labels
    )
    assert evaluation.mean("dice") == 1.0
    assert evaluation.mean("hd95_mm") == 0.0
    assert len(evaluation.classes) == 2


def test_errors_name_every_missing_case_and_notes_a_few(folders, tmp_path):
    names = [f"m{index}" for index in range(8)]
    for name in names:
        save(folders[1] / f"{name}.nii.gz", [1])
    with pytest.raises(DataError, match=", ".join(names)):
        match_files(*folders)
    _, notes = match_files(*folders, allow_missing=True)
    assert notes == ("Left out because they have no prediction: m0, m1, m2, m3, m4 and 3 more.",)


def save_probabilities(path, *channels, affine=AFFINE):
    """4D file of channels (3, 4, 5) whose first voxels have the given values, all others those at the end."""
    array = np.empty((len(channels), 60), np.float32)
    for channel, values in zip(array, channels, strict=True):
        channel[:] = values[-1]
        channel[: len(values)] = values
    grid = Grid(shape_ijk=(5, 4, 3), affine_ijk=affine)
    write_volume(path, Volume(array.reshape(-1, 3, 4, 5), grid))
    return path


@pytest.fixture
def probabilities(folders, tmp_path):
    """Of cases a and b: background, liver, spleen."""
    folder = tmp_path / "prediction" / "probabilities"
    save_probabilities(folder / "a.nii.gz", [0.2, 0.2, 0.1, 1.0], [0.8, 0.8, 0.1, 0.0], [0.0, 0.0, 0.8, 0.0])
    save_probabilities(folder / "b.nii", [0.4, 0.6, 0.6, 1.0], [0.6, 0.4, 0.4, 0.0], [0.0])
    return folder


def test_probabilities_of_each_class_are_scored_against_all_others(folders, probabilities, tmp_path):
    found = evaluate(*folders, tmp_path / "scores", labels=LABELS, probabilities=probabilities)
    # 10 mm around the box of the reference are 4 slices, 10 rows and 20 columns: all 60 voxels.
    assert found.values("brier", "liver") == pytest.approx(
        {"a": (2 * 0.2**2 + 0.1**2) / 60, "b": (0.4**2 + 2 * 0.6**2) / 60}, rel=1e-5
    )
    # a: bin of 0.8 says 1.6 of 2, bin of 0.1 says 0.1 of 0. b: 0.6 of 1, and 0.8 of 2 in the bin of 0.4.
    assert found.values("ece", "liver") == pytest.approx({"a": 0.5 / 60, "b": (0.4 + 1.2) / 60}, rel=1e-5)
    assert np.isnan(found.values("ece", "spleen")["b"])  # in neither label map
    assert [column.key for column in found.columns][-2:] == ["ece", "brier"]


def test_ignored_voxels_are_not_asked_for_their_probability(folders, probabilities, tmp_path):
    labels = LabelScheme(LABELS.classes, ignore=3)
    save(folders[1] / "a.nii.gz", [1, 3, 2])
    found = evaluate(*folders, tmp_path / "scores", labels=labels, probabilities=probabilities)
    assert found.values("brier", "liver")["a"] == pytest.approx((0.2**2 + 0.1**2) / 59, rel=1e-5)


def test_regions_have_a_channel_each_and_none_for_the_background(folders, tmp_path):
    labels = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)))
    folder = tmp_path / "probabilities"
    for case in "ab":
        save_probabilities(folder / f"{case}.nii.gz", [0.9, 0.9, 0.9, 0.0], [0.0, 0.0, 0.7, 0.0])
    found = evaluate(*folders, tmp_path / "scores", labels=labels, probabilities=folder)
    assert found.values("brier", "whole")["a"] == pytest.approx(3 * 0.1**2 / 60, rel=1e-5)
    assert found.values("brier", "core")["a"] == pytest.approx(0.3**2 / 60, rel=1e-5)


def test_two_files_have_one_file_of_probabilities(folders, probabilities, tmp_path):
    prediction, reference = (folder / "a.nii.gz" for folder in folders)
    found = evaluate(
        prediction, reference, tmp_path / "scores", labels=LABELS, probabilities=probabilities / "a.nii.gz"
    )
    assert found.values("brier", "liver") == pytest.approx({"a": (2 * 0.2**2 + 0.1**2) / 60}, rel=1e-5)


def test_probabilities_are_the_same_with_several_workers(folders, probabilities, tmp_path):
    one, two = (
        evaluate(*folders, tmp_path / str(workers), labels=LABELS, probabilities=probabilities, workers=workers)
        for workers in (1, 2)
    )
    np.testing.assert_equal([score.metrics for score in one.scores], [score.metrics for score in two.scores])


def test_cases_without_probabilities_are_named(folders, probabilities, tmp_path):
    (probabilities / "b.nii").unlink()
    with pytest.raises(DataError, match=r"1 of 2 cases have no probabilities: b\. .*predict --probabilities"):
        evaluate(*folders, tmp_path / "scores", labels=LABELS, probabilities=probabilities)
    assert not (tmp_path / "scores").exists()


def test_probabilities_without_names_of_classes_are_refused(folders, probabilities, tmp_path):
    with pytest.raises(ConfigError, match="which channel is which class is not known"):
        evaluate(*folders, tmp_path / "scores", probabilities=probabilities)


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ([[1.0], [0.0]], {}, "does not fit the reference: 2 channels, expected 3: background, liver, spleen"),
        ([[1.0], [0.0], [0.0]], {"affine": np.diag([0.5, 1.0, 3.5, 1.0])}, "does not fit the reference: .*spacing"),
        ([[1.0], [-4.0, 3.0], [0.0]], {}, "channel 1 holds values from -4 to 3, expected probabilities"),
        ([[math.nan, 1.0], [0.0], [0.0]], {}, "channel 0 holds values from nan to nan, expected probabilities"),
    ],
)
def test_files_that_hold_no_probabilities_of_the_classes_are_refused(
    folders, probabilities, tmp_path, channels, options, message
):
    save_probabilities(probabilities / "a.nii.gz", *channels, **options)
    with pytest.raises(DataError, match=rf"a\.nii\.gz: {message}"):
        evaluate(*folders, tmp_path / "scores", labels=LABELS, probabilities=probabilities)
    assert not (tmp_path / "scores").exists()


def test_several_tolerances_are_scored_at_once(folders, tmp_path):
    found = evaluate(*folders, tmp_path / "scores", labels=LABELS, tolerance_mm=[0.25, 0.5])
    assert found.tolerance_mm == 0.25
    # b: of three voxels in a row 0.5 mm apart the first is predicted; the last is 1 mm from it.
    assert found.values("surface_dice", "liver")["b"] == pytest.approx(2 / 4)
    assert found.values("surface_dice_0.5mm", "liver")["b"] == pytest.approx(3 / 4)


def test_without_description_all_columns_are_undefined_where_a_value_is_absent(folders, tmp_path):
    found = evaluate(*folders, tmp_path / "scores", tolerance_mm=[1.0, 2.0])
    assert all(np.isnan(found.values(column.key, "2")["b"]) for column in found.columns)
