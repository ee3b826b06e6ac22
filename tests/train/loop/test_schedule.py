import math

import pytest

from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.schedule import Best, Plateau, lr_factor


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
    for epoch, loss in enumerate((1.0, 0.5, 0.5, 0.5, 0.49995, 0.6, 0.4)):  # 0.49995 is not better by 1e-4
        plateau.update(loss, epoch)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_restored_plateau_goes_on_counting():
    config = TrainConfig(schedule="plateau", plateau_patience=2)
    first, second = Plateau(config), Plateau(config)
    for epoch in (0, 1):
        first.update(1.0, epoch)
    second.restore(first.state())
    second.update(1.0, 2)
    assert second.factor == 0.5


def test_patience_counts_epochs_also_where_validation_is_rare():
    plateau = Plateau(TrainConfig(schedule="plateau", plateau_patience=4))
    factors = []
    for epoch in (2, 5, 8, 11):
        plateau.update(1.0, epoch)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 0.5, 0.5]  # 8 is 6 epochs after the best one, 11 is 3 after the fall


def test_the_best_is_the_highest_dice_and_its_epoch_is_known():
    best = Best(TrainConfig())
    found = [best.update(9.0, dice, epoch) for epoch, dice in enumerate((None, 0.0, 0.3, 0.3, math.nan, 0.2))]
    assert found == [False, True, True, False, False, False]
    assert (best.value, best.epoch) == (0.3, 2)


def test_the_best_may_be_the_lowest_loss():
    best = Best(TrainConfig(watch="loss"))
    assert [best.update(loss, 0.5, epoch) for epoch, loss in enumerate((2.0, 3.0, math.nan, 1.0))] == [
        *(True, False, False, True),
    ]


def test_the_best_is_too_old_after_the_patience_and_never_without_one():
    best, endless = Best(TrainConfig(early_stopping=2)), Best(TrainConfig())
    for each in (best, endless):
        each.update(1.0, 0.5, 3)
    assert [best.is_too_old(epoch) for epoch in (3, 4, 5)] == [False, False, True]
    assert not endless.is_too_old(10_000)
    assert [Best(TrainConfig(early_stopping=2)).is_too_old(epoch) for epoch in (0, 1)] == [False, True]  # none at all


def test_a_restored_best_is_the_same():
    first, second = Best(TrainConfig(early_stopping=1)), Best(TrainConfig(early_stopping=1))
    first.update(1.0, 0.5, 3)
    second.restore(first.state())
    assert not second.update(1.0, 0.5, 4)
    assert second.is_too_old(4)
