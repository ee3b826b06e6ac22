"""Contract of every metric, and agreement with MONAI."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from voxelseg.metrics import METRICS, MaskPair

SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5), (0.7, 2.5, 1.3)]


def blobs(seed, shape=(11, 14, 17), threshold=0.03):
    """Smooth random mask that touches the image border in places."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0) > threshold


def score(name, reference, prediction, spacing_mm=(3.0, 1.0, 0.5)):
    return METRICS[name](MaskPair(reference, prediction, spacing_mm), tolerance_mm=1.0)


@pytest.mark.parametrize("name", METRICS)
def test_both_masks_empty_is_undefined(name):
    empty = np.zeros((3, 4, 5), bool)
    assert np.isnan(score(name, empty, empty))


@pytest.mark.parametrize("name", METRICS)
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


@pytest.mark.parametrize("name", METRICS)
def test_the_names_of_the_two_masks_do_not_matter(name):
    assert score(name, blobs(1), blobs(2)) == score(name, blobs(2), blobs(1))


@pytest.mark.parametrize("name", METRICS)
def test_masks_are_left_as_they_were(name):
    reference, prediction = blobs(1), blobs(2)
    kept = reference.copy(), prediction.copy()
    score(name, reference, prediction)
    assert np.array_equal(reference, kept[0])
    assert np.array_equal(prediction, kept[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_monai(seed, spacing_mm):
    monai = pytest.importorskip("monai.metrics")
    import torch

    reference, prediction = (
        blobs(seed),
        blobs(seed + 100, threshold=0.05) | (blobs(seed) & blobs(seed + 200, threshold=-0.05)),
    )
    as_batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    pair = MaskPair(reference, prediction, spacing_mm)
    expected = {
        "dice": monai.compute_dice(*as_batch, include_background=True),
        "surface_dice": monai.compute_surface_dice(
            *as_batch, class_thresholds=[1.0], include_background=True, spacing=spacing_mm
        ),
        "hd95_mm": monai.compute_hausdorff_distance(
            *as_batch, include_background=True, percentile=95, spacing=spacing_mm
        ),
    }
    for name, value in expected.items():
        assert METRICS[name](pair, tolerance_mm=1.0) == pytest.approx(float(value), abs=1e-5)
    assert 0.0 < METRICS["surface_dice"](pair, tolerance_mm=1.0) < 1.0
