import math

import pytest

from voxelseg.train.config import TrainConfig
from voxelseg.train.schedule import Plateau, lr_factor


@pytest.mark.parametrize(
    ("schedule", "at_half", "at_end"),
    [("poly", 0.5**0.9, 0.0), ("cosine", 0.5, 0.0), ("constant", 1.0, 1.0), ("plateau", 1.0, 1.0)],
)
def test_schedules_begin_at_the_peak_and_pass_these_points(schedule, at_half, at_end):
    config = TrainConfig(schedule=schedule)
    assert lr_factor(config, 0.0) == 1.0
    assert lr_factor(config, 0.5) == pytest.approx(at_half)
    assert lr_factor(config, 1.0) == pytest.approx(at_end, abs=1e-12)


def test_cosine_at_a_quarter_is_half_of_one_plus_cosine_of_45_degrees():
    assert lr_factor(TrainConfig(schedule="cosine"), 0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_power_one_is_a_straight_line():
    config = TrainConfig(schedule="poly", poly_power=1.0)
    assert [lr_factor(config, x) for x in (0.0, 0.25, 0.9)] == pytest.approx([1.0, 0.75, 0.1])


def test_warmup_rises_linearly_and_the_schedule_takes_the_rest():
    config = TrainConfig(schedule="poly", poly_power=1.0, warmup=0.2)
    assert lr_factor(config, 0.0) == 1e-3  # never nothing at all
    assert lr_factor(config, 0.1) == pytest.approx(0.5)
    assert lr_factor(config, 0.2) == pytest.approx(1.0)
    assert lr_factor(config, 0.6) == pytest.approx(0.5)  # half of what is left after the warm-up


def test_progress_beyond_the_ends_counts_as_the_ends():
    config = TrainConfig(schedule="poly")
    assert lr_factor(config, -0.5) == 1.0
    assert lr_factor(config, 1.5) == 0.0


def test_plateau_halves_after_patience_epochs_without_a_better_loss():
    plateau = Plateau(TrainConfig(schedule="plateau", plateau_patience=2))
    factors = []
    for loss in (1.0, 0.5, 0.5, 0.5, 0.49995, 0.6, 0.4):  # 0.49995 is not better by 1e-4
        plateau.update(loss)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_restored_plateau_goes_on_counting():
    config = TrainConfig(schedule="plateau", plateau_patience=2)
    first, second = Plateau(config), Plateau(config)
    for loss in (1.0, 1.0):
        first.update(loss)
    second.restore(first.state())
    second.update(1.0)
    assert second.factor == 0.5
