import math

import numpy as np
import pytest
import scikit_posthocs
from rates import around, at_most
from scipy.stats import friedmanchisquare

from voxelseg.statistics.ranks import (
    critical_difference,
    friedman,
    friedman_of_means,
    groups,
    nemenyi,
    rank_shares,
    ranks,
)

# Demsar 2006, JMLR 7:1-30, Table 6: C4.5 with and without tuning of m and cf on 14 data sets, ranks of AUC.
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
DEMSAR = np.array(
    [
        [4, 3, 2, 1],
        [1, 2, 3, 4],
        [4, 1, 2, 3],
        [4, 1, 3, 2],
        [4, 2, 3, 1],
        [1, 2.5, 4, 2.5],
        [3, 2, 4, 1],
        [2.5, 2.5, 4, 1],
        [4, 3, 2, 1],
        [2.5, 2.5, 2.5, 2.5],
        [4, 2.5, 1, 2.5],
        [3, 2, 4, 1],
        [4, 1, 2, 3],
        [3, 1, 4, 2],
    ]
)
TABLE = np.round(np.random.default_rng(5).normal([0.8, 0.81, 0.83, 0.8, 0.82], 0.03, (15, 5)), 2)  # with ties


def test_the_published_example_is_reproduced_from_its_ranks():
    means = DEMSAR.mean(axis=0).tolist()
    assert means == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    found = friedman_of_means(means, 14)  # Demsar does not correct for ties
    assert found.chi2 == pytest.approx(9.28, abs=0.005)
    assert found.f == pytest.approx(3.69, abs=0.005)
    assert found.f_p < 0.05  # he compares with F(3, 39) = 2.85
    assert critical_difference(4, 14, alpha=0.05) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=0.005)


def test_the_published_groups_are_found():
    means = DEMSAR.mean(axis=0).tolist()

    def named(alpha):
        difference = critical_difference(4, 14, alpha=alpha)
        return [{NAMES[place] for place in group} for group in groups(means, difference)]

    # "not powerful enough" at 0.05; at 0.1 C4.5 is worse than the two with m, and nothing is said of C4.5+cf
    assert named(0.05) == [set(NAMES)]
    assert named(0.1) == [{"C4.5+m+cf", "C4.5+m", "C4.5+cf"}, {"C4.5+cf", "C4.5"}]


def test_ranks_are_places_and_ties_share_them():
    scores = np.array([[0.9, 0.8, 0.8], [0.3 - 0.2, 0.2 - 0.1, 0.5]])
    assert ranks(scores, higher_is_better=True).tolist() == [[1, 2.5, 2.5], [2.5, 2.5, 1]]
    assert ranks(scores, higher_is_better=False).tolist() == [[3, 1.5, 1.5], [1.5, 1.5, 3]]


def test_friedman_with_ties_is_that_of_scipy():
    expected = friedmanchisquare(*TABLE.T)
    found = friedman(ranks(TABLE, higher_is_better=True))
    assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.f == pytest.approx(14 * found.chi2 / (15 * 4 - found.chi2))


def test_equal_scores_throughout_have_a_p_of_one():
    found = friedman(ranks(np.full((6, 3), 0.5), higher_is_better=True))
    assert (found.chi2, found.p, found.f, found.f_p) == (0.0, 1.0, 0.0, 1.0)


def test_patients_that_all_rank_alike_have_an_infinite_f():
    found = friedman(ranks(np.tile([0.9, 0.8, 0.7], (6, 1)), higher_is_better=True))
    assert found.chi2 == pytest.approx(12.0)  # n (k - 1), the largest there is
    assert math.isinf(found.f)
    assert found.f_p == 0.0


def test_two_contestants_or_one_patient_cannot_be_tested():
    assert math.isnan(friedman(np.array([[1.0, 2.0], [2.0, 1.0]])).p)
    assert math.isnan(friedman(np.array([[1.0, 2.0, 3.0]])).f_p)


def test_nemenyi_is_that_of_scikit_posthocs():
    found = nemenyi(ranks(TABLE, higher_is_better=True).mean(axis=0).tolist(), len(TABLE))
    expected = scikit_posthocs.posthoc_nemenyi_friedman(TABLE).to_numpy()
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_critical_difference_is_where_nemenyis_p_is_the_level():
    difference = critical_difference(5, 15, alpha=0.05)
    assert nemenyi([1.0, 1.0 + difference, 3.0, 3.0, 3.0], 15)[0, 1] == pytest.approx(0.05)


def test_groups_are_the_largest_ones_and_none_is_part_of_another():
    # sorted 1, 1.5, 2.2, 4, 6: within 1.3 are {1, 1.5, 2.2}; 4 and 6 are alone; {1.5, 2.2} is part of the first
    assert groups([4.0, 1.0, 2.2, 6.0, 1.5], 1.3) == ((1, 4, 2),)
    assert groups([1.0, 2.0, 3.0], 1.5) == ((0, 1), (1, 2))
    assert groups([1.0, 2.0], 1.0) == ()  # the critical difference itself tells apart
    assert groups([1.0, 1.5], math.nan) == ()
    assert groups([1.0], 1.0) == ()


def test_shares_of_places_are_counted_over_draws():
    # a is first in 2 of 4 draws, shares it in one, and is third in one
    drawn = np.array([[0.9, 0.8, 0.7], [0.9, 0.7, 0.8], [0.9, 0.9, 0.1], [0.1, 0.3, 0.2]])
    shares = rank_shares(drawn, higher_is_better=True)
    assert shares[0].tolist() == [2.5 / 4, 0.5 / 4, 1 / 4]
    assert shares.sum(axis=0).tolist() == pytest.approx([1, 1, 1])
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert rank_shares(drawn, higher_is_better=False)[0].tolist() == [1 / 4, 0.5 / 4, 2.5 / 4]


def test_one_in_twenty_families_without_differences_is_below_the_level():
    tables = np.random.default_rng(2).standard_normal((1000, 20, 4))
    places = [ranks(one, higher_is_better=True) for one in tables]
    assert sum(friedman(one).f_p < 0.05 for one in places) in around(0.05, 1000)
    difference = critical_difference(4, 20, alpha=0.05)
    widest = [float(np.ptp(one.mean(axis=0))) for one in places]
    assert sum(width >= difference for width in widest) <= at_most(0.05, 1000)
    assert sum(width >= difference for width in widest) >= 20  # nor is it much below
