import os
import signal

import pytest
from watching import Clock, events

from voxelseg.errors import StoppedError
from voxelseg.patches.loader import load_batches
from voxelseg.train.loop.budget import BUDGET_EPOCHS


def test_a_budget_is_kept_validation_included_and_ends_annealed(prepared, tmp_path):
    clock = Clock(step=1.0, validation=0.5)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=100.0, epochs=1, steps_per_epoch=1, clock=clock))
    trainer.fit()
    assert trainer.finished
    assert 98.0 <= clock.now - 1000.0 <= 100.0
    assert trainer.counters.elapsed_s == clock.now - 1000.0
    logged = events(tmp_path, "epoch")
    assert logged[-1]["lr"] < 0.04 * 1e-3
    assert logged[-1]["validation_dice"] is not None
    assert logged[-1]["epoch"] == BUDGET_EPOCHS - 1
    # A patch of validation takes 0.5 s, timed after the first step; two take 1 s, a hundredth of the budget. They are
    # seen at the end of an epoch (2 s) while validation has taken at most 3 %, so from 0.5 / 0.03 s, 1.5 / 0.03 s and
    # 2.5 / 0.03 s on, and at the very end.
    validated = [one["elapsed_s"] for one in logged if one["validation_dice"] is not None]
    assert validated == pytest.approx([19.5, 52.5, 84.5, 99.5], abs=1.1)
    rates = [one["lr"] for one in logged]
    assert rates == sorted(rates, reverse=True)


def test_a_short_budget_is_not_spent_on_validation(prepared, tmp_path):
    clock = Clock(step=0.5, validation=5.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=19.0, clock=clock))
    trainer.fit()
    # One patch to know its time, one of the two at the end; 9 s are left for steps.
    assert trainer.counters.step == 18
    assert clock.now - 1000.0 == 19.0
    logged = events(tmp_path, "epoch")
    assert logged[-1]["lr"] < 1e-4
    assert [one["validation_dice"] is not None for one in logged] == [False] * (len(logged) - 1) + [True]


def test_a_budget_that_one_step_uses_up_has_no_time_for_validation(prepared, tmp_path):
    clock = Clock(step=15.0, validation=4.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=20.0, clock=clock))
    trainer.fit()
    assert clock.now - 1000.0 == 15.0
    assert events(tmp_path, "epoch")[-1]["validation_dice"] is None


def test_a_validation_takes_a_hundredth_of_the_budget_and_first_patches(prepared, tmp_path):
    clock = Clock(step=1.0, validation=1.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=300.0, validation_patches=8, clock=clock))
    seen = []
    read = trainer.watch.validation._patches
    trainer.watch.validation._patches = lambda count: (seen.append(count), read(count))[1]
    trainer.fit()
    assert seen[0] == 1  # to know how long one takes
    assert set(seen[1:]) == {3}
    assert clock.now - 1000.0 <= 300.0


def test_validation_of_a_training_by_epochs_does_not_depend_on_time(prepared, tmp_path):
    clock = Clock(step=1.0, validation=100.0)
    clock.watch(prepared.trainer(tmp_path, epochs=3, steps_per_epoch=2, clock=clock)).fit()
    assert all(one["validation_dice"] is not None for one in events(tmp_path, "epoch"))
    assert clock.now - 1000.0 == 3 * (2 * 1.0 + 2 * 100.0)


def test_the_rate_follows_time_when_steps_slow_down(prepared, tmp_path):
    clock = Clock(step=1.0)
    trainer = clock.watch(
        prepared.trainer(tmp_path, budget_s=100.0, schedule="poly", poly_power=1.0, validation_patches=0, clock=clock)
    )
    rates = {}

    def slow_down(state):
        rates[state.elapsed_s] = trainer.stepper.optimizer.param_groups[0]["lr"]
        if state.elapsed_s == 50.0:
            clock.step = 10.0

    trainer.on_progress = slow_down
    trainer.fit()
    assert rates[50.0] == pytest.approx(1e-3 * (1 - 0.49))  # the step that ended at 50 s began at 49 s
    assert rates[60.0] == pytest.approx(1e-3 * (1 - 0.50))
    assert rates[100.0] == pytest.approx(1e-3 * (1 - 0.90))
    assert clock.now == 1100.0


def test_waiting_for_the_first_batch_counts_as_time_but_not_as_a_step(prepared, tmp_path, monkeypatch):
    clock = Clock(step=1.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=100.0, validation_patches=0, clock=clock))

    def slowly_starting(*arguments, **options):
        batches = load_batches(*arguments, **options)
        clock.now += 40.0
        yield from batches

    monkeypatch.setattr("voxelseg.train.loop.trainer.load_batches", slowly_starting)
    trainer.fit()
    assert trainer.counters.step == 60  # 40 s of waiting, 60 steps of 1 s, and none that does not fit


def test_a_step_that_waits_for_its_batch_is_as_long_as_both(prepared, tmp_path, monkeypatch):
    clock = Clock(step=1.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=100.0, validation_patches=0, clock=clock))

    def slow(*arguments, **options):
        for batch in load_batches(*arguments, **options):
            clock.now += 6.0
            yield batch

    monkeypatch.setattr("voxelseg.train.loop.trainer.load_batches", slow)
    trainer.fit()
    assert trainer.counters.step == 14  # of 7 s
    assert clock.now - 1000.0 == 98.0


def test_a_budget_goes_on_where_it_was_stopped(prepared, tmp_path):
    clock = Clock(step=1.0)
    first = clock.watch(prepared.trainer(tmp_path, budget_s=60.0, validation_patches=0, clock=clock))
    first.on_progress = lambda state: os.kill(os.getpid(), signal.SIGINT) if state.step == 20 else None
    with pytest.raises(StoppedError):
        first.fit()
    clock.now += 5000.0  # the night in between
    second = clock.watch(prepared.trainer(tmp_path, budget_s=60.0, validation_patches=0, clock=clock))
    second.load_state()
    assert second.counters.elapsed_s == 21.0
    second.fit()
    assert second.counters.step == 60


def test_steps_longer_than_an_epoch_of_the_budget_end_several_at_once(prepared, tmp_path):
    clock = Clock(step=30.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=100.0, validation_patches=0, clock=clock))
    trainer.fit()
    assert trainer.counters.step == 3
    assert [one["epoch"] for one in events(tmp_path, "epoch")] == [0, 15, 30]


def test_time_left_is_told_for_budgets_and_for_epochs(prepared, tmp_path):
    for settings, expected in (
        ({"budget_s": 10.0}, [9.0, 8.0]),
        ({"epochs": 2, "steps_per_epoch": 5}, [9.0, 8.0]),
    ):
        clock, left = Clock(step=1.0), []
        trainer = prepared.trainer(tmp_path / str(len(settings)), validation_patches=0, clock=clock, **settings)
        trainer.on_progress = lambda state, left=left: left.append(state.left_s)
        clock.watch(trainer).fit()
        assert left[:2] == pytest.approx(expected)
        assert left[-1] == 0.0
