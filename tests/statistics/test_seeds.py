import math

import numpy as np
import pytest
from rates import around, at_most
from scipy.special import stdtrit
from scipy.stats import ttest_1samp, ttest_ind

from voxelseg.statistics.intervals import Interval, clustered_error
from voxelseg.statistics.seeds import of_seeds, two_level

OURS, THEIRS = [0.81, 0.83, 0.82, 0.85], [0.80, 0.79, 0.81]
DIFFERENCE = float(np.mean(OURS) - np.mean(THEIRS))


def test_without_a_spread_over_patients_it_is_welchs_test():
    found = two_level(DIFFERENCE, 0.0, 50, OURS, THEIRS)
    expected = ttest_ind(OURS, THEIRS, equal_var=False)
    ends = expected.confidence_interval()
    assert (found.interval().low, found.interval().high) == pytest.approx((ends.low, ends.high))
    assert found.p == pytest.approx(expected.pvalue)


def test_without_a_spread_over_seeds_it_is_the_t_test_of_patients():
    found = two_level(0.1, 0.04, 9, [0.8] * 3, [0.7] * 3)
    assert found.interval().high == pytest.approx(0.1 + 0.04 * 2.306)  # t of 8 degrees of freedom
    assert found.equivalence_p(0.1 + 0.04 * 1.860) == pytest.approx(0.05, rel=1e-3)  # one-sided


def test_both_parts_reach_as_far_as_the_root_of_the_sum_of_their_squares():
    seeds, patients = two_level(DIFFERENCE, 0.0, 50, OURS, THEIRS), two_level(DIFFERENCE, 0.005, 50, [0] * 3, [0] * 3)
    both = two_level(DIFFERENCE, 0.005, 50, OURS, THEIRS)
    reach = [one.interval().high - DIFFERENCE for one in (seeds, patients, both)]
    assert reach[2] == pytest.approx(math.hypot(reach[0], reach[1]))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_p_is_that_of_the_interval_that_ends_at_0_or_at_the_margin(level):
    interval = two_level(0.0, 0.005, 50, OURS, THEIRS).interval(level)
    assert two_level(interval.high, 0.005, 50, OURS, THEIRS).p == pytest.approx(1 - level)
    inside = two_level(0.01, 0.005, 50, OURS, THEIRS)
    assert inside.equivalence_p(0.01 + interval.high) == pytest.approx((1 - level) / 2)
    outside = two_level(0.01 + interval.high, 0.005, 50, OURS, THEIRS)
    assert outside.equivalence_p(0.01) == pytest.approx(1 - (1 - level) / 2)


def test_too_few_seeds_or_patients_say_nothing():
    for found in (
        two_level(0.1, 0.01, 50, [0.8, 0.9], [0.7, 0.7, 0.7]),
        two_level(0.1, math.nan, 1, [0.8, 0.9, 0.8], [0.7, 0.7, 0.7]),
        of_seeds([0.1, 0.2]),
    ):
        assert math.isnan(found.interval().low)
        assert math.isnan(found.p)
        assert math.isnan(found.equivalence_p(0.005))


def test_nothing_that_varies_is_an_interval_without_width():
    found = two_level(0.1, 0.0, 9, [0.8] * 3, [0.7] * 3)
    assert found.interval() == Interval(0.1, 0.1)
    assert (found.p, found.equivalence_p(0.2), found.equivalence_p(0.05)) == (0.0, 0.0, 1.0)
    assert two_level(0.0, 0.0, 9, [0.8] * 3, [0.8] * 3).p == 1.0


def test_seeds_that_both_ways_share_are_a_paired_t_test():
    differences = [0.01, 0.02, 0.06]
    assert of_seeds(differences).p == pytest.approx(ttest_1samp(differences, 0.0).pvalue)
    assert of_seeds([0.1, 0.1, 0.1]).p == 0.0
    assert of_seeds([0.0, 0.0, 0.0]).p == 1.0


def test_a_difference_beyond_all_doubt_has_a_small_p_and_no_error():
    assert 0 < two_level(0.5, 1e-6, 500, OURS * 3, OURS * 3).p < 1e-6
    assert 0 < two_level(0.5, 1e-6, 500, [0.8] * 3, [0.3] * 3).p < 1e-20


@pytest.mark.parametrize("seed_std", [0.0, 0.005, 0.03])
def test_one_in_twenty_comparisons_of_equals_is_called_different_at_most(seed_std):
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(600):
        scores = 0.02 * rng.standard_normal((2, 1, 30)) + 0.01 * rng.standard_normal((2, 3, 30))
        scores += seed_std * rng.standard_normal((2, 3, 1))
        difference = scores[0].mean(axis=0) - scores[1].mean(axis=0)
        error = clustered_error(difference, np.ones(30))
        seeds = scores.mean(axis=2)
        wrong += two_level(float(difference.mean()), error, 30, *seeds.tolist()).interval().excludes_zero
    assert wrong <= around(0.05, 600)[-1]
    assert wrong >= 6  # not much fewer, either


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_small_p_values_of_equals_are_as_rare_as_they_say(share):
    """Patients are a `share` of the variance of a training whose 3 seeds may happen to agree; theirs never vary."""
    rng = np.random.default_rng(0)
    level, num, wrong = 0.002, 20_000, 0
    least = float(stdtrit(2, 1 - level / 2))
    for seeds in rng.standard_normal((num, 3)):
        difference = seeds.mean() + math.sqrt(share / 3) * rng.standard_normal()
        # With fewer of its own errors than t of 2 degrees of freedom takes, no p is small: that spares the test.
        if abs(difference) > math.sqrt(share / 3) and abs(difference) > least * seeds.std(ddof=1) / math.sqrt(3):
            wrong += two_level(difference, math.sqrt(share / 3), 60, seeds.tolist(), [0.0] * 3).p < level
    assert wrong <= at_most(level, num)
