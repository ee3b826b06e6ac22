import math

import numpy as np
import pytest
from rates import around

from voxelseg.statistics.paired_t import paired_t
from voxelseg.statistics.sample_size import fewest_for_signed_rank, patients_for_equivalence, patients_to_find
from voxelseg.statistics.signed_rank import signed_rank


def test_half_a_standard_deviation_takes_about_32_patients():
    # ((1.960 + 0.842) / 0.5)^2 = 31.4
    assert patients_to_find(0.01, 0.02, alpha=0.05) == pytest.approx(31.4, abs=0.05)
    assert patients_to_find(-0.01, 0.02, alpha=0.05) == patients_to_find(0.01, 0.02, alpha=0.05)
    assert math.isinf(patients_to_find(0.0, 0.02, alpha=0.05))


def test_no_difference_at_a_quarter_of_a_standard_deviation_takes_about_137_patients():
    # ((1.645 + 1.282) / 0.25)^2 = 137.0
    assert patients_for_equivalence(0.005, 0.02, alpha=0.05) == pytest.approx(137.0, abs=0.05)
    assert patients_for_equivalence(0.005, 0.0, alpha=0.05) == 0.0


def test_a_small_difference_within_the_margin_takes_more():
    # nearly all of the missing power is on one side: ((1.645 + 0.842) * 0.02 / 0.001)^2
    assert patients_for_equivalence(0.005, 0.02, alpha=0.05, difference=0.004) == pytest.approx(2473, abs=1)
    assert patients_for_equivalence(0.005, 0.02, alpha=0.05, difference=-0.004) == pytest.approx(2473, abs=1)
    assert math.isinf(patients_for_equivalence(0.005, 0.02, alpha=0.05, difference=0.005))


def test_with_so_many_patients_four_of_five_studies_find_it():
    num = math.ceil(patients_to_find(0.3, 1.0, alpha=0.05))  # 88
    values = 0.3 + np.random.default_rng(0).standard_normal((1000, num))
    assert sum(paired_t(one).p < 0.05 for one in values) in around(0.8, 1000)
    num = math.ceil(patients_for_equivalence(0.4, 1.0, alpha=0.05, difference=0.1))
    values = 0.1 + np.random.default_rng(1).standard_normal((1000, num))
    assert sum(paired_t(one).equivalence_p(0.4) < 0.05 for one in values) in around(0.8, 1000)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 6), (0.05 / 3, 7), (2 / 2**6, 7)])
def test_fewest_patients_are_those_with_whom_all_better_is_enough(alpha, fewest):
    assert fewest_for_signed_rank(alpha) == fewest
    assert signed_rank(np.arange(1.0, fewest + 1)).p < alpha
    assert signed_rank(np.arange(1.0, fewest)).p >= alpha
