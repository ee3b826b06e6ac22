import math

import numpy as np
import pytest
from rates import around
from scipy.stats import ttest_1samp

from voxelseg.statistics.paired_t import paired_t

VALUES = np.array([0.01, 0.03, -0.01, 0.02, 0.0])


def test_the_t_test_is_that_of_scipy():
    found = paired_t(VALUES)
    assert found.p == pytest.approx(ttest_1samp(VALUES, 0).pvalue)
    assert found.mean == pytest.approx(0.01)
    assert found.std == pytest.approx(math.sqrt(0.001 / 4))  # squares of 0, 0.02, 0.02, 0.01, 0.01 sum to 0.001
    assert found.cohens_dz == pytest.approx(0.01 / math.sqrt(0.00025))


def test_equivalence_is_the_larger_of_two_one_sided_tests():
    found = paired_t(VALUES)
    above = ttest_1samp(VALUES, 0.04, alternative="less").pvalue
    below = ttest_1samp(VALUES, -0.04, alternative="greater").pvalue
    assert above > below
    assert found.equivalence_p(0.04) == pytest.approx(above)
    assert paired_t(-VALUES).equivalence_p(0.04) == pytest.approx(above)
    assert found.equivalence_p(0.005) > 0.5  # the mean lies outside


def test_too_few_differences_have_no_test_and_equal_ones_that_of_equivalence_only():
    for values in (np.zeros(0), np.array([0.1])):
        assert math.isnan(paired_t(values).p)
        assert math.isnan(paired_t(values).std)
    equal = paired_t(np.array([0.3 - 0.2, 0.2 - 0.1, 0.1]))  # but for rounding
    assert equal.std == 0.0
    assert math.isnan(equal.p)
    assert math.isnan(equal.cohens_dz)
    assert equal.equivalence_p(0.5) == 0.0
    assert equal.equivalence_p(0.05) == 1.0
    assert math.isnan(paired_t(np.array([0.1])).equivalence_p(0.5))


def test_one_in_twenty_tests_of_nothing_is_below_the_level():
    values = np.random.default_rng(0).standard_normal((2000, 12))
    assert sum(paired_t(one).p < 0.05 for one in values) in around(0.05, 2000)


def test_one_in_twenty_tests_at_the_margin_calls_it_equivalent():
    values = 0.005 + 0.003 * np.random.default_rng(1).standard_normal((2000, 12))
    assert sum(paired_t(one).equivalence_p(0.005) < 0.05 for one in values) in around(0.05, 2000)
