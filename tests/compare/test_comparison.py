import json
import math

import numpy as np
import pytest
import scikit_posthocs
from pandas import DataFrame
from scipy.stats import ttest_rel, wilcoxon
from tables import drawn, of_arrays, score_table

from voxelseg.compare.comparison import compare
from voxelseg.compare.settings import CompareSettings
from voxelseg.errors import DataError

NAN = math.nan
QUICK = CompareSettings(resamples=500)


def result(table, **settings):
    return compare([table], CompareSettings(**{"resamples": 500, **settings})).primary


def test_numbers_of_a_pair_are_those_of_scipy():
    a, b = np.random.default_rng(0).normal([0.8, 0.82], 0.03, (30, 2)).T
    pair = result(of_arrays(a=a, b=b)).pair("a", "b")
    assert pair.difference == pytest.approx((a - b).mean())
    assert pair.wilcoxon_p == pytest.approx(wilcoxon(a, b).pvalue)
    assert pair.t_p == pytest.approx(ttest_rel(a, b).pvalue)
    assert (pair.num_better, pair.num_worse) == ((a > b).sum(), (a < b).sum())
    assert math.isnan(pair.nemenyi_p)


def test_p_values_of_all_pairs_are_those_of_scikit_posthocs():
    scores = np.random.default_rng(1).normal([0.8, 0.81, 0.83, 0.8], 0.03, (20, 4))
    found = result(of_arrays(**dict(zip("abcd", scores.T, strict=True))))
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
    for place, pair in zip(zip(*np.triu_indices(4, 1), strict=True), found.pairs, strict=True):
        assert pair.nemenyi_p == pytest.approx(nemenyi[place], abs=1e-6)
    long = {"values": scores.T.ravel(), "group": np.repeat(list("abcd"), 20)}
    frame = scikit_posthocs.posthoc_wilcoxon(DataFrame(long), val_col="values", group_col="group", p_adjust="holm")
    for pair in found.pairs:
        assert pair.adjusted_p == pytest.approx(frame.loc[pair.ours, pair.theirs])


def test_a_clear_difference_is_better_from_one_side_and_worse_from_the_other():
    found = result(drawn([0.0, -0.02], 52))
    assert found.pair("a", "b").verdict == "better"
    assert found.pair("b", "a").verdict == "worse"
    assert found.pair("b", "a").difference == -found.pair("a", "b").difference
    assert found.pair("b", "a").interval.high == -found.pair("a", "b").interval.low
    assert found.pair("a", "b").patients_needed is None
    assert [one.name for one in found.ranking] == ["a", "b"]
    assert found.standing("a").rank_shares == (1.0, 0.0)


def test_lower_is_better_for_a_distance():
    found = result(drawn([0.0, -0.5], 40, key="hd95_mm", std=0.2))
    assert [one.name for one in found.ranking] == ["b", "a"]
    pair = found.pair("b", "a")
    assert pair.verdict == "better"
    assert pair.difference < 0
    assert pair.num_better > pair.num_worse
    assert found.standing("b").mean_rank < 1.5


def test_equal_ones_are_equivalent_at_the_margin_and_undecided_without_one():
    assert result(drawn([0.0, 0.0], 300, std=0.01)).pair("a", "b").verdict == "equivalent"
    distances = drawn([0.0, 0.0], 300, key="hd95_mm")
    pair = result(distances).pair("a", "b")
    assert (pair.verdict, pair.margin) == ("undecided", None)
    assert math.isnan(pair.equivalence_p)
    assert result(distances, margins={"hd95_mm": 0.1}).pair("a", "b").verdict == "equivalent"


def test_a_small_but_sure_difference_is_equivalent():
    pair = result(drawn([0.001, 0.0], 300, std=0.003)).pair("a", "b")
    assert pair.adjusted_p < 0.05
    assert pair.verdict == "equivalent"


def test_too_few_patients_are_undecided_and_the_number_that_is_needed_is_told():
    pair = result(drawn([0.0, -0.004], 30, seed=3)).pair("a", "b")
    assert (pair.verdict, pair.reason) == ("undecided", "patients")
    # ((1.960 + 0.842) std / difference)^2, or what equivalence takes
    assert 30 < pair.patients_needed <= math.ceil((2.8016 * pair.std / pair.difference) ** 2)


def test_scans_of_one_patient_are_one_vote():
    # b is better in all ten scans of one patient and worse in all others' scans
    a, b = [0.5] * 16, [0.6] * 10 + [0.4] * 6
    patients = [0] * 10 + [1, 2, 3, 4, 5, 6]
    found = result(of_arrays(patients=patients, a=a, b=b))
    assert (found.num_cases, found.num_patients) == (16, 7)
    pair = found.pair("a", "b")
    assert (pair.num_better, pair.num_worse) == (6, 1)
    assert pair.wilcoxon_p == pytest.approx(2 * (1 + 7) / 2**7)  # all ties: 6 or 7 of 7 positive
    assert pair.difference == pytest.approx((-1.0 + 0.6) / 16)  # means are over the cases


def test_a_case_counts_with_its_mean_over_the_seeds():
    found = result(of_arrays(a=[[0.5, 0.7], [0.7, 0.7]], b=[[0.5, 0.5]]))
    assert found.standing("a").mean == pytest.approx(0.65)
    assert found.standing("a").seed_means == pytest.approx({"0": 0.6, "1": 0.7})
    assert found.standing("a").seed_std == pytest.approx(0.1 / math.sqrt(2))
    assert math.isnan(found.standing("b").seed_std)
    assert found.pair("a", "b").beyond_seeds is None


def test_what_seeds_may_explain_is_undecided():
    rng = np.random.default_rng(0)
    scores = 0.8 + 0.01 * rng.standard_normal((2, 3, 60))
    scores[0] += np.array([[-0.02], [0.0], [0.05]])  # one lucky training lifts all patients
    pair = result(of_arrays(a=scores[0], b=scores[1])).pair("a", "b")
    assert pair.interval.excludes_zero
    assert pair.adjusted_wilcoxon_p < 0.001
    assert pair.adjusted_p == pair.seeds_p > 0.05
    assert (pair.verdict, pair.reason, pair.beyond_seeds) == ("undecided", "seeds", False)
    two = result(of_arrays(a=scores[0, 1:], b=scores[1, 1:])).pair("a", "b")
    assert (two.verdict, two.beyond_seeds) == ("better", None)  # of these trainings
    assert math.isnan(two.seeds_p)
    assert two.adjusted_p == two.wilcoxon_p
    scores[0] += 0.1
    sure = result(of_arrays(a=scores[0], b=scores[1])).pair("a", "b")
    assert (sure.verdict, sure.beyond_seeds) == ("better", True)


def test_p_values_that_know_of_seeds_are_adjusted_for_all_pairs():
    """a and c lead b by 0.024, which p over seeds tells on its own; of three pairs it is not enough."""
    wobble = np.array([[-0.008], [0.0], [0.008]])
    scores = [0.8 + wobble + 0.001 * np.random.default_rng(seed).standard_normal((3, 60)) for seed in range(3)]
    alone = result(of_arrays(a=scores[0] + 0.024, b=scores[1])).pairs[0]
    assert (alone.verdict, alone.adjusted_p) == ("better", alone.seeds_p)
    three = compare([of_arrays(a=scores[0] + 0.024, b=scores[1], c=scores[2] + 0.024)], QUICK)
    pair = three.primary.pair("a", "b")
    assert pair.beyond_seeds  # its own interval is not adjusted
    assert pair.adjusted_p >= 0.05 > pair.seeds_p > pair.adjusted_wilcoxon_p
    assert (pair.verdict, pair.reason) == ("undecided", "seeds")
    assert any("over patients and seeds, too little among 3 pairs)" in one for one in three.conclusions)


def test_equivalence_takes_seeds_into_account_too():
    rng = np.random.default_rng(0)
    scores = 0.8 + 0.004 * rng.standard_normal((2, 3, 60))
    assert result(of_arrays(a=scores[0], b=scores[1])).pair("a", "b").verdict == "equivalent"
    scores[0] += np.array([[-0.02], [0.0], [0.02]])
    pair = result(of_arrays(a=scores[0], b=scores[1])).pair("a", "b")
    assert (pair.verdict, pair.reason) == ("undecided", "seeds")


def test_missing_predictions_are_refused_unless_it_is_said_what_they_count_as():
    table = score_table({"a": {"0": {"x": 0.9, "y": 0.8, "z": 0.7}}, "b": {"0": {"x": 0.8, "z": 0.6}}})
    with pytest.raises(DataError, match=r"b has no prediction of 1 case that others have: y\. Predict"):
        result(table)
    left = result(table, missing="leave-out")
    assert (left.num_cases, left.left_out, left.standing("b").missing) == (2, ("y",), ("y",))
    assert left.standing("a").mean == pytest.approx(0.8)
    worst = result(table, missing="worst")
    assert (worst.num_cases, worst.standing("b").mean) == (3, pytest.approx(1.4 / 3))
    assert worst.case_means["b"] == {"x": 0.8, "y": 0.0, "z": 0.6}


def test_nothing_stands_for_a_missing_distance():
    table = score_table({"a": {"0": {"x": 9.0, "y": 8.0}}, "b": {"0": {"x": 8.0}}}, key="hd95_mm")
    found = result(table, missing="worst")
    assert "HD95 has no worst value" in found.fault
    assert found.pairs[0].verdict == "undecided"


def test_a_class_that_is_not_there_cannot_be_missed():
    scores = {"a": {"0": {"x": 0.9, "y": NAN}}, "b": {"0": {"x": 0.8}}}
    found = result(score_table(scores, class_name="lesion"), missing="worst")
    assert (found.num_cases, found.left_out) == (1, ("y",))


def test_undefined_scores_are_left_out_for_all_and_counted():
    found = result(of_arrays(a=[0.9, NAN, 0.7, NAN], b=[0.8, 0.0, 0.6, NAN]))
    assert (found.num_cases, found.left_out) == (2, ("c001", "c003"))
    assert found.standing("a").undefined == ("c001", "c003")
    assert found.standing("b").undefined == ("c003",)
    assert found.standing("b").mean == pytest.approx(0.7)
    assert found.case_means == {"a": {"c000": 0.9, "c002": 0.7}, "b": {"c000": 0.8, "c002": 0.6}}


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (of_arrays(a=[0.5], b=[0.6], c=[0.7]), "there is one case only"),
        (of_arrays(patients=[0, 0], a=[0.5, 0.6], b=[0.6, 0.7]), "all cases are of one patient"),
        (of_arrays(a=[0.5, 0.6], b=[0.5, 0.6], c=[0.5, 0.6]), "the same values in every case"),
        (of_arrays(a=[NAN, NAN], b=[NAN, NAN]), "no case in which every contestant has a score"),
        (of_arrays(a=[NAN, 0.5], b=[0.5, NAN]), "no case in which every contestant has a score"),
    ],
)
def test_what_cannot_be_decided_is_said(table, fault):
    found = compare([table], QUICK)
    assert fault in found.primary.fault
    assert all(one.verdict == "undecided" and one.reason for one in found.primary.pairs)
    assert fault in found.conclusions[0]
    json.dumps(found.to_dict())


def test_different_cases_without_a_common_one_cannot_be_compared():
    table = score_table({"a": {"0": {"x": 0.5}}, "b": {"0": {"y": 0.5}}})
    found = compare([table], CompareSettings(missing="leave-out"))
    assert "no case in which every contestant" in found.primary.fault


def test_a_single_contestant_has_a_mean_with_an_interval():
    found = result(drawn([0.0], 20))
    assert found.pairs == ()
    assert found.fault == ""
    assert found.standing("a").interval.low < found.standing("a").mean < found.standing("a").interval.high


def test_an_interval_of_a_mean_stays_within_what_scores_can_be():
    found = result(of_arrays(a=[0.99, 0.8, 1.0], b=[0.7, 0.9, 0.8])).standing("a")
    assert found.interval.high == 1.0
    assert found.interval.low > 0.0


def test_two_equal_contestants_of_three_are_told_by_their_reason():
    found = result(of_arrays(a=[0.5, 0.6, 0.7], b=[0.5, 0.6, 0.7], c=[0.1, 0.2, 0.3]))
    assert (found.pair("a", "b").verdict, found.pair("a", "b").reason) == ("undecided", "same")
    assert found.friedman.chi2 > 0
    assert found.standing("a").rank_shares[:2] == (0.5, 0.5)


def test_the_json_form_has_everything_and_can_be_written():
    found = compare([drawn([0.0, -0.01, 0.01], 20), drawn([1.0, 2.0, 3.0], 20, key="hd95_mm")], QUICK, notes=("Mind.",))
    known = json.loads(json.dumps(found.to_dict()))
    assert known["contestants"] == ["a", "b", "c"]
    assert known["notes"][0] == "Mind."
    assert known["settings"]["margin"] == 0.005
    assert [one["column"] for one in known["tables"]] == ["dice", "hd95_mm"]
    assert len(known["tables"][0]["pairs"]) == 3
    assert len(known["tables"][0]["pairs"][0]["interval"]) == 2
    assert any("Better or worse" in one for one in known["rules"])
    assert known["tables"][1]["higher_is_better"] is False
    assert found.table("hd95_mm", "liver") is None


def test_it_is_the_same_on_every_run():
    table = drawn([0.0, -0.01], 20)
    assert json.dumps(compare([table], QUICK).to_dict()) == json.dumps(compare([table], QUICK).to_dict())


def test_tables_of_different_contestants_are_refused():
    with pytest.raises(DataError, match="the same in all tables"):
        compare([drawn([0.0, 0.1], 5), drawn([0.0], 5)])
    with pytest.raises(DataError, match="nothing to compare"):
        compare([])


def test_one_patient_with_many_scans_cannot_hide_behind_the_many_that_are_equivalent():
    # One patient with 60 scans loses 0.1 in each; 60 others with one scan each differ by a ten thousandth.
    rng = np.random.default_rng(0)
    ours = 0.8 + 0.01 * rng.standard_normal(120)
    theirs = ours + np.r_[np.full(60, 0.1), 1e-4 * rng.standard_normal(60)]
    patients = [0] * 60 + list(range(1, 61))
    pair = result(of_arrays(a=ours, b=theirs, patients=patients)).pairs[0]
    assert pair.adjusted_equivalence_p < 0.05  # of the patients' means
    assert pair.difference == pytest.approx(-0.05, abs=0.001)  # of the cases: ten times the margin
    assert pair.verdict == "undecided"


def test_two_patients_whose_differences_agree_are_no_equivalence():
    pair = result(of_arrays(a=[0.5, 0.7], b=[0.5010, 0.7011])).pairs[0]
    assert pair.adjusted_equivalence_p < 0.05
    assert pair.verdict == "undecided"


def test_a_difference_that_never_varies_is_held_against_the_margin():
    ours = np.linspace(0.5, 0.9, 8)
    assert result(of_arrays(a=ours, b=ours + 0.001)).pairs[0].verdict == "equivalent"
    assert result(of_arrays(a=ours, b=ours + 0.01)).pairs[0].verdict == "worse"
