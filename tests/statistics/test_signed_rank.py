import numpy as np
import pytest
from rates import around
from scipy.stats import PermutationMethod, wilcoxon

from voxelseg.statistics.signed_rank import signed_rank


def test_four_differences_by_hand():
    # the positive ones have ranks 1, 2, 3, sum 6. Of 16 choices of signs 7 have 6 or more: 1+2+3, 2+4, 3+4, 1+2+4,
    # 1+3+4, 2+3+4 and all
    found = signed_rank(np.array([0.1, 0.2, 0.3, -0.4]))
    assert found.p == pytest.approx(2 * 7 / 16)
    assert found.rank_biserial == pytest.approx((6 - 4) / 10)
    assert found.num_nonzero == 4


@pytest.mark.parametrize("num", [3, 12, 50])
def test_the_exact_p_value_is_that_of_scipy(num):
    values = np.random.default_rng(num).standard_normal(num) + 0.2
    assert signed_rank(values).p == pytest.approx(wilcoxon(values, method="exact").pvalue)


def test_with_ties_and_zeros_all_choices_of_signs_are_counted_as_scipy_does():
    values = np.array([0.1, 0.1, -0.1, 0.2, 0.3, 0.3, -0.2, 0.5, 0.4])
    expected = wilcoxon(values, method=PermutationMethod(n_resamples=np.inf)).pvalue  # 2 ** 9 choices
    assert signed_rank(values).p == pytest.approx(expected)
    with_zeros = np.concatenate([values, [0.0, 0.0]])  # left out
    assert signed_rank(with_zeros).p == pytest.approx(expected)
    assert signed_rank(with_zeros).num_nonzero == 9


def test_for_many_differences_it_is_the_normal_approximation_of_scipy_with_ties():
    values = np.round(np.random.default_rng(3).standard_normal(80) + 0.1, 1)
    assert signed_rank(values).p == pytest.approx(wilcoxon(values, method="asymptotic").pvalue)


def test_exact_and_normal_p_values_agree_where_one_takes_over_from_the_other():
    values = np.random.default_rng(4).standard_normal(51) + 0.2
    assert signed_rank(values[:50]).p == pytest.approx(wilcoxon(values[:50], method="asymptotic").pvalue, abs=0.01)


def test_differences_that_only_rounding_tells_apart_are_ties():
    assert 0.3 - 0.2 != 0.2 - 0.1
    found = signed_rank(np.array([0.3 - 0.2, 0.1 - 0.2, 0.1 - 0.1 + 1e-17]))
    assert (found.p, found.rank_biserial, found.num_nonzero) == (1.0, 0.0, 2)


def test_no_difference_gives_p_of_one_and_no_effect():
    for values in (np.zeros(5), np.zeros(0)):
        found = signed_rank(values)
        assert (found.p, found.rank_biserial, found.num_nonzero) == (1.0, 0.0, 0)


def test_all_of_one_sign_is_the_largest_effect():
    found = signed_rank(np.array([-0.1, -0.2, -0.3]))
    assert found.rank_biserial == -1.0
    assert found.p == pytest.approx(2 / 2**3)


@pytest.mark.parametrize("num", [20, 60])
def test_one_in_twenty_tests_of_nothing_is_below_the_level(num):
    values = np.random.default_rng(num).standard_t(3, (2000, num))  # symmetric, with long tails
    assert sum(signed_rank(one).p < 0.05 for one in values) in around(0.05, 2000)
