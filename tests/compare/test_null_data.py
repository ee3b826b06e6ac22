"""Data without any difference: how often a comparison finds one nevertheless."""

import numpy as np
import pytest
from scipy.stats import binom
from tables import of_arrays

from voxelseg.compare.comparison import compare
from voxelseg.compare.settings import CompareSettings

SETTINGS = CompareSettings(resamples=400)


def most(num, rate=0.05):
    """Wrong verdicts that are hardly ever exceeded in `num` comparisons."""
    return int(binom.ppf(0.999, num, rate))


def comparison(rng, *, many, patients, scans, runs=1, seed_std=0.0, lead=0.0, spread=0.02):
    """Contestants on `scans` (fewest, most) of each patient that are much alike; the first is better by `lead`."""
    whose = np.repeat(np.arange(patients), rng.integers(scans[0], scans[1] + 1, patients))
    scores = 0.8 + spread * rng.standard_normal((many, 1, patients))[:, :, whose]
    scores = scores + 0.003 * rng.standard_normal((many, runs, len(whose)))
    scores = scores + seed_std * rng.standard_normal((many, runs, 1))
    scores[0] += lead
    named = dict(zip("abcdefghij", scores, strict=False))
    return compare([of_arrays(patients=whose.tolist(), **named)], SETTINGS).primary


def wrong_verdicts(num, verdicts=("better", "worse"), **about):
    rng = np.random.default_rng(0)
    found = [comparison(rng, **about) for _ in range(num)]
    return sum(any(pair.verdict in verdicts for pair in one.pairs) for one in found)


@pytest.mark.parametrize(("many", "patients", "scans"), [(2, 25, (2, 4)), (2, 10, (1, 4)), (4, 25, (2, 4))])
def test_contestants_that_are_alike_are_told_apart_in_one_of_twenty_comparisons_at_most(many, patients, scans):
    assert wrong_verdicts(150, many=many, patients=patients, scans=scans) <= most(150)


def test_a_difference_of_the_margin_is_called_none_in_one_of_twenty_comparisons_at_most():
    found = wrong_verdicts(150, ("equivalent",), many=2, patients=25, scans=(2, 4), lead=0.005, spread=0.005)
    assert found <= most(150)


@pytest.mark.parametrize("many", [2, 5])
def test_trainings_that_only_luck_makes_different_are_told_apart_in_one_of_twenty_at_most(many):
    found = wrong_verdicts(100, many=many, patients=25, scans=(1, 1), runs=3, seed_std=0.01, spread=0.005)
    assert found <= most(100)


def test_trainings_that_are_a_margin_apart_but_for_luck_are_called_equivalent_in_one_of_twenty_at_most():
    assert wrongly_equivalent(60, many=8) <= most(60)


def wrongly_equivalent(num, *, many):
    """Comparisons in which some of the contestants' two halves, truly a margin apart, are called equivalent."""
    rng, found = np.random.default_rng(1), 0
    for _ in range(num):
        shared = rng.beta(20, 3, 60)
        scores = shared + 0.002 * rng.standard_normal((many, 3, 1)) + 0.002 * rng.standard_normal((many, 3, 60))
        scores[::2] += SETTINGS.margin
        named = dict(zip("abcdefghij", scores, strict=False))
        pairs = compare([of_arrays(**named)], SETTINGS).primary.pairs
        apart = [one for one in pairs if (ord(one.ours) - ord(one.theirs)) % 2]
        found += any(one.verdict == "equivalent" for one in apart)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scans", [(1, 1), (2, 4)])
@pytest.mark.parametrize("many", [2, 5])
def test_rates_lie_around_the_level(many, scans):
    found = wrong_verdicts(600, many=many, patients=30, scans=scans)
    assert 0.01 * 600 <= found <= most(600)


@pytest.mark.slow
@pytest.mark.parametrize(("many", "spread"), [(5, 0.02), (10, 0.005)])
def test_lucky_trainings_stay_below_the_level_whatever_patients_add(many, spread):
    found = wrong_verdicts(150, many=many, patients=60, scans=(1, 1), runs=3, seed_std=0.01, spread=spread)
    assert found <= most(150)


@pytest.mark.slow
def test_many_lucky_trainings_at_the_margin_stay_below_the_level():
    assert wrongly_equivalent(200, many=8) <= most(200)


@pytest.mark.slow
def test_a_difference_of_a_standard_deviation_is_found_nearly_always():
    assert wrong_verdicts(100, ("better",), many=2, patients=25, scans=(2, 4), lead=0.03) >= 90
