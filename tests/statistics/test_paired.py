import math

import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.statistics.paired import difference_in_words, over_seeds, paired_difference, paired_over_seeds


def test_paired_difference_is_ours_minus_theirs_over_cases_that_both_have():
    ours = {"a": 0.9, "b": 0.8, "c": 0.7, "d": math.nan}
    theirs = {"c": 0.7, "b": 0.7, "a": 0.7, "d": 0.5}
    found = paired_difference(ours, theirs)
    assert found.mean == pytest.approx(0.1)  # (0.2 + 0.1 + 0) / 3
    assert (found.num_better, found.num_worse, found.num_cases) == (2, 0, 3)
    # the differences' standard deviation is 0.1, and Student's t of two degrees of freedom 4.3027
    assert (found.low, found.high) == pytest.approx(
        (0.1 - 4.3027 * 0.1 / 3**0.5, 0.1 + 4.3027 * 0.1 / 3**0.5), abs=1e-5
    )
    assert found.wilcoxon_p == pytest.approx(0.5)  # two non-zero differences of one sign: 2 * (1/2)^2


def test_equal_differences_have_an_interval_of_no_width_and_the_smallest_p_value():
    ours = {str(case): 0.5 for case in range(6)}
    theirs = {str(case): 0.25 for case in range(6)}
    found = paired_difference(ours, theirs)
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)
    assert found.wilcoxon_p == pytest.approx(2 / 2**6)


def test_the_interval_of_two_cases_is_as_wide_as_students_t():
    # differences 0 and 1: standard error 0.5, Student's t of one degree of freedom 12.7062
    found = paired_difference({"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.5})
    assert (found.low, found.mean, found.high) == pytest.approx((0.5 - 6.3531, 0.5, 0.5 + 6.3531))


def test_no_difference_gives_p_of_one():
    assert paired_difference({"a": 0.5}, {"a": 0.5}).wilcoxon_p == 1.0


def test_interval_is_the_same_on_every_run():
    rng = np.random.default_rng(1)
    ours, theirs = (dict(enumerate(rng.random(9))) for _ in range(2))
    assert paired_difference(ours, theirs) == paired_difference(ours, theirs)


def test_scores_of_different_cases_are_not_compared():
    with pytest.raises(DataError, match=r"different cases: \['b'\]"):
        paired_difference({"a": 0.5}, {"a": 0.5, "b": 0.5})
    with pytest.raises(DataError, match="no case has a score on both sides"):
        paired_difference({"a": 0.5}, {"a": math.nan})


def test_cases_of_a_patient_are_drawn_and_tested_together():
    # patient p has the differences 0.1 and 0.3, patient q 0.4: their means are 0.2 and 0.4, that of the cases 0.8 / 3
    ours, theirs = {"a": 0.1, "b": 0.3, "c": 0.4}, dict.fromkeys("abc", 0.0)
    found = paired_difference(ours, theirs, groups={"a": "p", "b": "p", "c": "q"})
    assert found.mean == pytest.approx(0.8 / 3)
    # residuals 0.4 - 2 * 0.8 / 3 and 0.4 - 0.8 / 3: standard error sqrt(2 * 2 * 0.1333^2) / 3 = 0.0889, t 12.7062
    assert found.high - found.mean == pytest.approx(12.7062 * 0.8 / 9)
    assert found.wilcoxon_p == pytest.approx(0.5)  # two patients, both better: 2 * (1/2)^2
    assert (found.num_better, found.num_cases) == (3, 3)


def test_cases_of_one_patient_have_no_interval():
    found = paired_difference({"a": 0.5, "b": 0.6}, {"a": 0.4, "b": 0.4}, groups={"a": "p", "b": "p"})
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.excludes_zero
    assert difference_in_words(found, digits=2) == "+0.15 [–, –]"


def test_a_case_counts_with_its_mean_over_the_seeds_that_both_sides_have():
    ours = {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.7, "b": 0.7}, 2: {"a": 0.0, "b": 0.0}}
    theirs = {0: {"a": 0.8, "b": 0.8}, 1: {"a": 0.6, "b": 0.6}}
    found = paired_over_seeds(ours, theirs)
    assert list(found) == ["all seeds", "seed 0", "seed 1"]
    assert found["all seeds"].mean == pytest.approx(0.05)  # (0.1 + 0) / 2
    assert found["seed 1"].mean == pytest.approx(0.1)
    assert paired_over_seeds(ours, {3: {"a": 0.5, "b": 0.5}}) == {}


def test_the_mean_over_seeds_is_undefined_where_one_seed_is():
    found = over_seeds([{"a": 0.5, "b": 0.5}, {"a": 1.0, "b": math.nan}])
    assert found["a"] == 0.75
    assert math.isnan(found["b"])


def test_a_difference_is_written_with_its_interval():
    found = paired_difference({"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.5})
    assert difference_in_words(found) == "+0.5000 [-5.8531, +6.8531]"
