import math

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.evaluate.intervals import bootstrap_intervals
from voxelseg.metrics import METRICS
from voxelseg.statistics.intervals import Interval

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


def test_the_interval_of_two_cases_is_as_wide_as_students_t():
    found = evaluation(liver=[0.49, 0.51])
    interval = bootstrap_intervals(found, own_patients(found))["dice"].mean
    # standard error 0.01, Student's t of one degree of freedom 12.7062
    assert (interval.low, interval.high) == pytest.approx((0.5 - 0.127062, 0.5 + 0.127062), abs=1e-5)


def test_no_interval_reaches_beyond_the_best_and_the_worst_value():
    found = bootstrap_intervals(evaluation(liver=[0.2, 0.8]), {"c0": "c0", "c1": "c1"})
    assert found["dice"].mean == found["dice"].classes["liver"] == Interval(0.0, 1.0)
    assert found["hd95_mm"].mean.low == 0.0
    assert found["hd95_mm"].mean.high == pytest.approx(0.5 + 12.7062 * 0.3)


def test_few_cases_of_two_classes_have_the_t_interval_of_their_means():
    liver, spleen = [0.5, 0.6, 0.8, 0.9], [0.7, 0.5, 0.6, 0.8]
    found = evaluation(liver=liver, spleen=spleen)
    ours = bootstrap_intervals(found, own_patients(found))["dice"]
    for interval, values in ((ours.classes["liver"], liver), (ours.mean, np.mean([liver, spleen], axis=0))):
        theirs = ttest_1samp(values, 0).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))


def test_the_interval_is_that_of_scipy_at_expanded_percentiles():
    values = np.random.default_rng(1).beta(8, 2, 25)
    found = evaluation(liver=values.tolist())
    ours = bootstrap_intervals(found, own_patients(found))["dice"].classes["liver"]
    # t(24) at 0.975 is 2.0639; times sqrt(25 / 24) it is 2.1064, beyond which lies 0.01758 of the normal distribution
    level = 1 - 2 * 0.01758
    drawn = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=0, confidence_level=level)
    theirs = drawn.confidence_interval
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
    assert (intervals.mean.low, intervals.mean.high) == (0.75, 0.75)


def test_there_is_no_interval_for_one_patient_or_a_class_without_values():
    found = evaluation(liver=[0.49, 0.51], spleen=[NAN, NAN])
    of_one = bootstrap_intervals(found, dict.fromkeys(found.cases, "p"))["dice"]
    assert math.isnan(of_one.mean.low)
    of_two = bootstrap_intervals(found, own_patients(found))["dice"]
    assert math.isnan(of_two.classes["spleen"].low)
    assert of_two.mean.low == pytest.approx(0.5 - 12.7062 * 0.01)


def test_the_seed_decides_the_draws():
    found = evaluation(liver=np.random.default_rng(0).random(12).tolist())
    patients = own_patients(found)
    first, again, other = (bootstrap_intervals(found, patients, seed=seed)["dice"].mean for seed in (0, 0, 1))
    assert first == again
    assert first != other
