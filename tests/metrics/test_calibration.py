import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from voxelseg.metrics.calibration import brier, ece
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.reliability import reliability


def pair(probabilities, of_class, prediction=None):
    probabilities, of_class = (np.asarray(one).reshape(1, 1, -1) for one in (probabilities, of_class))
    predicted = probabilities > 0.5 if prediction is None else np.asarray(prediction).reshape(1, 1, -1)
    return MaskPair(of_class.astype(bool), predicted, (3.0, 1.0, 0.5), reliability=reliability(probabilities, of_class))


def test_ece_is_the_mean_gap_between_what_is_said_and_what_is_there():
    # Bin of 0.7: four voxels, two of the class: gap 0.2. Bin of 0.1: one voxel, not of it: gap 0.1.
    found = ece(pair([0.7, 0.7, 0.7, 0.7, 0.1], [True, True, False, False, False]))
    assert found == pytest.approx((4 * 0.2 + 1 * 0.1) / 5)


def test_brier_is_the_mean_squared_error():
    found = brier(pair([0.7, 0.7, 0.1], [True, False, False]))
    assert found == pytest.approx((0.3**2 + 0.7**2 + 0.1**2) / 3)


def test_probabilities_that_come_true_have_no_calibration_error_but_a_brier_score():
    masks = pair([0.75] * 4 + [0.0] * 2, [True, True, True, False, False, False])
    assert ece(masks) == pytest.approx(0.0)
    assert brier(masks) == pytest.approx((3 * 0.25**2 + 0.75**2) / 6)


def test_both_masks_empty_is_undefined_and_one_is_not():
    assert math.isnan(ece(pair([0.2, 0.4], [False, False])))
    assert math.isnan(brier(pair([0.2, 0.4], [False, False])))
    assert ece(pair([0.2, 0.4], [True, False])) == pytest.approx((0.8 + 0.4) / 2)
    assert brier(pair([0.2, 0.6], [False, False])) == pytest.approx((0.04 + 0.36) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_both_agree_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.random(500) ** 2
    of_class = generator.random(500) < probabilities**1.3
    share, mean = calibration_curve(of_class, probabilities, n_bins=15, strategy="uniform")
    bins = np.histogram(probabilities, bins=np.linspace(0, 1, 16))[0]
    expected = (np.abs(share - mean) * bins[bins > 0]).sum() / 500
    assert ece(pair(probabilities, of_class)) == pytest.approx(expected)
    assert brier(pair(probabilities, of_class)) == pytest.approx(brier_score_loss(of_class, probabilities))
