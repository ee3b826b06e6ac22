import math
import os
import signal

import pytest
import torch
from watching import Clock, events, same, weights_of

from voxelseg.errors import ConfigError, StoppedError, VoxelsegError
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.train.loop.state import STATE_FILE, write_state
from voxelseg.train.loop.trainer import SAVE_EVERY_S, SAVING_SHARE
from voxelseg.train.machines.distributed import Processes

# ---------------------------------------------------------------------------------------------------------- epochs


def test_epochs_mode_takes_exactly_that_many_steps_and_logs_every_epoch(prepared, tmp_path):
    seen = []
    trainer = prepared.trainer(tmp_path, epochs=3, steps_per_epoch=2, on_progress=seen.append)
    trainer.fit()
    assert trainer.finished
    assert trainer.counters.step == 6
    assert [state.share for state in seen] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert [one["event"] for one in events(tmp_path)] == ["start", "epoch", "epoch", "epoch", "end"]
    assert [(one["epoch"], one["step"]) for one in events(tmp_path, "epoch")] == [(0, 2), (1, 4), (2, 6)]
    last = events(tmp_path, "epoch")[-1]
    assert set(last["validation_dice"]) == {"ball", "rod"}
    assert last["lr"] == pytest.approx(1e-3 * (1 / 6) ** 0.9)  # the last of 6 steps begins with 5 done


def test_the_same_training_twice_gives_the_same_bits(prepared, tmp_path):
    trainers = [
        prepared.trainer(tmp_path / name, augmentation=AugmentationConfig(), unet=prepared.unet()) for name in "ab"
    ]
    for trainer in trainers:
        trainer.fit()
    assert same(*map(weights_of, trainers))


def test_loss_falls_when_one_patch_is_seen_again_and_again(prepared, tmp_path):
    trainer = prepared.trainer(
        tmp_path, epochs=1, steps_per_epoch=30, lr=1e-2, schedule="constant", unet=prepared.unet()
    )
    place = trainer.watch.validation.places[0]
    trainer.source = trainer.source.__class__(**{**vars(trainer.source), "cases": [place.case]})
    losses = []
    trainer.on_progress = lambda state: losses.append(state.loss)
    trainer.fit()
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "lr": 1e-2},
        {"ema": 0.9},
        {"schedule": "plateau", "plateau_patience": 1},
        {"schedule": "cosine", "warmup": 0.3},
        {"gradient_clip": 0.0},
        {"betas": (0.5, 0.9)},
        {"batch_dice": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_each_setting_changes_the_weights_and_continues_bit_for_bit(prepared, tmp_path, settings):
    plain = prepared.trainer(tmp_path / "plain", optimizer="adamw", gradient_clip=0.01)
    plain.fit()
    settings = {"gradient_clip": 0.01, **settings}
    whole = prepared.trainer(tmp_path / "whole", **settings)
    whole.fit()
    assert not same(weights_of(plain), weights_of(whole))
    first = prepared.trainer(tmp_path / "parts", **settings)
    first.on_progress = lambda state: os.kill(os.getpid(), signal.SIGINT) if state.step == 1 else None
    with pytest.raises(StoppedError):
        first.fit()
    second = prepared.trainer(tmp_path / "parts", **settings)
    assert second.load_state()
    second.fit()
    assert same(weights_of(whole), weights_of(second))


# ------------------------------------------------------------------------------------------------------ continuing


def test_ctrl_c_saves_the_state_and_the_same_bits_come_out_afterwards(prepared, tmp_path):
    whole = prepared.trainer(tmp_path / "whole", augmentation=AugmentationConfig())
    whole.fit()
    for stop_after in (2, 3):  # at the end of an epoch and within one
        folder = tmp_path / f"stopped_{stop_after}"
        first = prepared.trainer(folder, augmentation=AugmentationConfig())
        first.on_progress = lambda state, at=stop_after: (
            os.kill(os.getpid(), signal.SIGINT) if state.step == at - 1 else None
        )
        with pytest.raises(StoppedError, match="The same command continues"):
            first.fit()
        assert first.counters.step == stop_after
        second = prepared.trainer(folder, augmentation=AugmentationConfig())
        assert second.load_state()
        second.fit()
        assert same(weights_of(whole), weights_of(second))
        losses = [[one["loss"] for one in events(where, "epoch")] for where in (tmp_path / "whole", folder)]
        assert losses[0] == losses[1]
        kinds = [one["event"] for one in events(folder)]
        assert (kinds.count("stop"), kinds.count("resume"), kinds.count("epoch"), kinds[-1]) == (1, 1, 3, "end")


def test_when_a_training_is_stopped_all_processes_wait_until_the_state_is_written(prepared, tmp_path):
    written = []

    class Watched(Processes):
        def barrier(self):
            written.append([(tmp_path / STATE_FILE).is_file(), events(tmp_path)[-1]["event"]])

    trainer = prepared.trainer(tmp_path, processes=Watched(torch.device("cpu")))
    trainer.on_progress = lambda state: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(StoppedError):
        trainer.fit()
    assert written == [[True, "stop"]]


def test_ctrl_c_works_again_after_training(prepared, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    prepared.trainer(tmp_path).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_killed_run_logged_after_its_last_state_is_dropped(prepared, tmp_path):
    whole = prepared.trainer(tmp_path / "whole")
    whole.fit()

    class KilledError(BaseException):
        pass

    def kill(state):
        if state.step == 4:
            raise KilledError

    folder = tmp_path / "killed"
    first = prepared.trainer(folder, on_progress=kill)
    with pytest.raises(KilledError):
        first.fit()
    first.log.write("epoch", epoch=2, step=6, loss=9.9)  # logged, but killed before the state was written
    second = prepared.trainer(folder)
    second.load_state()
    second.fit()
    assert same(weights_of(whole), weights_of(second))
    assert [one["epoch"] for one in events(folder, "epoch")] == [0, 1, 2]
    assert events(folder, "epoch")[-1]["loss"] != 9.9


def test_a_log_without_any_state_begins_anew(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=1)
    trainer.log.write("epoch", epoch=0, step=2, loss=9.9)
    assert not trainer.load_state()
    trainer.fit()
    assert [one["epoch"] for one in events(tmp_path, "epoch")] == [0]


def test_a_finished_training_takes_no_further_step(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=1)
    trainer.fit()
    again = prepared.trainer(tmp_path, epochs=1)
    again.load_state()
    again.fit()
    assert again.counters.step == trainer.counters.step
    assert [one["event"] for one in events(tmp_path)].count("end") == 1


def test_long_epochs_are_saved_in_between(prepared, tmp_path):
    clock = Clock(step=SAVE_EVERY_S / 2 + 1)
    trainer = clock.watch(prepared.trainer(tmp_path, epochs=1, steps_per_epoch=5, clock=clock))
    saved = []
    save, trainer.save_state = trainer.save_state, lambda: (saved.append(trainer.counters.step), save())
    trainer.fit()
    assert saved == [2, 4, 5]


def test_saving_takes_little_of_the_time_where_epochs_are_a_step(prepared, tmp_path, monkeypatch):
    clock, saved = Clock(step=1.0), []
    settings = {"epochs": 100, "steps_per_epoch": 1, "validate_every": 50}
    trainer = clock.watch(prepared.trainer(tmp_path, **settings, clock=clock))

    def write(path, state):
        saved.append(state["counters"]["step"])
        clock.now += 1.0
        write_state(path, state)

    monkeypatch.setattr("voxelseg.train.loop.trainer.write_state", write)
    trainer.fit()
    assert SAVING_SHARE == 1 / 20
    assert saved == [1, 21, 41, 50, 70, 90, 100]  # 50 and 100 are validated


# ------------------------------------------------------------------------------------------- best and early stopping


def scripted(trainer, scores):
    """`trainer` whose running validation says (loss, Dice of both classes) in turn."""
    results = iter(scores)

    def validation(*_, **__):
        loss, dice = next(results)
        return loss, {"ball": dice, "rod": dice}

    validation.places = trainer.watch.validation.places
    trainer.watch.validation = validation
    return trainer


def test_the_best_weights_are_kept_when_the_dice_rises(prepared, tmp_path):
    kept = []
    trainer = prepared.trainer(tmp_path, epochs=5, on_best=lambda trainer: kept.append(weights_of(trainer)))
    scripted(trainer, [(1, math.nan), (1, 0.5), (0.1, 0.5), (2, 0.6), (0, 0.4)])
    seen = []
    trainer.on_progress = lambda state: seen.append((state.step, weights_of(trainer)))
    trainer.fit()
    # A Dice that no class has is no best one, nor is an equal one: epochs 1 and 3, which end with steps 4 and 8.
    assert [one["best"] for one in events(tmp_path, "epoch")] == [False, True, False, True, False]
    assert all(map(same, kept, [weights for step, weights in seen if step in (4, 8)]))
    assert (trainer.watch.best.value, trainer.watch.best.epoch) == (0.6, 3)


def test_the_best_may_be_that_of_the_loss_and_need_not_be_kept(prepared, tmp_path):
    kept = []
    trainer = prepared.trainer(
        tmp_path, epochs=3, watch="loss", save_best=False, on_best=lambda trainer: kept.append(trainer)
    )
    scripted(trainer, [(1, 0.1), (2, 0.9), (0.5, 0.1)]).fit()
    assert [one["best"] for one in events(tmp_path, "epoch")] == [True, False, True]
    assert not kept


def test_a_training_without_a_better_validation_for_its_patience_ends_and_says_so(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=9, early_stopping=2)
    scripted(trainer, [(0, 0.3), (0, 0.4), (0, 0.4), (0, 0.2), (0, 0.9)])
    left = []
    trainer.on_progress = lambda state: left.append(state.left_s)
    trainer.fit()
    assert trainer.counters.epoch == 4  # two after the best one, which is epoch 1
    assert left[-1] == 0
    assert [one["event"] for one in events(tmp_path)] == ["start", *["epoch"] * 4, "early_stop", "end"]
    assert events(tmp_path, "early_stop")[0]["best_epoch"] == 1
    again = prepared.trainer(tmp_path, epochs=9, early_stopping=2)
    again.load_state()
    again.fit()
    assert again.counters.step == 8
    assert [one["event"] for one in events(tmp_path)][-3:] == ["early_stop", "resume", "end"]


def test_an_early_stop_without_any_dice_names_no_best_epoch(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=9, early_stopping=2)
    scripted(trainer, [(0, math.nan)] * 3).fit()
    assert [one["best_epoch"] for one in events(tmp_path, "early_stop")] == [None]
    assert trainer.counters.epoch == 2


def test_validation_may_come_every_other_epoch_and_comes_at_the_end(prepared, tmp_path):
    prepared.trainer(tmp_path, epochs=5, validate_every=2).fit()
    validated = [one["validation_loss"] is not None for one in events(tmp_path, "epoch")]
    assert validated == [False, True, False, True, True]


@pytest.mark.parametrize("settings", [{"early_stopping": 3}, {"schedule": "plateau"}], ids=["early", "plateau"])
def test_what_goes_by_validation_needs_held_out_cases(prepared, tmp_path, settings):
    with pytest.raises(ConfigError, match=r"train\.(early_stopping|schedule=plateau): this fold holds out no cases"):
        prepared.trainer(tmp_path, validation_cases=[], **settings)


@pytest.mark.parametrize(
    ("device", "cores", "processes", "wanted", "found"),
    [
        ("cpu", 16, 1, None, 1),
        ("cuda", 16, 1, None, 8),
        ("cuda", 12, 2, None, 6),
        ("cuda", 1, 2, None, 1),
        ("cuda", 2, 1, 5, 5),
    ],
)
def test_no_more_processes_make_patches_than_there_are_cores(
    prepared, tmp_path, monkeypatch, device, cores, processes, wanted, found
):
    monkeypatch.setattr("voxelseg.train.loop.trainer.num_cores", lambda: cores)
    monkeypatch.setattr("voxelseg.train.loop.trainer.processes_here", lambda: processes)
    monkeypatch.setattr("voxelseg.train.loop.trainer.load_batches", lambda *_, **settings: settings["workers"])
    trainer = prepared.trainer(tmp_path, workers=wanted)
    trainer.device = torch.device(device)
    assert trainer._load_batches() == found


# --------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("where", ["loss", "gradients"])
def test_a_training_that_diverges_stops_with_the_reason_and_keeps_the_last_good_state(prepared, tmp_path, where):
    trainer = prepared.trainer(tmp_path, epochs=3, steps_per_epoch=2)

    def spoil(state):
        if state.step == 3:
            parameter = next(trainer.model.parameters())
            if where == "loss":
                parameter.data.fill_(math.nan)
            else:
                parameter.register_hook(lambda gradient: gradient * math.inf)

    trainer.on_progress = spoil
    reason = "loss became nan in step 4" if where == "loss" else "gradients' norm became (nan|inf) in step 4"
    # The batch of step 4 are the samples 6 and 7.
    cases = ", ".join(sorted(set(trainer.source.cases_of([6, 7]))))
    with pytest.raises(
        VoxelsegError,
        match=rf"{reason} \(cross entropy .*, Dice .*; patches of {cases}\); the last good state is kept.*"
        r"another --out.*train\.lr",
    ):
        trainer.fit()
    assert events(tmp_path, "diverged")[0]["step"] == 3
    again = prepared.trainer(tmp_path, epochs=3, steps_per_epoch=2)
    again.load_state()
    assert again.counters.step == 2
    assert all(bool(tensor.isfinite().all()) for tensor in again.model.state_dict().values())
