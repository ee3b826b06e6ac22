import numpy as np
import pytest

from voxelseg.statistics.resampling import Draws


def test_as_many_groups_are_drawn_as_there_are():
    sizes = Draws(7, resamples=1500).sums(np.ones((7, 1)))
    assert sizes.shape == (1500, 1)
    assert (sizes == 7).all()


def test_each_group_is_drawn_once_on_average_with_the_binomial_spread():
    times = Draws(5, resamples=4000).sums(np.eye(5))
    assert times.mean(axis=0) == pytest.approx(np.ones(5), abs=0.06)  # standard error 0.014
    assert times.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.1)  # 5 * 1/5 * 4/5


def test_the_seed_decides_the_draws_and_all_columns_share_them():
    values = np.random.default_rng(0).random((6, 1))
    both = Draws(6, seed=1, resamples=200).sums(np.hstack([values, values]))
    assert (both[:, 0] == both[:, 1]).all()
    assert both[:, [0]] == pytest.approx(Draws(6, seed=1, resamples=200).sums(values))
    assert not np.array_equal(both[:, [0]], Draws(6, seed=2, resamples=200).sums(values))


def test_a_mean_is_over_the_cases_of_the_drawn_groups():
    # group 0 has cases 0 and 1, group 1 has 5: both 0, both 1, or each once
    means = Draws(2, resamples=300).means(np.array([[1.0], [5.0]]), np.array([[2.0], [1.0]]))
    assert sorted(set(means[:, 0].tolist())) == [0.5, 2.0, 5.0]


def test_a_draw_without_any_value_has_no_mean():
    means = Draws(2, resamples=300).means(np.array([[1.0], [0.0]]), np.array([[1.0], [0.0]]))
    assert np.isnan(means).sum() == pytest.approx(75, abs=30)  # group 1 twice: a quarter of the draws
    assert np.isnan(Draws(0, resamples=3).means(np.zeros((0, 2)), np.zeros((0, 2)))).all()
