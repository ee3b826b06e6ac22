import numpy as np
import pytest

from voxelseg.metrics import reliability as module
from voxelseg.metrics.reliability import BINS, judged_box, reliability


def test_voxels_are_summed_by_bins_of_equal_width():
    found = reliability(np.array([0.0, 0.01, 0.5, 0.52, 1.0]), np.array([False, True, True, False, True]))
    # 15 bins: 0.5 and 0.52 times 15 are 7.5 and 7.8; 1 belongs to the last one.
    assert found.counts.tolist() == [2, *[0] * 6, 2, *[0] * 6, 1]
    assert found.positives.tolist() == [1, *[0] * 6, 1, *[0] * 6, 1]
    assert found.probabilities[[0, 7, 14]].tolist() == pytest.approx([0.01, 1.02, 1.0])
    assert found.squared_errors == pytest.approx(0.99**2 + 0.5**2 + 0.52**2)


def test_parts_add_up_to_the_whole(monkeypatch):
    generator = np.random.default_rng(0)
    probabilities, of_class = generator.random((3, 4, 5), np.float32), generator.random((3, 4, 5)) < 0.3
    whole = reliability(probabilities, of_class)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    parts = reliability(probabilities, of_class)
    assert (parts.counts.sum(), parts.positives.sum()) == (60, of_class.sum())
    for name in ("counts", "positives", "probabilities", "squared_errors"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))


def test_the_box_of_the_reference_is_widened_by_ten_millimetres_within_the_image():
    found = (slice(5, 7), slice(15, 20), slice(40, 44))
    # 10 mm are 4 voxels of 3 mm, rounded up, 10 of 1 mm, 20 of 0.5 mm.
    assert judged_box(found, (9, 40, 50), (3.0, 1.0, 0.5)) == (slice(1, 9), slice(5, 30), slice(20, 50))


def test_without_reference_the_whole_image_is_judged():
    assert judged_box((slice(0, 0),) * 3, (9, 40, 50), (3.0, 1.0, 0.5)) == (slice(0, 9), slice(0, 40), slice(0, 50))


def test_there_are_as_many_bins_as_the_definition_says():
    assert reliability(np.zeros(1), np.zeros(1, bool)).counts.size == BINS == 15
