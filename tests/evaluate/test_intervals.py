import math

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.evaluate.intervals import Interval, bootstrap_intervals, mean_interval, t_interval
from voxelseg.metrics import METRICS

NAN = math.nan


def evaluation(**dice_of_classes):
    """Each class's Dice in cases c0, c1, ..."""
    scores = [
        ClassScore(f"c{number}", name, dict.fromkeys(METRICS, dice), 1.0, 1.0)
        for name, values in dice_of_classes.items()
        for number, dice in enumerate(values)
    ]
    return Evaluation(tuple(scores), 1.0)


def own_patients(found):
    return {case: case for case in found.cases}


def test_the_interval_of_two_cases_spans_both():
    found = evaluation(liver=[0.2, 0.8])
    # draws: both first 1/4, both second 1/4, each once 1/2; so both ends are beyond the 2.5th percentiles
    interval = bootstrap_intervals(found, own_patients(found))["dice"].mean
    assert (interval.low, interval.high) == (0.2, 0.8)


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(1).beta(8, 2, 25)
    found = evaluation(liver=values.tolist())
    ours = bootstrap_intervals(found, own_patients(found))["dice"].classes["liver"]
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=0).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=2e-3)  # both are draws; their ends vary by about 0.001
    assert ours.high == pytest.approx(theirs.high, abs=2e-3)


def test_cases_of_one_patient_are_drawn_together_and_so_do_not_narrow_the_interval():
    values = [0.3, 0.5, 0.6, 0.9, 0.95]
    once, twice = evaluation(liver=values), evaluation(liver=values + values)
    patients = {f"c{number}": f"p{number % 5}" for number in range(10)}
    single = bootstrap_intervals(once, {case: patients[case] for case in once.cases}, seed=3)
    double = bootstrap_intervals(twice, patients, seed=3)
    assert single["dice"].mean.low == pytest.approx(double["dice"].mean.low)
    assert single["dice"].mean.high == pytest.approx(double["dice"].mean.high)
    free = bootstrap_intervals(twice, own_patients(twice), seed=3)["dice"].mean
    assert free.high - free.low < double["dice"].mean.high - double["dice"].mean.low


def test_undefined_values_are_left_out_of_each_draw():
    found = evaluation(liver=[0.5, 0.5, NAN, NAN], spleen=[NAN, 1.0, 1.0, NAN])
    intervals = bootstrap_intervals(found, own_patients(found))["dice"]
    assert (intervals.classes["liver"].low, intervals.classes["liver"].high) == (0.5, 0.5)
    assert (intervals.classes["spleen"].low, intervals.classes["spleen"].high) == (1.0, 1.0)
    assert 0.5 <= intervals.mean.low < intervals.mean.high <= 1.0  # draws without any liver, or any spleen


def test_there_is_no_interval_for_one_patient_or_a_class_without_values():
    found = evaluation(liver=[0.4, 0.6], spleen=[NAN, NAN])
    of_one = bootstrap_intervals(found, dict.fromkeys(found.cases, "p"))["dice"]
    assert math.isnan(of_one.mean.low)
    of_two = bootstrap_intervals(found, own_patients(found))["dice"]
    assert math.isnan(of_two.classes["spleen"].low)
    assert of_two.mean.low == pytest.approx(0.4)


def test_the_seed_decides_the_draws():
    found = evaluation(liver=np.random.default_rng(0).random(12).tolist())
    patients = own_patients(found)
    first, again, other = (bootstrap_intervals(found, patients, seed=seed)["dice"].mean for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_interval_of_one_value_per_case_leaves_out_undefined_ones():
    interval = mean_interval({"a": 0.2, "b": NAN, "c": 0.8})
    assert (interval.low, interval.high) == (0.2, 0.8)
    assert math.isnan(mean_interval({"a": 0.2, "b": NAN}).low)
    assert math.isnan(mean_interval({}).high)


def test_values_of_a_patient_are_drawn_together():
    # draws of two patients with the values 0, 0 and 1: both first, both second, or each once
    interval = mean_interval({"a": 0.0, "b": 0.0, "c": 1.0}, {"a": "p", "b": "p", "c": "q"})
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_the_t_interval_is_that_of_scipy():
    values = [0.01, 0.02, 0.06]
    found, expected = t_interval(values), ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert not found.excludes_zero
    assert t_interval([0.5, 0.5]) == Interval(0.5, 0.5)
    assert math.isnan(t_interval([0.5]).low)
