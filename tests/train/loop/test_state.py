import random

import numpy as np
import pytest
import torch

from voxelseg.errors import CheckpointError, VoxelsegError, memory_ran_out
from voxelseg.train.loop.state import STATE_FILE, random_states, read_state, restore_random_states
from voxelseg.train.machines.distributed import Processes


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

    monkeypatch.setattr(trainer.stepper.optimizer, "load_state_dict", too_large)
    with pytest.raises(type(error)) as raised:
        trainer.load_state()
    assert memory_ran_out(raised.value)


def test_real_allocations_that_fail_are_known_as_memory_that_ran_out():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert memory_ran_out(raised.value)
    assert memory_ran_out(RuntimeError("std::bad_alloc"))  # from oneDNN
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


def test_all_global_generators_go_on_where_they_stood():
    cpu = torch.device("cpu")

    def draws():
        return random.random(), np.random.normal(), torch.rand(3).tolist()  # noqa: NPY002

    np.random.normal()  # noqa: NPY002 - of the two that it draws at once, one is kept for the next call
    states = random_states(cpu)
    expected = draws()
    assert draws() != expected
    restore_random_states(states, cpu)
    assert draws() == expected


def test_a_process_that_was_not_there_before_draws_numbers_of_its_own(prepared, tmp_path):
    prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1).fit()
    drawn = []
    for rank in range(3):
        one_of_three = prepared.trainer(tmp_path, epochs=1, steps_per_epoch=1)
        one_of_three.processes = Processes(one_of_three.device, rank=rank, count=3)
        one_of_three.load_state()
        drawn.append(float(torch.rand(())))
    assert len(set(drawn)) == 3


def test_without_a_state_nothing_is_restored(tmp_path):
    def restore(state):
        raise AssertionError

    assert not read_state(tmp_path / STATE_FILE, restore)
