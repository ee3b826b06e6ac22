import json
import math
import os
import signal

import pytest
import torch

from voxelseg.errors import CheckpointError, ConfigError, StoppedError, VoxelsegError, memory_ran_out
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import sparse_weights
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop import BUDGET_EPOCHS, SAVE_EVERY_S, STATE_FILE, training_precision
from voxelseg.train.sparse import move_kernels


def events(folder, kind=None):
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [one for one in found if kind in (None, one["event"])]


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.result.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Clock:
    """Seconds that pass only when the network runs: `step` of them in training, `validation` in validation."""

    def __init__(self, *, step=1.0, validation=0.0):
        self.now = 1000.0
        self.step = step
        self.validation = validation

    def __call__(self):
        return self.now

    def watch(self, trainer):
        trainer.model.register_forward_hook(lambda *_: self.advance(trainer.model.training))
        return trainer

    def advance(self, training):
        self.now += self.step if training else self.validation


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
    place = trainer.validation.places[0]
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


def test_lower_resolutions_are_trained_only_with_deep_supervision(prepared, tmp_path):
    def moved_heads(deep_supervision):
        unet = prepared.unet()
        unet.deep_supervision = deep_supervision
        before = [head.weight.detach().clone() for head in unet.heads]
        prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1, unet=unet).fit()
        return [not torch.equal(head.weight, first) for head, first in zip(unet.heads, before, strict=True)]

    assert moved_heads(True) == [True, True]
    (tmp_path / "log.jsonl").unlink()
    assert moved_heads(False) == [True, False]


def test_nesterov_momentum_is_used_where_there_is_momentum(prepared, tmp_path):
    with_momentum = prepared.trainer(tmp_path, optimizer="sgd").optimizer.param_groups[0]
    without = prepared.trainer(tmp_path, optimizer="sgd", momentum=0).optimizer.param_groups[0]
    assert (with_momentum["momentum"], with_momentum["nesterov"], without["nesterov"]) == (0.99, True, False)


def test_gradients_are_clipped_to_the_norm_and_small_ones_are_left(prepared, tmp_path):
    def norm_after_a_step(clip):
        trainer = prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1, gradient_clip=clip)
        trainer.fit()
        gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients])))

    free = norm_after_a_step(0.0)
    assert norm_after_a_step(1e6) == free
    assert norm_after_a_step(free / 10) == pytest.approx(free / 10, rel=1e-3)


def e2enet(prepared):
    torch.manual_seed(0)
    return create_model(
        "e2enet", in_channels=1, num_classes=prepared.dataset.labels.num_outputs, width=2, strides=(1, 2, 2)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_kernels_outside_the_masks_stay_zero_in_weights_average_and_momentum(prepared, tmp_path, optimizer):
    trainer = prepared.trainer(tmp_path, unet=e2enet(prepared), optimizer=optimizer, ema=0.9, epochs=2)
    masks = [mask.clone() for _, mask in sparse_weights(trainer.model).values()]
    trainer.fit()
    for network in (trainer.model, trainer.averaged):
        for (weight, mask), drawn in zip(sparse_weights(network).values(), masks, strict=True):
            assert torch.equal(mask, drawn)
            assert not weight[~mask].any()
            assert weight[mask].all()
    for weight, mask in sparse_weights(trainer.model).values():
        moments = [value for value in trainer.optimizer.state[weight].values() if value.shape == weight.shape]
        assert moments
        assert not any(moment[~mask].any() for moment in moments)


def test_the_average_takes_over_masks_that_change_with_zeros_outside(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, unet=e2enet(prepared), ema=0.9, epochs=1, steps_per_epoch=2)
    trainer.on_progress = lambda state: move_kernels(trainer.model, 0.5, torch.Generator().manual_seed(state.step))
    before = [mask.clone() for _, mask in sparse_weights(trainer.averaged).values()]
    trainer.fit()
    found = sparse_weights(trainer.averaged).values()
    assert not any(torch.equal(mask, first) for (_, mask), first in zip(found, before, strict=True))
    assert all(not weight[~mask].any() for weight, mask in found)


def test_the_average_follows_the_weights_with_the_decay(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, ema=0.5, epochs=1, steps_per_epoch=1)
    before = weights_of(trainer)
    trainer.fit()
    # Decay min(0.5, 1 / 10) in the first step: nine tenths of the way to the new weights.
    for name, now in trainer.model.state_dict().items():
        torch.testing.assert_close(weights_of(trainer)[name], 0.1 * before[name] + 0.9 * now)
    assert trainer.result is not trainer.model


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
    trainer.log.write("epoch", epoch=0, loss=9.9)
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


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "other network"])
def test_a_state_that_does_not_fit_is_refused_with_the_remedy(prepared, tmp_path, damage):
    trainer = prepared.trainer(tmp_path, epochs=1)
    trainer.fit()
    path = tmp_path / STATE_FILE
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "overwritten":
        path.write_bytes(b"not a state")
    else:
        torch.save({"model": {"weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"training_state.pt: damaged, or of another model.*Delete"):
        prepared.trainer(tmp_path, epochs=1).load_state()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_does_not_make_a_good_state_a_damaged_one(prepared, tmp_path, monkeypatch, error):
    prepared.trainer(tmp_path, epochs=1).fit()
    trainer = prepared.trainer(tmp_path, epochs=1)

    def too_large(state):
        raise error

    monkeypatch.setattr(trainer.optimizer, "load_state_dict", too_large)
    with pytest.raises(type(error)) as raised:
        trainer.load_state()
    assert memory_ran_out(raised.value)


def test_real_allocations_that_fail_are_known_as_memory_that_ran_out():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert memory_ran_out(raised.value)
    assert not memory_ran_out(RuntimeError("size mismatch"))


@pytest.mark.gpu
def test_a_state_is_continued_where_fewer_gpus_are_seen(prepared, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = torch.device("cuda", torch.cuda.device_count() - 1)
    trainer = prepared.trainer(tmp_path, epochs=1, device=gpu)
    trainer.fit()
    state = torch.load(tmp_path / STATE_FILE, weights_only=True, map_location="cpu")
    assert torch.equal(state["cuda_rng"], torch.cuda.get_rng_state(gpu))
    assert prepared.trainer(tmp_path, epochs=1, device=torch.device("cuda", 0)).load_state()


def test_the_state_holds_no_code(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path, epochs=1, ema=0.5)
    trainer.fit()
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["counters"]["step"] == 2


def test_a_full_disk_is_reported_and_the_old_state_kept(prepared, tmp_path, monkeypatch):
    trainer = prepared.trainer(tmp_path, epochs=1)
    trainer.fit()
    before = (tmp_path / STATE_FILE).read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(VoxelsegError, match=r"cannot be written .* free disk space"):
        trainer.save_state()
    assert (tmp_path / STATE_FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", STATE_FILE]


# ------------------------------------------------------------------------------------------------------------ time


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
    read = trainer.validation._patches
    trainer.validation._patches = lambda count: (seen.append(count), read(count))[1]
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
        rates[state.elapsed_s] = trainer.optimizer.param_groups[0]["lr"]
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
    from voxelseg.train import loop

    def slowly_starting(*arguments, **options):
        batches = original(*arguments, **options)
        clock.now += 40.0
        yield from batches

    original = loop.load_batches
    monkeypatch.setattr(loop, "load_batches", slowly_starting)
    trainer.fit()
    assert trainer.counters.step == 60  # 40 s of waiting, 60 steps of 1 s, and none that does not fit


def test_a_step_that_waits_for_its_batch_is_as_long_as_both(prepared, tmp_path, monkeypatch):
    clock = Clock(step=1.0)
    trainer = clock.watch(prepared.trainer(tmp_path, budget_s=100.0, validation_patches=0, clock=clock))
    from voxelseg.train import loop

    def slow(*arguments, **options):
        for batch in original(*arguments, **options):
            clock.now += 6.0
            yield batch

    original = loop.load_batches
    monkeypatch.setattr(loop, "load_batches", slow)
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
    with pytest.raises(VoxelsegError, match=rf"{reason}; the last good state is kept.*another --out.*train\.lr"):
        trainer.fit()
    again = prepared.trainer(tmp_path, epochs=3, steps_per_epoch=2)
    again.load_state()
    assert again.counters.step == 2
    assert all(bool(tensor.isfinite().all()) for tensor in again.model.state_dict().values())


def test_half_precision_is_used_where_the_device_has_it():
    cpu = torch.device("cpu")
    assert training_precision(TrainConfig(), cpu) == torch.float32
    for half in ("bf16", "fp16"):
        with pytest.raises(ConfigError, match=f"{half} needs a GPU. On a CPU use fp32"):
            training_precision(TrainConfig(precision=half), cpu)


def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert training_precision(TrainConfig(), gpu) == torch.float16
    assert training_precision(TrainConfig(precision="fp32"), gpu) == torch.float32
    with pytest.raises(ConfigError, match="does not compute in bfloat16"):
        training_precision(TrainConfig(precision="bf16"), gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert training_precision(TrainConfig(), gpu) == torch.bfloat16
