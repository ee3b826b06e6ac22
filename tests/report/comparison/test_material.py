import math

import pytest
from scored import contestants, evaluation

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.scores import score_tables
from voxelseg.report.comparison.material import over_runs


def test_the_best_has_the_best_mean(material):
    assert material.best.name == max(material.primary.standings, key=lambda one: one.mean).name
    assert material.best.name in ("mednext_s", "uxnet")


def test_the_column_that_ranks_comes_first(material):
    assert [one.key for one in material.main_columns] == ["dice", "surface_dice", "hd95_mm"]
    assert material.classes == ("liver", "spleen")


def test_who_failed_is_apart_but_has_a_look(make_material):
    found = make_material([*contestants({"a": 0.8, "b": 0.7}), Contestant(name="c", runs={}, fault="gone")])
    assert list(found.compared) == ["a", "b"]
    assert [one.name for one in found.failed] == ["c"]
    assert set(found.looks) == {"a", "b", "c"}


def test_a_case_counts_with_its_mean_over_the_runs_that_have_it():
    runs = {
        "0": evaluation({"x": (0.4, 0.6), "y": (0.2, 0.4)}),
        "1": evaluation({"x": (0.6, 0.8), "z": (math.nan, math.nan)}),
    }
    (table, *_) = score_tables({"a": runs})
    found = over_runs(table, "a")
    # x: (0.5 + 0.7) / 2; y: (0.2 + 0.4) / 2, in one run.
    assert (found["x"], found["y"]) == (pytest.approx(0.6), pytest.approx(0.3))
    assert math.isnan(found["z"])


def test_cases_that_not_all_have_are_left_out(make_material):
    whole = {f"c{place}": (0.5, 0.6) for place in range(6)}
    lacking = {case: scores for case, scores in whole.items() if case != "c3"}
    found = make_material(
        [Contestant(name=name, runs={"0": evaluation(one)}) for name, one in (("a", whole), ("b", lacking))],
        missing="leave-out",
    )
    assert list(found.case_means()["a"]) == ["c0", "c1", "c2", "c4", "c5"]
