import math

import pytest

from voxelseg.compare.scores import MEAN, differences, score_tables
from voxelseg.errors import DataError
from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.metrics import METRICS

NAN = math.nan


def evaluation(tolerance_mm=1.0, **dice_of_classes):
    """Dice of each class by case; all other metrics are 0.5."""
    scores = [
        ClassScore(case, name, {**dict.fromkeys(METRICS, 0.5), "dice": dice}, 1.0, 1.0)
        for name, values in dice_of_classes.items()
        for case, dice in values.items()
    ]
    return Evaluation(tuple(scores), tolerance_mm)


OURS = evaluation(liver={"x": 0.9, "y": 0.8}, lesion={"x": NAN, "y": 0.4})
THEIRS = evaluation(liver={"y": 0.7, "x": 0.6}, lesion={"y": 0.2, "x": 0.0})


def test_the_mean_over_the_classes_comes_first_in_every_column_then_the_classes_in_the_main_ones():
    tables = score_tables({"ours": {"0": OURS}, "theirs": {"0": THEIRS}})
    assert [one.column for one in tables if one.class_name == MEAN] == list(OURS.columns)
    assert tables[0].title == "Dice"
    others = [one.title for one in tables if one.class_name != MEAN]
    assert others == [
        f"{title} of {name}" for name in ("liver", "lesion") for title in ("Dice", "Surface Dice at 1 mm", "HD95")
    ]


def test_a_case_counts_with_its_mean_over_the_defined_classes():
    table = score_tables({"ours": {"0": OURS}, "theirs": {"0": THEIRS}})[0]
    assert table.cases == ("x", "y")
    assert table.values["ours"]["0"] == pytest.approx({"x": 0.9, "y": 0.6})
    assert table.values["theirs"]["0"] == pytest.approx({"x": 0.3, "y": 0.45})


def test_missing_and_undefined_cases_are_known():
    short = evaluation(liver={"x": 0.9}, lesion={"x": 0.1})
    tables = score_tables({"ours": {"0": OURS, "1": short}, "theirs": {"0": THEIRS}})
    lesion = next(one for one in tables if one.title == "Dice of lesion")
    assert lesion.missing("ours") == ("y",)  # the second run has no prediction of it
    assert lesion.undefined("ours") == ("x",)
    assert lesion.missing("theirs") == lesion.undefined("theirs") == ()


def test_cases_without_a_known_patient_are_patients_of_their_own():
    table = score_tables({"ours": {"0": OURS}}, patients={"x": "p"})[0]
    assert table.patients == {"x": "p", "y": "y"}


def test_only_shared_classes_and_columns_are_compared_and_the_others_named():
    other = evaluation(2.0, liver={"x": 0.5, "y": 0.5}, spleen={"x": 0.5, "y": 0.5})
    contestants = {"ours": {"0": OURS}, "other": {"0": other}}
    tables = score_tables(contestants)
    assert {one.class_name for one in tables} == {MEAN, "liver"}
    assert "surface_dice" not in {one.column.key for one in tables}
    assert tables[0].values["ours"]["0"] == {"x": 0.9, "y": 0.8}  # the mean over the shared classes only
    classes, columns = differences(contestants)
    assert "lesion, spleen" in classes
    assert "Surface Dice at 1 mm, " in columns
    assert "Surface Dice at 2 mm" in columns
    assert "HD95" not in columns
    assert differences({"ours": {"0": OURS}, "theirs": {"0": THEIRS}}) == ()


def test_nothing_in_common_is_said():
    with pytest.raises(DataError, match=r"no class is in all evaluations.*liver.*spleen"):
        score_tables({"a": {"0": evaluation(liver={"x": 1.0})}, "b": {"0": evaluation(spleen={"x": 1.0})}})


def test_contestants_without_scores_are_refused():
    with pytest.raises(DataError, match="no scores of failed"):
        score_tables({"ours": {"0": OURS}, "failed": {}})
    with pytest.raises(DataError, match="no scores at all"):
        score_tables({})
