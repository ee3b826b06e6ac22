from scored import contestants, evaluation

from voxelseg.compare.contestants import Contestant


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


def test_cases_that_not_all_have_are_left_out(make_material):
    whole = {f"c{place}": (0.5, 0.6) for place in range(6)}
    lacking = {case: scores for case, scores in whole.items() if case != "c3"}
    found = make_material(
        [Contestant(name=name, runs={"0": evaluation(one)}) for name, one in (("a", whole), ("b", lacking))],
        missing="leave-out",
    )
    assert list(found.primary.case_means["a"]) == ["c0", "c1", "c2", "c4", "c5"]
