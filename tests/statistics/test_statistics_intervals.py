import math

import numpy as np
import pytest
from rates import around
from scipy.stats import ttest_1samp

from voxelseg.statistics.intervals import (
    NO_INTERVAL,
    Interval,
    bootstrap_interval,
    clustered_error,
    mean_interval,
    percentile_interval,
    t_interval,
)
from voxelseg.statistics.resampling import Draws

NAN = math.nan


def test_the_interval_of_one_value_per_case_leaves_out_undefined_ones():
    interval = mean_interval({"a": 0.2, "b": NAN, "c": 0.8})
    # two cases: mean 0.5, standard error 0.3, and Student's t of one degree of freedom, 12.7062
    assert (interval.low, interval.high) == pytest.approx((0.5 - 12.7062 * 0.3, 0.5 + 12.7062 * 0.3), abs=1e-4)
    assert math.isnan(mean_interval({"a": 0.2, "b": NAN}).low)
    assert math.isnan(mean_interval({}).high)


def test_cases_of_a_patient_count_as_one():
    values = {f"case {number}": 0.1 * number for number in range(10)}
    twice = values | {f"{case} again": value for case, value in values.items()}
    patients = {case: case.removesuffix(" again") for case in twice}
    alone, together = mean_interval(values), mean_interval(twice, patients)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    without = mean_interval(twice)
    assert without.high - without.low < 0.8 * (alone.high - alone.low)


def test_with_one_case_each_the_clustered_error_is_the_usual_one():
    values = np.array([0.5, 0.7, 0.9, 0.8])
    assert clustered_error(values, np.ones(4)) == pytest.approx(values.std(ddof=1) / 2)


def test_equal_cases_of_a_patient_add_nothing():
    values = np.array([0.5, 0.7, 0.9, 0.8])
    assert clustered_error(3 * values, np.full(4, 3.0)) == pytest.approx(values.std(ddof=1) / 2)
    assert math.isnan(clustered_error(np.array([0.5]), np.array([1.0])))


def test_the_clustered_error_is_the_spread_of_means_over_other_patients():
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(600):
        patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        values = rng.standard_normal(40)[patients] + 0.3 * rng.standard_normal(len(patients))
        means.append(values.mean())
        errors.append(clustered_error(np.bincount(patients, weights=values), np.bincount(patients)))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_the_t_interval_is_that_of_scipy():
    values = [0.01, 0.02, 0.06]
    found, expected = t_interval(values), ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert not found.excludes_zero
    assert t_interval([0.5, 0.5]) == Interval(0.5, 0.5)
    assert math.isnan(t_interval([0.5]).low)


def bootstrapped(values, patients=None, *, resamples=2000, level=0.95):
    """Interval of the mean of values (cases,), each of its own patient or of the one in `patients`."""
    values = np.asarray(values, dtype=float)
    patients = np.arange(len(values)) if patients is None else np.asarray(patients)
    sums, counts = np.bincount(patients, weights=values), np.bincount(patients).astype(float)
    drawn = Draws(len(sums), resamples=resamples).means(sums[:, None], counts[:, None])[:, 0]
    error = clustered_error(sums, counts)
    return bootstrap_interval(drawn, mean=float(values.mean()), error=error, num_groups=len(sums), level=level)


def test_with_few_groups_the_interval_is_students():
    values = [0.01, 0.02, 0.06, 0.01]
    found, expected = bootstrapped(values), t_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert math.isnan(bootstrapped([0.5]).low)


def test_with_many_groups_it_is_the_percentiles_of_the_draws_a_little_further_out():
    values = np.random.default_rng(0).standard_normal(40)
    found = bootstrapped(values, resamples=10_000)
    # t(39) at 0.975 is 2.0227; times sqrt(40 / 39) it is 2.0484, as far out as 97.97 % of the normal distribution
    drawn = Draws(40).means(values[:, None], np.ones((40, 1)))[:, 0]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, (2.03, 97.97))), abs=1e-3)


def test_other_levels_are_narrower():
    values = np.random.default_rng(1).standard_normal(20)
    wide, narrow = bootstrapped(values), bootstrapped(values, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("num", [3, 5, 8, 12, 30])
def test_the_interval_holds_the_mean_in_19_of_20_samples(num):
    samples = np.random.default_rng(num).standard_normal((600, num))
    found = [bootstrapped(one, resamples=600) for one in samples]
    assert sum(one.low <= 0 <= one.high for one in found) >= around(0.94, 600)[0]
    assert sum(one.low <= 0 <= one.high for one in found) <= around(0.96, 600)[-1]


@pytest.mark.parametrize("num_patients", [6, 15, 40])
def test_the_interval_holds_with_scans_of_one_patient_that_are_alike(num_patients):
    rng = np.random.default_rng(num_patients)
    hits = 0
    for _ in range(600):
        patients = np.repeat(np.arange(num_patients), rng.integers(2, 5, num_patients))
        values = rng.standard_normal(num_patients)[patients] + 0.3 * rng.standard_normal(len(patients))
        found = bootstrapped(values, patients, resamples=600)
        hits += found.low <= 0 <= found.high
    assert hits >= around(0.93, 600)[0]


@pytest.mark.slow
def test_plain_percentiles_are_too_narrow_for_few_groups_and_these_are_not():
    rng = np.random.default_rng(7)
    samples = rng.beta(9, 1, (1500, 8))  # like Dice: most near 1, some far below
    draws = Draws(8, resamples=1000)
    plain = [percentile_interval(draws.means(one[:, None], np.ones((8, 1)))[:, 0], 8) for one in samples]
    ours = [bootstrapped(one, resamples=1000) for one in samples]
    assert sum(one.low <= 0.9 <= one.high for one in plain) / 1500 == pytest.approx(0.86, abs=0.03)
    assert sum(one.low <= 0.9 <= one.high for one in ours) / 1500 == pytest.approx(0.915, abs=0.03)


def test_an_interval_is_cut_at_the_best_and_the_worst_value():
    assert Interval(-0.2, 1.3).within(1.0, 0.0) == Interval(0.0, 1.0)
    assert Interval(-2.0, 30.0).within(0.0, math.inf) == Interval(0.0, 30.0)
    assert math.isnan(NO_INTERVAL.within(1.0, 0.0).low)
