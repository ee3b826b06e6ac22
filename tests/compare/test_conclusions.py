import math

import numpy as np
from tables import drawn, of_arrays, score_table

from voxelseg.compare.comparison import compare
from voxelseg.compare.settings import CompareSettings

NAN = math.nan


def said(*tables, **settings):
    return compare(tables, CompareSettings(**{"resamples": 500, **settings})).conclusions


def test_of_two_the_better_one_is_named_first_with_the_difference_and_the_cases():
    first, reach = said(of_arrays(a=np.linspace(0.5, 0.6, 40), b=np.linspace(0.55, 0.61, 40)))
    # b - a falls evenly from 0.05 to 0.01
    assert first.startswith("b is better than a: Dice +0.030 [+0.02")
    assert first.endswith("] over 40 cases.")
    assert "1 run of each contestant" in reach
    assert "3 seeds" in reach


def test_patients_are_named_where_they_have_several_cases():
    table = of_arrays(patients=[0, 0, 1, 2, 3, 4, 5, 6], a=[0.6] * 8, b=[0.5] * 8)
    assert "over 8 cases of 7 patients" in said(table)[0]


def test_a_distance_has_its_unit():
    first = said(of_arrays("hd95_mm", a=np.linspace(1, 2, 20), b=np.linspace(2, 4, 20)))[0]
    assert first.startswith("a is better than b: HD95 −1.50 mm [−1.")


def test_no_meaningful_difference_names_the_margin():
    first = said(drawn([0.0, 0.0], 300, std=0.01))[0]
    assert ": no meaningful difference at 0.005: Dice +0.0" in first
    assert first.startswith(("a and b: ", "b and a: "))
    assert "though it may be more than chance" in said(drawn([0.001, 0.0], 300, std=0.003))[0]
    distance = said(drawn([0.0, 0.0], 300, key="hd95_mm"), margins={"hd95_mm": 0.1})[0]
    assert "no meaningful difference at 0.1 mm" in distance


def test_a_small_difference_does_not_look_like_zero():
    # 0.0004 more in each of 20 cases: three decimals would show 0.000
    table = of_arrays(a=np.linspace(0.5, 0.6, 20) + 0.0004, b=np.linspace(0.5, 0.6, 20))
    assert "+0.0004 [+0.0004, +0.0004]" in said(table)[0]


def test_undecided_says_how_many_would_be_needed():
    (only,) = said(drawn([0.0, -0.004], 30, seed=3))
    assert "cannot be told apart: Dice " in only
    assert "over 30 cases; not enough cases: about " in only
    assert only.endswith("would be needed.")
    huge = said(drawn([0.0, 0.0], 12, key="hd95_mm", seed=1))[0]
    assert "not enough cases" in huge


def test_too_few_for_any_test_says_so():
    (only,) = said(of_arrays(a=[0.6, 0.7, 0.8], b=[0.5, 0.5, 0.5]))
    assert "not enough cases: about 6 would be needed" in only


def test_seeds_that_may_explain_a_difference_are_named():
    rng = np.random.default_rng(0)
    scores = 0.8 + 0.01 * rng.standard_normal((2, 3, 60))
    scores[0] += np.array([[-0.02], [0.0], [0.05]])
    (only,) = said(of_arrays(a=scores[0], b=scores[1]))
    assert "a and b cannot be told apart: Dice +0.0" in only
    assert "other seeds may change that ([−0.0" in only


def test_with_enough_seeds_the_answer_is_of_trainings_too():
    rng = np.random.default_rng(0)
    scores = 0.8 + 0.01 * rng.standard_normal((2, 3, 60))
    scores[0] += 0.05
    assert "seeds of the trainings (3 at least)" in said(of_arrays(a=scores[0], b=scores[1]))[1]


def test_the_best_of_many_is_named_if_it_is_better_than_all():
    first, reach, *others = said(drawn([0.0, -0.03, -0.06, -0.1], 52))
    assert first.startswith("a is best: mean Dice 0.")
    assert first.endswith("better than all 3 others.")
    assert reach.startswith("This holds for these trainings")
    assert [one.partition(":")[0] for one in others[:3]] == [f"a is better than {name}" for name in "bcd"]
    assert others[3] == "Among the others, b is better than c and d; c is better than d."


def test_nobody_is_best_if_another_cannot_be_told_apart():
    first = said(drawn([0.0, -0.001, -0.06], 30))[0]
    assert first.startswith("No contestant can be called best. ")
    assert "% of the draws of other patients, but it cannot be told apart from " in first
    assert first.endswith(" and is better than c.")


def test_two_that_are_equivalent_share_the_place():
    first = said(drawn([0.0, 0.0, -0.06], 300, std=0.005))[0]
    assert first.startswith("No contestant can be called best. ")
    assert "it has no meaningful difference from " in first


def test_further_main_columns_are_told_in_a_sentence_each():
    found = said(
        drawn([0.0, -0.03, -0.06], 52), drawn([1.0, 2.0, 3.0], 52, key="hd95_mm"), drawn([0, 0, 0], 9, key="iou")
    )
    assert found[-1].startswith("HD95: a is best, 1.")
    assert not any(one.startswith("IoU") for one in found)
    pair = said(drawn([0.0, -0.03], 52), drawn([1.0, 2.0], 52, key="hd95_mm"))
    assert pair[-1].startswith("HD95: a is better than b: HD95 −")


def test_one_contestant_has_nobody_to_be_compared_with():
    found = said(drawn([0.0], 20), drawn([1.0], 20, key="hd95_mm"))
    assert found[0].startswith("a has a mean Dice of 0.")
    assert found[0].endswith("over 20 cases; there is no other contestant.")
    assert found[1].startswith("HD95: ")
    assert said(of_arrays(a=[NAN, NAN])) == ("a has no Dice in any case.",)


def test_what_cannot_be_decided_is_said_with_the_means():
    (only,) = said(of_arrays(a=[0.5], b=[0.6], c=[0.7]))
    assert only == (
        "Which contestant is best cannot be decided: there is one case only. Mean Dice: c 0.700, b 0.600 and a 0.500."
    )


def test_two_contestants_with_equal_values_are_told_so():
    found = said(of_arrays(a=[0.5, 0.6, 0.7], b=[0.5, 0.6, 0.7], c=[0.1, 0.2, 0.3]))
    assert "a and b have the same Dice in all 3 cases: nothing tells them apart." in found


def test_missing_predictions_are_told_by_name():
    table = score_table({"a": {"0": {"x": 0.9, "y": 0.8}}, "b": {"0": {"x": 0.8}}})
    left = compare([table], CompareSettings(resamples=500, missing="leave-out")).notes
    assert "b has no prediction of 1 case, which is left out for all contestants: y." in left
    worst = compare([table], CompareSettings(resamples=500, missing="worst")).notes
    assert "b has no prediction of 1 case, which counts as the worst value: y." in worst


def test_undefined_scores_are_told():
    everyone = compare([of_arrays(a=[0.9, NAN, 0.7], b=[0.8, NAN, 0.6])], CompareSettings(resamples=500)).notes
    assert everyone[0] == "Dice is undefined in 1 case, left out for all contestants: c001."


def test_it_is_said_when_no_difference_can_pass():
    notes = compare([of_arrays(a=[0.6, 0.7, 0.8], b=[0.5, 0.5, 0.5])], CompareSettings(resamples=500)).notes
    assert notes == ("With 3 cases and 1 pair no difference can pass the signed-rank test, however large. It takes 6.",)
    assert compare([drawn([0.0, 0.1], 6)], CompareSettings(resamples=500)).notes == ()


def test_what_cannot_be_decided_beside_the_answer_is_noted():
    found = compare([drawn([0.0, 0.1], 6), of_arrays("iou", a=[0.5] * 6, b=[0.5] * 6)], CompareSettings(resamples=500))
    assert "IoU cannot be decided: all contestants have the same values in every case." in found.notes
