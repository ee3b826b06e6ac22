import math

import numpy as np
import pytest
from rates import around

from voxelseg.statistics.multiple import holm, larger_p

NAN = math.nan


def test_holm_multiplies_by_the_number_of_tests_that_are_left():
    # ordered: 0.01 * 4, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, then 0.04 * 1, which may not be smaller than the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_test_that_there_is_not_does_not_count():
    found = holm([0.04, NAN, 0.01])  # 0.01 * 2, then 0.04 * 1
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.02)


def test_two_tests_that_must_both_find_something_have_the_larger_p():
    assert larger_p(0.01, 0.04) == larger_p(0.04, 0.01) == 0.04
    assert larger_p(0.01, NAN) == larger_p(NAN, 0.01) == 0.01
    assert math.isnan(larger_p(NAN, NAN))


def test_one_in_twenty_families_without_any_effect_has_an_adjusted_p_below_the_level():
    p_values = np.random.default_rng(0).random((2000, 6))
    found = sum(min(holm(family.tolist())) < 0.05 for family in p_values)
    assert found in around(1 - (1 - 0.05 / 6) ** 6, 2000)  # 4.9 % for independent tests
