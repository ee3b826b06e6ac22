import math
from dataclasses import replace

import pytest

from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.evaluate.pooling import case_of, pool
from voxelseg.metrics import METRICS


def fold(dice_of_cases, notes=()):
    scores = (ClassScore(case, "liver", dict.fromkeys(METRICS, dice), 1.0, 1.0) for case, dice in dice_of_cases.items())
    return Evaluation(tuple(scores), 2.0, notes)


def test_each_case_of_all_folds_is_there_once():
    pooled, origin = pool({"0": fold({"a": 0.2, "b": 0.4}, ("near",)), "1": fold({"c": 0.9}, ("near", "far"))})
    assert pooled.values("dice", "liver") == {"a": 0.2, "b": 0.4, "c": 0.9}
    assert pooled.mean("dice") == pytest.approx(0.5)  # over cases; the mean of the folds' means is 0.6
    assert origin == {"a": ("a", "0"), "b": ("b", "0"), "c": ("c", "1")}
    assert (pooled.tolerance_mm, pooled.notes) == (2.0, ("near", "far"))


def test_metrics_that_not_every_fold_has_are_left_out_and_noted():
    """As when some folds were scored by an earlier version."""
    earlier = ClassScore("a", "liver", {"dice": 0.5, "surface_dice": 0.4}, 1.0, 1.0)
    later = ClassScore("b", "liver", {"dice": 0.7, "iou": 0.6, "surface_dice": 0.3}, 1.0, 1.0)
    pooled, _ = pool({"0": Evaluation((earlier,), 1.0), "1": Evaluation((later,), 1.0)})
    assert [column.key for column in pooled.columns] == ["dice", "surface_dice"]
    assert pooled.notes == ("Left out because not every fold was scored by it: IoU.",)


def test_surface_dice_at_different_tolerances_is_not_pooled():
    pooled, _ = pool({"0": fold({"a": 0.2}), "1": replace(fold({"b": 0.4}), tolerance_mm=3.0)})
    assert "surface_dice" not in {column.key for column in pooled.columns}
    assert "Surface Dice at 2 mm, Surface Dice by area at 2 mm, Surface Dice at 3 mm" in pooled.notes[-1]


def test_a_case_that_two_folds_held_out_is_named_with_each():
    pooled, origin = pool({"0": fold({"a": 0.2, "b": math.nan}), "3": fold({"a": 0.8})})
    assert pooled.cases == ("a (fold 0)", "b", "a (fold 3)")
    assert origin["a (fold 3)"] == ("a", "3")
    assert [case_of(name) for name in pooled.cases] == ["a", "b", "a"]
    assert pooled.notes == ("1 case was held out in several folds, and each such prediction counts as a case.",)


def test_patients_of_the_folds_are_kept_under_the_names_of_the_pooled_cases():
    first = replace(fold({"a": 0.2, "b": 0.4}), patients={"a": "Ann"})
    pooled, _ = pool({"0": first, "1": replace(fold({"a": 0.8}), patients={"a": "Ann"})})
    assert pooled.patients == {"a (fold 0)": "Ann", "a (fold 1)": "Ann"}
