from dataclasses import replace

import numpy as np
import pytest
import torch
from pretexts import SmoothCrops

from voxelseg.pretrain.methods.views import TwoViews, ViewSettings, changed_view, draw_view

STILL = ViewSettings(flip=0, rotation90=0, scale=0, shift=0, noise=0, blur=0, blur_chance=0, cutout=0, cutout_chance=0)
IMAGE = np.random.default_rng(0).normal(3, 2, (2, 6, 8, 8)).astype(np.float32)


def change(**settings):
    return draw_view(STILL.model_copy(update=settings), 2, (6, 8, 8), np.random.default_rng(1))


def test_nothing_changes_if_everything_is_off():
    assert np.array_equal(changed_view(IMAGE, change()), IMAGE)


def test_flips_mirror_the_drawn_axes():
    drawn = change(flip=1)
    assert drawn.flips == (0, 1, 2)
    assert np.array_equal(changed_view(IMAGE, drawn), IMAGE[:, ::-1, ::-1, ::-1])


def test_quarter_turns_happen_only_in_planes_with_equal_sides():
    drawn = change(rotation90=1)
    assert drawn.plane == (1, 2)  # 8 x 8 of 6 x 8 x 8
    assert drawn.quarter_turns in (1, 2, 3)
    assert np.array_equal(changed_view(IMAGE, drawn), np.rot90(IMAGE, drawn.quarter_turns, (2, 3)))
    unequal = draw_view(STILL.model_copy(update={"rotation90": 1}), 1, (4, 6, 8), np.random.default_rng(0))
    assert unequal.quarter_turns == 0


def test_each_channel_is_scaled_and_shifted_by_its_own_numbers():
    drawn = replace(change(), factors=np.array([2.0, 1.0]), shifts=np.array([0.0, 0.5]))
    view = changed_view(IMAGE, drawn)
    np.testing.assert_allclose(view[0], 2 * IMAGE[0], rtol=1e-6)
    np.testing.assert_allclose(view[1], IMAGE[1] + 0.5 * IMAGE[1].std(), rtol=1e-5)


def test_factors_and_shifts_stay_within_what_the_settings_allow():
    settings = STILL.model_copy(update={"scale": 0.3, "shift": 0.7})
    draws = [draw_view(settings, 50, (6, 8, 8), np.random.default_rng(seed)) for seed in range(10)]
    factors, shifts = (np.concatenate([getattr(one, name) for one in draws]) for name in ("factors", "shifts"))
    assert 0.7 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.3
    assert -0.7 <= shifts.min() < -0.6
    assert 0.6 < shifts.max() <= 0.7


def test_noise_has_the_drawn_share_of_the_crops_own_spread():
    added = changed_view(IMAGE, replace(change(), noise=0.1)) - IMAGE
    assert added.std() == pytest.approx(0.1 * IMAGE.std(), rel=0.1)


def test_a_constant_crop_stays_constant_under_noise_and_shift():
    flat = np.full((1, 6, 8, 8), 5.0, np.float32)
    drawn = draw_view(STILL.model_copy(update={"noise": 1.0, "shift": 1.0}), 1, (6, 8, 8), np.random.default_rng(0))
    assert np.array_equal(changed_view(flat, drawn), flat)


def test_blur_spreads_a_point_and_keeps_its_sum():
    point = np.zeros((1, 9, 9, 9), np.float32)
    point[0, 4, 4, 4] = 1
    view = changed_view(point, replace(change(), factors=np.ones(1), shifts=np.zeros(1), blur=1.0))
    assert view[0, 4, 4, 4] < 0.1
    assert view.sum() == pytest.approx(1, abs=1e-3)


def test_a_box_of_at_most_the_share_of_each_axis_becomes_the_mean():
    drawn = change(cutout=0.9, cutout_chance=1)
    assert drawn.box is not None
    view = changed_view(IMAGE, drawn)
    changed = view != IMAGE
    sides = [part.stop - part.start for part in drawn.box]
    assert all(side <= round(0.9 * size) for side, size in zip(sides, (6, 8, 8), strict=True))
    assert changed.sum() == 2 * np.prod(sides)
    np.testing.assert_allclose(view[0][drawn.box], IMAGE[0].mean(), rtol=1e-6)


def test_both_views_come_from_overlapping_crops_and_are_what_the_generator_says():
    crops = SmoothCrops((6, 8, 8), scan_number=3)
    still = TwoViews(STILL)(crops, np.random.default_rng(0))
    assert torch.equal(still["first"][:, :-2, :-2, :-2], still["second"][:, 2:, 2:, 2:])
    one, again = (TwoViews(ViewSettings())(crops, np.random.default_rng(5)) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in ("first", "second"))
    assert one["first"].dtype == torch.float32
    assert one["scan"] == 3
