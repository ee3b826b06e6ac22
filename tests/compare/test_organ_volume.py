import math

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from voxelseg.compare.organ_volume import RankCorrelation, class_volumes_ml, rank_correlation
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.case import ClassScore


def named(values):
    return {f"class {place}": float(value) for place, value in enumerate(values)}


def test_volumes_are_means_in_ml_over_the_cases_that_have_the_class():
    def score(case, name, volume):
        return ClassScore(case=case, name=name, metrics={}, volume_reference_mm3=volume, volume_prediction_mm3=1.0)

    scores = (
        score("a", "liver", 1_500_000.0),
        score("b", "liver", 1_700_000.0),
        score("a", "cyst", 4000.0),
        score("b", "cyst", 0.0),
        score("a", "none", 0.0),
    )
    found = class_volumes_ml(Evaluation(scores, 1.0))
    assert found["liver"] == pytest.approx(1600)
    assert found["cyst"] == pytest.approx(4)  # not 2: the other case has none
    assert math.isnan(found["none"])


def test_the_order_of_e2enets_figure_16_cannot_be_told_from_chance():
    # Three classes in the same order: 2 of 3! = 6 orders are as extreme, so p = 1 / 3
    found = rank_correlation({"ED": 60.0, "ET": 20.0, "NET": 30.0}, {"ED": 81.0, "ET": 62.0, "NET": 79.3})
    assert (found.rho, found.p, found.n) == (pytest.approx(1), pytest.approx(1 / 3), 3)
    assert found.in_words() == "Spearman's ρ = 1.00 over 3 classes, too few to tell it from chance"


@pytest.mark.parametrize("seed", range(5))
def test_few_values_agree_with_all_permutations_of_scipy(seed):
    ours, theirs = np.random.default_rng(seed).integers(5, size=(2, 6)).astype(float)  # with ties
    found = rank_correlation(named(ours), named(theirs))
    assert found.rho == pytest.approx(spearmanr(ours, theirs).statistic)
    expected = permutation_test(
        (ours,), lambda x: spearmanr(x, theirs).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    # SciPy doubles the smaller tail; we count both tails, which is the same where the permutations are symmetric.
    both = float(np.mean(np.abs(expected.null_distribution) >= abs(found.rho) - 1e-9))
    assert found.p == pytest.approx(both)


@pytest.mark.parametrize("seed", range(5))
def test_many_values_agree_with_scipy(seed):
    ours, theirs = np.random.default_rng(seed).normal(size=(2, 15))
    found, expected = rank_correlation(named(ours), named(theirs)), spearmanr(ours, theirs)
    assert (found.rho, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_a_perfect_order_of_many_values_has_no_p_above_zero():
    assert rank_correlation(named(range(12)), named(range(12))) == RankCorrelation(pytest.approx(1), 0.0, 12)


def test_equal_values_and_missing_ones_give_no_correlation():
    assert math.isnan(rank_correlation(named([1, 1, 1]), named([1, 2, 3])).rho)
    found = rank_correlation({"a": 1.0, "b": math.nan, "c": 3.0}, {"a": 1.0, "b": 2.0, "d": 4.0})
    assert found.n == 1
    assert found.in_words() == "no rank correlation can be computed over 1 classes"


def test_words_say_whether_chance_explains_it():
    assert RankCorrelation(0.9, 0.0004, 13).in_words() == "Spearman's ρ = 0.90 over 13 classes (p < 0.001)"
    assert RankCorrelation(-0.2, 0.51, 13).in_words().endswith("(p = 0.510: not told from chance)")
