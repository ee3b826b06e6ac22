import math

import numpy as np
import pytest

from voxelseg.errors import ConfigError
from voxelseg.metrics import MAIN_COLUMNS, METRICS, MaskPair, column, columns
from voxelseg.metrics.column import tolerances


def test_metrics_with_a_tolerance_come_once_for_each_the_first_without_it_in_the_key():
    keys = [one.key for one in columns([1.0, 3.0, 0.5])]
    assert keys[:5] == ["dice", "iou", "surface_dice", "surface_dice_3mm", "surface_dice_0.5mm"]
    assert {"area_surface_dice", "area_surface_dice_3mm", "area_surface_dice_0.5mm"} < set(keys)


def test_one_tolerance_gives_every_metric_of_masks_under_its_own_name():
    assert [one.key for one in columns(2.0)] == [key for key, metric in METRICS.items() if not metric.of_probabilities]
    assert [one.key for one in columns(2.0, probabilities=True)] == list(METRICS)


def test_a_key_gives_the_column_back():
    for one in columns([1.0, 3.0, 0.25, 1e-7, 1.23456789], probabilities=True):
        assert column(one.key, tolerance_mm=1.0) == one


def test_columns_of_evaluations_at_different_tolerances_are_not_the_same():
    assert column("surface_dice", tolerance_mm=1.0) != column("surface_dice", tolerance_mm=2.0)
    assert column("dice", tolerance_mm=1.0) == column("dice", tolerance_mm=2.0)


@pytest.mark.parametrize(
    "key", ["", "other", "dice_3mm", "surface_dice_", "surface_dice_3", "surface_dice_3.0mm", "_3mm"]
)
def test_a_key_that_no_evaluation_has_is_refused(key):
    with pytest.raises(ConfigError, match=f"there is no metric {key!r}. Known are dice, iou"):
        column(key, tolerance_mm=1.0)


def test_titles_say_tolerance_and_unit():
    surface_dice, hd95 = column("surface_dice_3mm", tolerance_mm=1.0), column("hd95_mm", tolerance_mm=1.0)
    assert (surface_dice.title, surface_dice.heading, surface_dice.unit) == (*["Surface Dice at 3 mm"] * 2, "")
    assert (hd95.title, hd95.heading, hd95.unit) == ("HD95", "HD95 (mm)", "mm")
    assert hd95.definition.startswith(
        "HD95 in mm; lower is better; exactly one mask empty: the diagonal of the image. Hut"
    )


def test_best_and_worst_are_the_ends_of_a_scale():
    assert (column("dice", tolerance_mm=1.0).best, column("dice", tolerance_mm=1.0).worst) == (1.0, 0.0)
    assert (column("hd95_mm", tolerance_mm=1.0).best, column("hd95_mm", tolerance_mm=1.0).worst) == (0.0, math.inf)
    assert (column("brier", tolerance_mm=1.0).best, column("brier", tolerance_mm=1.0).worst) == (0.0, 1.0)


def test_a_column_scores_at_its_own_tolerance():
    reference, prediction = np.zeros((2, 3, 4, 5), bool)
    reference[1, 1, 1] = prediction[1, 1, 3] = True  # 2 x 1.5 mm apart
    pair = MaskPair(reference, prediction, (3.0, 1.0, 1.5))
    near, far = columns([2.0, 3.0])[2:4]
    assert (near.score(pair), far.score(pair)) == (0.0, 1.0)


def test_the_main_columns_are_metrics():
    assert set(MAIN_COLUMNS) <= METRICS.keys()


@pytest.mark.parametrize("given", [[], [1.0, 1.0], [1, 3.0, 1.0]])
def test_no_tolerance_or_one_twice_is_refused(given):
    with pytest.raises(ConfigError, match="tolerance_mm must be one number, or several different ones"):
        tolerances(given)


def test_one_tolerance_may_be_given_alone():
    assert tolerances(2) == (2.0,)
    assert tolerances([1, 3.5]) == (1.0, 3.5)
