import math

import pytest

from voxelseg.compare.pairs import Pair
from voxelseg.compare.settings import CompareSettings
from voxelseg.compare.verdicts import judged, rules
from voxelseg.statistics.intervals import NO_INTERVAL, Interval

FOUND = Pair(
    ours="a",
    theirs="b",
    difference=0.02,
    interval=Interval(0.01, 0.03),
    num_better=30,
    num_worse=10,
    std=0.03,
    wilcoxon_p=0.001,
    adjusted_wilcoxon_p=0.003,
    seeds_p=math.nan,
    adjusted_p=0.003,
    t_p=0.001,
    rank_biserial=0.6,
    cohens_dz=0.67,
    margin=0.005,
    equivalence_p=0.99,
    adjusted_patients_equivalence_p=1.0,
    seeds_equivalence_p=math.nan,
    adjusted_equivalence_p=1.0,
    seeds=NO_INTERVAL,
)


INSIDE, ACROSS = Interval(-0.004, 0.004), Interval(-0.004, 0.006)
"""Of the margin."""


def verdict(*, higher_is_better=True, narrow=INSIDE, num_patients=40, num_pairs=3, **changes):
    for patients_p, p in (
        ("adjusted_wilcoxon_p", "adjusted_p"),
        ("adjusted_patients_equivalence_p", "adjusted_equivalence_p"),
    ):
        if p in changes:  # without seeds they are the same
            changes.setdefault(patients_p, changes[p])
    pair = Pair(**{**FOUND.__dict__, **changes})
    found = judged(
        pair,
        CompareSettings(),
        higher_is_better=higher_is_better,
        num_patients=num_patients,
        num_pairs=num_pairs,
        narrow=narrow,
    )
    return found.verdict, found.reason


def test_better_takes_the_test_and_the_interval_on_the_same_side():
    assert verdict() == ("better", "")
    assert verdict(adjusted_p=0.06)[0] == "undecided"
    assert verdict(interval=Interval(-0.001, 0.03))[0] == "undecided"
    assert verdict(rank_biserial=-0.6) == ("undecided", "tests")
    assert verdict(rank_biserial=-0.6, num_patients=4) == ("undecided", "tests")  # more would not make them agree
    assert verdict(rank_biserial=-0.6, adjusted_p=0.2, num_patients=4) == ("undecided", "patients")


def test_the_direction_of_the_column_decides_between_better_and_worse():
    assert verdict(higher_is_better=False) == ("worse", "")
    other = {"difference": -0.02, "interval": Interval(-0.03, -0.01), "rank_biserial": -0.6}
    assert verdict(**other) == ("worse", "")
    assert verdict(**other, higher_is_better=False) == ("better", "")


def test_equivalent_takes_the_adjusted_test_and_wins_over_better():
    assert verdict(adjusted_equivalence_p=0.01) == ("equivalent", "")
    assert verdict(adjusted_equivalence_p=0.06) == ("better", "")
    assert verdict(adjusted_equivalence_p=0.01, margin=None) == ("better", "")


def test_equivalent_takes_an_interval_within_the_margin_and_six_patients():
    assert verdict(adjusted_equivalence_p=0.01, narrow=ACROSS) == ("better", "")
    assert verdict(adjusted_equivalence_p=0.01, narrow=NO_INTERVAL) == ("better", "")
    assert verdict(adjusted_equivalence_p=0.01, adjusted_p=1.0, num_patients=5) == ("undecided", "patients")
    assert verdict(adjusted_equivalence_p=0.01, num_patients=6) == ("equivalent", "")


def test_with_enough_seeds_both_take_the_p_that_knows_of_them():
    seeds = {"seeds": Interval(0.001, 0.04)}  # on its own it excludes 0: the adjusted p decides
    assert verdict(**seeds) == ("better", "")
    assert verdict(**seeds, adjusted_p=0.06, adjusted_wilcoxon_p=0.003) == ("undecided", "seeds")
    assert verdict(**seeds, adjusted_p=0.07, adjusted_wilcoxon_p=0.06, num_patients=20) == ("undecided", "patients")
    alike = {**seeds, "adjusted_p": 1.0, "adjusted_patients_equivalence_p": 0.01}
    assert verdict(**alike, adjusted_equivalence_p=0.02) == ("equivalent", "")
    assert verdict(**alike, adjusted_equivalence_p=0.06) == ("undecided", "seeds")
    assert verdict(**alike, adjusted_equivalence_p=0.06, narrow=ACROSS, num_patients=20) == ("undecided", "patients")


def test_a_difference_that_holds_for_other_seeds_is_called_so_even_if_it_may_be_within_the_margin():
    seeds = {"seeds": Interval(0.001, 0.04), "adjusted_p": 0.01}
    assert verdict(**seeds, adjusted_patients_equivalence_p=0.01, adjusted_equivalence_p=0.2) == ("better", "")


def test_a_pair_of_too_few_seeds_is_not_explained_by_them():
    # the other pairs' p-values, which know of seeds, come before its own in Holm's order
    assert verdict(adjusted_p=0.06, adjusted_wilcoxon_p=0.03, num_patients=20) == ("undecided", "patients")


def test_patients_that_are_needed_are_for_the_level_of_one_of_all_pairs():
    pair = judged(
        Pair(**{**FOUND.__dict__, "difference": 0.01, "adjusted_p": 0.2, "adjusted_wilcoxon_p": 0.2}),
        CompareSettings(),
        higher_is_better=True,
        num_patients=40,
        num_pairs=3,
        narrow=NO_INTERVAL,
    )
    # z of 1 - 0.05 / 3 / 2 is 2.394: ((2.394 + 0.842) * 0.03 / 0.01)^2 = 94.2; equivalence cannot be shown at 0.01
    assert (pair.reason, pair.patients_needed) == ("patients", 95)


def test_where_the_number_is_there_already_the_tests_do_not_agree():
    assert verdict(adjusted_p=0.2, num_patients=400) == ("undecided", "tests")


def test_no_patient_that_differs_is_undecided():
    assert verdict(num_better=0, num_worse=0) == ("undecided", "same")


def test_differences_that_do_not_vary_have_no_number_that_is_needed():
    pair = judged(
        Pair(**{**FOUND.__dict__, "std": 0.0, "adjusted_p": 0.5, "adjusted_wilcoxon_p": 0.5}),
        CompareSettings(),
        higher_is_better=True,
        num_patients=2,
        num_pairs=1,
        narrow=NO_INTERVAL,
    )
    assert (pair.verdict, pair.reason, pair.patients_needed) == ("undecided", "patients", None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (CompareSettings(), "A missing prediction stops the comparison."),
        (CompareSettings(missing="worst"), "counts as the worst value of the column"),
        (CompareSettings(missing="leave-out"), "is left out for all contestants"),
        (CompareSettings(alpha=0.1), "90 % bootstrap intervals"),
        (CompareSettings(power=0.9), "a power of 90 %"),
        (CompareSettings(), "the larger one of that over patients and that of a t-test over patients and seeds"),
    ],
)
def test_the_rules_say_what_was_set(settings, said):
    assert any(said in one for one in rules(settings))
