import math

import numpy as np
import pytest
from rates import around
from scipy.stats import ttest_ind

from voxelseg.statistics.intervals import Interval, clustered_error
from voxelseg.statistics.seeds import two_level_interval


def test_without_a_spread_over_patients_the_interval_is_welchs():
    ours, theirs = [0.81, 0.83, 0.82, 0.85], [0.80, 0.79, 0.81]
    difference = np.mean(ours) - np.mean(theirs)
    found = two_level_interval(difference, 0.0, 50, ours, theirs)
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_too_few_seeds_or_patients_have_no_interval():
    assert math.isnan(two_level_interval(0.1, 0.01, 50, [0.8, 0.9], [0.7, 0.7, 0.7]).low)
    assert math.isnan(two_level_interval(0.1, math.nan, 1, [0.8, 0.9, 0.8], [0.7, 0.7, 0.7]).low)


def test_nothing_that_varies_is_an_interval_without_width():
    assert two_level_interval(0.1, 0.0, 9, [0.8] * 3, [0.7] * 3) == Interval(0.1, 0.1)


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
        wrong += two_level_interval(float(difference.mean()), error, 30, *seeds.tolist()).excludes_zero
    assert wrong <= around(0.05, 600)[-1]
    assert wrong >= 6  # not much fewer, either
