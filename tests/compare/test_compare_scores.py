import math

import pytest

from voxelseg.compare.comparison import compare
from voxelseg.compare.scores import MEAN, differences, score_tables
from voxelseg.compare.settings import CompareSettings
from voxelseg.errors import DataError
from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.metrics import METRICS

NAN = math.nan


def evaluation(tolerance_mm=1.0, **dice_of_classes):
    """Dice of each class by case; all other metrics are 0.5. A Dice of 0 is a false find, NaN are two empty masks."""
    scores = [
        ClassScore(case, name, metrics(dice), float(dice > 0), float(dice >= 0))
        for name, values in dice_of_classes.items()
        for case, dice in values.items()
    ]
    return Evaluation(tuple(scores), tolerance_mm)


def metrics(dice):
    return dict.fromkeys(METRICS, NAN) if math.isnan(dice) else {**dict.fromkeys(METRICS, 0.5), "dice": dice}


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
    assert table.values["ours"]["0"] == pytest.approx({"x": 0.95, "y": 0.6})  # x: 0.9, and 1 for finding no lesion
    assert table.values["theirs"]["0"] == pytest.approx({"x": 0.3, "y": 0.45})
    alone = score_tables({"ours": {"0": OURS}})[0]
    assert alone.values["ours"]["0"] == pytest.approx({"x": 0.9, "y": 0.6})


def test_finding_nothing_where_another_found_what_is_not_there_is_the_best_value():
    tables = {one.title: one for one in score_tables({"ours": {"0": OURS}, "theirs": {"0": THEIRS}})}
    assert tables["Dice of lesion"].values == {"ours": {"0": {"x": 1.0, "y": 0.4}}, "theirs": {"0": {"x": 0, "y": 0.2}}}
    assert tables["HD95 of lesion"].values["ours"]["0"] == {"x": 0.0, "y": 0.5}
    assert tables["Dice of lesion"].false_finds == {"ours": (), "theirs": ("x",)}
    assert tables["Dice"].false_finds == {"ours": (), "theirs": ("x",)}
    assert tables["Dice of liver"].false_finds == {"ours": (), "theirs": ()}


def test_a_false_find_of_a_single_class_counts_in_the_answer():
    # Three cases have the lesion and are alike; in three others one contestant finds what is not there.
    shared = {f"c{place}": 0.5 for place in range(3)}
    careful = evaluation(lesion={**shared, "n0": NAN, "n1": NAN, "n2": NAN})
    eager = evaluation(lesion={**shared, "n0": 0.0, "n1": 0.0, "n2": NAN})
    found = compare(score_tables({"careful": {"0": careful}, "eager": {"0": eager}}), CompareSettings(resamples=500))
    assert (found.primary.num_cases, found.primary.left_out) == (5, ("n2",))
    assert found.primary.standing("careful").mean == pytest.approx((3 * 0.5 + 2) / 5)
    assert found.primary.standing("eager").mean == pytest.approx(3 * 0.5 / 5)
    assert "lesion: found where the reference has none by eager in 2 cases (n0, n1)" in found.notes[0]


def test_another_seed_that_rightly_finds_nothing_counts_as_well():
    runs = {"0": evaluation(lesion={"x": 0.0, "y": 0.4}), "1": evaluation(lesion={"x": NAN, "y": 0.4})}
    table = next(one for one in score_tables({"ours": runs}) if one.title == "Dice of lesion")
    assert table.values["ours"] == {"0": {"x": 0.0, "y": 0.4}, "1": {"x": 1.0, "y": 0.4}}


def test_scores_against_different_references_are_refused():
    ours = Evaluation((ClassScore("x", "liver", metrics(0.9), 1000.0, 900.0),), 1.0)
    theirs = Evaluation((ClassScore("x", "liver", metrics(0.8), 1010.0, 900.0),), 1.0)
    copied = Evaluation((ClassScore("x", "liver", metrics(0.8), 1000.0001, 900.0),), 1.0)
    with pytest.raises(
        DataError, match=r"1 case with different references: x\. .* 1000 mm³ for a and 1010 mm³ for b\."
    ):
        score_tables({"a": {"0": ours}, "b": {"0": theirs}})
    assert score_tables({"a": {"0": ours}, "b": {"0": copied}})


def test_missing_and_undefined_cases_are_known():
    short = evaluation(liver={"x": 0.9}, lesion={"x": NAN})
    tables = score_tables({"ours": {"0": OURS, "1": short}, "theirs": {"0": OURS}})
    lesion = next(one for one in tables if one.title == "Dice of lesion")
    assert lesion.missing("ours") == ("y",)  # the second run has no prediction of it
    assert lesion.undefined("ours") == lesion.undefined("theirs") == ("x",)
    assert lesion.missing("theirs") == ()


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


@pytest.mark.parametrize("dice", [1.5, -0.1, math.inf])
def test_a_score_that_cannot_be_is_refused(dice):
    wrong = Evaluation((ClassScore("x", "liver", metrics(dice), 1000.0, 900.0),), 1.0)
    with pytest.raises(DataError, match=rf"impossible scores: a, x, liver: Dice {dice:g}\. Evaluate"):
        score_tables({"a": {"0": wrong}})


def test_a_distance_larger_than_any_scan_is_refused():
    wrong = Evaluation((ClassScore("x", "liver", {**metrics(0.5), "hd95_mm": 1e300}, 1000.0, 900.0),), 1.0)
    with pytest.raises(DataError, match=r"HD95 1e\+300"):
        score_tables({"a": {"0": wrong}})
