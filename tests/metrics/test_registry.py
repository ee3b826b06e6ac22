"""Contract of every metric."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from voxelseg.metrics import METRICS, MaskPair
from voxelseg.metrics.reliability import reliability

SYMMETRIC = METRICS.keys() - {"sensitivity", "precision", "lesion_f1", "ece", "brier"}
BOUNDED = METRICS.keys() - {"volume_error_ml", "ece", "brier"}
"""Those that have their worst value when exactly one mask is empty: there is no worst volume, and probabilities may be
right where the mask is not."""


def blobs(seed, shape=(11, 14, 17), threshold=0.03):
    """Smooth random mask that touches the image border in places."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0) > threshold


def score(name, reference, prediction, spacing_mm=(3.0, 1.0, 0.5)):
    """Of a prediction that is sure of each voxel."""
    sure = reliability(prediction.astype(np.float32), reference)
    return METRICS[name](MaskPair(reference, prediction, spacing_mm, reliability=sure), tolerance_mm=1.0)


@pytest.mark.parametrize("name", METRICS)
def test_both_masks_empty_is_undefined(name):
    empty = np.zeros((3, 4, 5), bool)
    assert np.isnan(score(name, empty, empty))


@pytest.mark.parametrize("name", sorted(BOUNDED))
def test_exactly_one_empty_mask_is_no_better_than_any_prediction(name):
    reference = blobs(0)
    sign = 1 if METRICS[name].higher_is_better else -1
    worst = [score(name, reference, np.zeros_like(reference)), score(name, np.zeros_like(reference), reference)]
    others = [score(name, reference, blobs(seed)) for seed in range(5)] + [score(name, reference, ~reference)]
    assert max(sign * value for value in worst) <= min(sign * value for value in others)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_is_no_worse_than_any_other(name):
    reference = blobs(0)
    sign = 1 if METRICS[name].higher_is_better else -1
    perfect = sign * score(name, reference, reference.copy())
    assert all(perfect >= sign * score(name, reference, blobs(seed)) for seed in range(1, 5))


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_the_names_of_the_two_masks_do_not_matter(name):
    assert score(name, blobs(1), blobs(2)) == pytest.approx(score(name, blobs(2), blobs(1)), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_has_the_best_value(name):
    assert score(name, blobs(0), blobs(0)) == METRICS[name].best


@pytest.mark.parametrize("name", METRICS)
def test_no_value_is_beyond_the_best_and_the_worst(name):
    low, high = sorted((METRICS[name].best, METRICS[name].worst))
    empty = np.zeros_like(blobs(0))
    for prediction in (*map(blobs, range(1, 5)), ~blobs(0), empty):
        assert low <= score(name, blobs(0), prediction) <= high


@pytest.mark.parametrize("name", METRICS)
def test_masks_are_left_as_they_were(name):
    reference, prediction = blobs(1), blobs(2)
    kept = reference.copy(), prediction.copy()
    score(name, reference, prediction)
    assert np.array_equal(reference, kept[0])
    assert np.array_equal(prediction, kept[1])


def test_the_page_on_evaluating_explains_every_metric():
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "evaluating.md"
    rows = [line.split("|") for line in page.read_text().splitlines() if line.startswith("| `")]
    explained = {row[1].strip(" `"): row[3].strip() for row in rows if len(row) > 5}
    assert explained == {key: "higher" if metric.higher_is_better else "lower" for key, metric in METRICS.items()}
