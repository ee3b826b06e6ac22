import json
import math
from dataclasses import replace

import pytest

from voxelseg import files
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.evaluate import ClassScore, Evaluation, read_evaluation
from voxelseg.evaluate.evaluation import common_columns, spread
from voxelseg.metrics import METRICS, column, columns

NAN = math.nan


def score(case, name, dice, reference_mm3=10.0, prediction_mm3=10.0):
    metrics = {"dice": dice, "surface_dice": dice / 2, "hd95_mm": 10 * dice}
    return ClassScore(case, name, metrics, reference_mm3, prediction_mm3)


EVALUATION = Evaluation(
    (
        score("a", "liver", 0.5),
        score("a", "spleen", NAN, 0.0, 0.0),
        score("b", "liver", 0.8),
        score("b", "spleen", 0.9),
        score("c", "liver", 0.0, 10.0, 0.0),
        score("c", "spleen", 0.0, 0.0, 5.0),
    ),
    tolerance_mm=1.0,
    notes=("one note",),
)


def test_spread_leaves_undefined_values_out_and_counts_them():
    found = spread([1.0, NAN, 2.0, 6.0])
    assert (found.mean, found.median, found.min, found.max, found.n, found.undefined) == (3.0, 2.0, 1.0, 6.0, 3, 1)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_spread_of_one_value_has_no_standard_deviation():
    assert math.isnan(spread([1.0]).std)


def test_spread_of_nothing_defined_is_undefined():
    found = spread([NAN, NAN])
    assert math.isnan(found.mean)
    assert (found.n, found.undefined) == (0, 2)


def test_mean_is_over_classes_of_the_mean_over_cases():
    # liver (0.5 + 0.8 + 0) / 3, spleen (0.9 + 0) / 2; pooling all five values would give 0.44
    assert EVALUATION.mean("dice") == pytest.approx((1.3 / 3 + 0.45) / 2)


def test_case_means_leave_undefined_classes_out():
    assert EVALUATION.case_means("dice") == pytest.approx({"a": 0.5, "b": 0.85, "c": 0.0})


def test_summary_has_plain_means_and_spread_in_sibling_keys():
    summary = EVALUATION.summary()
    assert summary["mean"]["dice"] == pytest.approx((1.3 / 3 + 0.45) / 2)
    spleen = summary["classes"]["spleen"]
    assert spleen["dice"] == pytest.approx(0.45)
    assert (spleen["dice_min"], spleen["dice_max"], spleen["dice_n"], spleen["dice_undefined"]) == (0.0, 0.9, 2, 1)
    assert spleen["volume_reference_mm3"] == pytest.approx(10 / 3)
    assert summary["num_cases"] == 3
    assert summary["tolerance_mm"] == 1.0


def test_empty_masks_are_counted_by_kind():
    assert EVALUATION.summary()["empty"] == {"both": 1, "reference_only": 1, "prediction_only": 1}
    assert EVALUATION.summary()["classes"]["liver"]["empty"] == {"both": 0, "reference_only": 0, "prediction_only": 1}


def test_two_scores_of_one_class_in_one_case_are_refused(tmp_path):
    with pytest.raises(DataError, match="several scores of one class in a\\. Give every case an id of its own"):
        Evaluation((score("a", "liver", 0.5), score("b", "liver", 0.5), score("a", "liver", 0.7)), 1.0)
    EVALUATION.write(tmp_path)
    with (tmp_path / "cases.csv").open("a") as file:
        file.write("b,spleen,0.1,0.1,1,10,10\n")
    with pytest.raises(DataError, match=r"cases\.csv: several scores of one class in b.*voxelseg evaluate"):
        read_evaluation(tmp_path)


def test_written_files_give_the_evaluation_back(tmp_path):
    cases, summary = EVALUATION.write(tmp_path)
    lines = cases.read_text().splitlines()
    assert lines[0] == "case,class,dice,surface_dice,hd95_mm,volume_reference_mm3,volume_prediction_mm3"
    assert lines[1] == "a,liver,0.5,0.25,5,10,10"
    assert lines[2] == "a,spleen,,,,0,0"
    assert json.loads(summary.read_text())["mean"]["dice"] == EVALUATION.mean("dice")
    restored = read_evaluation(tmp_path)
    assert restored.notes == ("one note",)
    assert restored.mean("dice") == EVALUATION.mean("dice")
    assert restored.summary()["empty"] == EVALUATION.summary()["empty"]


def test_patients_are_the_last_column_where_some_are_known(tmp_path):
    cases, _ = replace(EVALUATION, patients={"a": "Ann"}).write(tmp_path)
    lines = cases.read_text().splitlines()
    assert lines[0].endswith(",volume_reference_mm3,volume_prediction_mm3,patient")
    assert lines[1] == "a,liver,0.5,0.25,5,10,10,Ann"
    assert {line.split(",")[-1] for line in lines[1:] if line.startswith("b,")} == {""}
    assert read_evaluation(tmp_path).patients == {"a": "Ann"}


def test_without_any_patient_there_is_no_column_of_them(tmp_path):
    cases, _ = EVALUATION.write(tmp_path)
    assert "patient" not in cases.read_text()
    assert read_evaluation(tmp_path).patients == {}


def test_a_case_of_two_patients_is_damaged(tmp_path):
    cases, _ = replace(EVALUATION, patients={"a": "Ann"}).write(tmp_path)
    cases.write_text(cases.read_text().replace("Ann", "Bob", 1))
    with pytest.raises(DataError, match=r"damaged.*a is of the patients 'Bob' and 'Ann'"):
        read_evaluation(tmp_path)


def test_scores_are_never_read_with_a_summary_of_other_ones(tmp_path, monkeypatch):
    """As after a kill between the two files."""
    EVALUATION.write(tmp_path)
    write = files.atomic_path

    def full_disk(path):
        if path.name == "summary.json":
            raise VoxelsegError("full disk")
        return write(path)

    monkeypatch.setattr(files, "atomic_path", full_disk)
    with pytest.raises(VoxelsegError, match="full disk"):
        replace(EVALUATION, tolerance_mm=2.0).write(tmp_path)
    with pytest.raises(DataError, match=r"summary\.json: file not found"):
        read_evaluation(tmp_path)


def evaluation_of(keys, tolerance_mm=1.0):
    """Two cases, the second of which is undefined."""
    values = {"a": 0.5, "b": NAN}
    scores = (ClassScore(case, "liver", dict.fromkeys(keys, value), 10.0, 8.0) for case, value in values.items())
    return Evaluation(tuple(scores), tolerance_mm)


def test_columns_are_what_the_scores_hold():
    assert EVALUATION.columns == tuple(column(key, tolerance_mm=1.0) for key in ("dice", "surface_dice", "hd95_mm"))
    assert Evaluation((), 1.0).columns == ()


def test_tables_show_dice_surface_dice_at_the_first_tolerance_and_hd95():
    found = evaluation_of([one.key for one in columns([2.0, 1.0])], tolerance_mm=2.0)
    assert [one.heading for one in found.main_columns] == ["Dice", "Surface Dice at 2 mm", "HD95 (mm)"]
    assert len(found.columns) > len(METRICS) - 2


def test_every_metric_at_every_tolerance_comes_back_from_the_files(tmp_path):
    wanted = columns([2.0, 1.0, 0.25], probabilities=True)
    evaluation_of([one.key for one in wanted], tolerance_mm=2.0).write(tmp_path)
    restored = read_evaluation(tmp_path)
    assert restored.columns == wanted
    assert restored.values("surface_dice_0.25mm", "liver") == pytest.approx({"a": 0.5, "b": NAN}, nan_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["classes"]["liver"]["brier_undefined"] == 1
    assert summary["definitions"]["surface_dice_1mm"].startswith("Surface Dice at 1 mm; higher is better")
    assert summary["tolerance_mm"] == 2.0


def test_files_of_an_earlier_version_are_read_with_the_columns_they_have(tmp_path):
    (tmp_path / "cases.csv").write_text(
        "case,class,dice,surface_dice,hd95_mm,volume_reference_mm3,volume_prediction_mm3\na,liver,0.5,0.25,5,10,8\n"
    )
    summary = {"mean": {"dice": 0.5, "surface_dice": 0.25, "hd95_mm": 5.0}, "tolerance_mm": 1.5, "notes": []}
    summary["classes"] = {"liver": {"dice_n": 1, "dice_undefined": 0}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    restored = read_evaluation(tmp_path)
    assert [one.heading for one in restored.columns] == ["Dice", "Surface Dice at 1.5 mm", "HD95 (mm)"]
    assert restored.mean("hd95_mm") == 5.0


def test_a_metric_of_a_later_version_is_named(tmp_path):
    EVALUATION.write(tmp_path)
    for name in ("cases.csv", "summary.json"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("hd95_mm", "foresight"))
    with pytest.raises(DataError, match=r"summary\.json: there is no metric 'foresight'.*voxelseg evaluate"):
        read_evaluation(tmp_path)


def test_evaluations_share_the_columns_that_mean_the_same():
    first = evaluation_of([one.key for one in columns([1.0, 3.0])])
    second = evaluation_of([one.key for one in columns([3.0])], tolerance_mm=3.0)
    shared = common_columns([first, second])
    assert {"dice", "hd95_mm"} <= {one.key for one in shared}
    assert not any(one.key.startswith(("surface_dice", "area_surface_dice")) for one in shared)
    assert first.only(shared).columns == second.only(shared).columns == shared


def test_undefined_means_are_null_in_json(tmp_path):
    _, summary = Evaluation((score("a", "liver", NAN, 0.0, 0.0),), 1.0).write(tmp_path)
    content = json.loads(summary.read_text())
    assert content["mean"]["dice"] is None
    assert content["classes"]["liver"]["dice_n"] == 0


def test_missing_and_damaged_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"summary\.json: file not found"):
        read_evaluation(tmp_path)
    EVALUATION.write(tmp_path)
    text = (tmp_path / "cases.csv").read_text()
    for damaged in (text.replace("0.5,0.25", "half,0.25"), text.replace("hd95_mm", "other"), text + "d,liver"):
        (tmp_path / "cases.csv").write_text(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_evaluation(tmp_path)
    (tmp_path / "cases.csv").unlink()
    with pytest.raises(DataError, match=r"cases\.csv: cannot be read.*Run `voxelseg evaluate` again"):
        read_evaluation(tmp_path)
    with pytest.raises(DataError, match=r"cases\.csv: cannot be read.*Train on"):
        read_evaluation(tmp_path, remedy="Train on.")


def test_scores_that_are_no_utf_8_are_said_in_a_line(tmp_path):
    scores = (ClassScore("Müller", "liver", dict.fromkeys(METRICS, 0.5), 1.0, 1.0),)
    cases, _ = Evaluation(scores, 1.0).write(tmp_path)
    cases.write_bytes(cases.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(DataError, match=r"cases\.csv: no UTF-8 \(.{,40} at byte \d+\)\. Run"):
        read_evaluation(tmp_path)
