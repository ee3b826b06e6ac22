import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from voxelseg.errors import ConfigError
from voxelseg.train.machines.distributed import Processes, joined, own_device, processes_here, started_together

HERE = Path(__file__).parent
CPU = torch.device("cpu")
TIME_LIMIT_S = 240
TINY = [
    *("--model", "unet_s", "--device", "cpu", "--workers", "1", "--set", "model.width=4"),
    *("--set", "plan.patch_size=[16,24,16]", "--set", "plan.batch_size=2", "--set", "plan.mirror_axes=[1]"),
    *("--set", "train.steps_per_epoch=2", "--set", "train.workers=0", "--set", "train.validation_patches=2"),
]


def started(processes, *arguments, cwd=None, **environment):
    """A program as `torchrun` starts it, or alone if `processes` is 1."""
    prefix = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [sys.executable, *(prefix if processes > 1 else []), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def started_side_by_side(*arguments):
    """Two processes of a program without `torchrun`, which may end the one that is left before it notices anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["TORCHELASTIC_RUN_ID"] = "test"
    return [started(1, *arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]


def finished(process):
    out, _ = process.communicate(timeout=TIME_LIMIT_S)
    return process.returncode, out


def run(processes, *arguments, cwd=None):
    return finished(started(processes, *arguments, cwd=cwd))


def wait_for(file):
    ends = time.monotonic() + TIME_LIMIT_S
    while not file.is_file():
        assert time.monotonic() < ends
        time.sleep(0.01)


def largest_difference(first: Path, second: Path) -> float:
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def events(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------- one process


def test_one_process_needs_no_exchange():
    alone = Processes.alone(CPU)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.BatchNorm3d(2))
    assert alone.wrap(network) is network
    assert type(network[1]) is torch.nn.BatchNorm3d
    values = torch.ones(2)
    assert alone.total(values) is values
    assert (alone.mean(0.3), alone.any(True), alone.any(False), alone.is_main) == (0.3, True, False, True)
    assert alone.gather("x") == ["x"]
    assert alone.from_main(lambda: (1, "as it is")) == (1, "as it is")
    assert alone.clock(time.monotonic) is time.monotonic
    alone.check_batch(1)
    with alone.alone_for_now(network):
        pass


def test_a_process_that_torchrun_did_not_start_is_alone():
    assert not started_together()
    assert processes_here() == 1
    assert own_device("cuda:1") == "cuda:1"
    with joined(CPU) as processes:
        assert (processes.rank, processes.count, processes.device) == (0, 1, CPU)


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_one_that_can():
    with pytest.raises(ConfigError, match=r"4 processes cannot share a batch of 6 .* --set plan\.batch_size=8"):
        Processes(CPU, rank=1, count=4).check_batch(6)


@pytest.mark.parametrize(
    ("gpus", "name", "found"),
    [
        (0, "auto", "cpu"),
        (4, "auto", "cuda:1"),
        (4, "cuda", "cuda:1"),
        (4, "cpu", "cpu"),
        (4, "cuda:0", "2 processes cannot share it"),
        (1, "auto", "2 processes on this machine, which has 1 CUDA device. Start as many"),
        (0, "cuda", "which has 0 CUDA devices"),
    ],
)
def test_each_process_takes_the_gpu_of_its_number(monkeypatch, gpus, name, found):
    by_torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for key, value in by_torchrun.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if " " not in found:
        assert own_device(name) == found
        return
    with pytest.raises(ConfigError, match=found):
        own_device(name)


# ----------------------------------------------------------------------------------------------- what two compute


@pytest.fixture(scope="session")
def checks(tmp_path_factory):
    """What two processes found."""
    out = tmp_path_factory.mktemp("checks") / "found.json"
    code, printed = run(2, HERE / "process_checks.py", out)
    assert code == 0, printed
    assert "Warning" not in printed
    return json.loads(out.read_text())


@pytest.mark.slow
def test_batch_norms_see_the_batches_of_all_processes(checks):
    assert checks["batch_norms"] < 2e-5


@pytest.mark.slow
def test_losses_and_gradients_are_those_of_the_whole_batch(checks):
    assert set(checks["losses"]) == {"pooled", "apart", "cross entropy"}
    for expected, loss_difference, gradient_difference in checks["losses"].values():
        assert abs(expected) > 0.1
        assert loss_difference < 1e-6
        assert gradient_difference < 1e-7


@pytest.mark.slow
def test_decisions_are_taken_together(checks):
    assert checks["any"] == [True, False]
    assert checks["mean"] == 0.5
    assert checks["from_main"] == [[0, 0.1, float("inf")]] * 2
    assert checks["clock"] == [10.0, 10.0]
    assert checks["writes"] == [True, False]
    assert checks["waited"] == [True, True]


@pytest.mark.slow
def test_all_processes_end_with_the_message_of_the_main_one(checks):
    assert checks["failure"] == ["scan.nii.gz: damaged"] * 2


# ------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="session")
def trained(tiny_msd, prepared, tmp_path_factory):
    """Folders of the same trainings by one and by two processes."""
    folder = tmp_path_factory.mktemp("shared")
    store = next(iter(prepared.stored.values())).folder.parent
    found = []
    for count in (1, 2):
        code, printed = run(count, HERE / "shared_training.py", tiny_msd, store, folder / str(count))
        assert code == 0, printed
        found.append(folder / str(count))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [
        ("mednext_s", 2e-5),
        ("uxnet", 2e-5),
        ("e2enet", 2e-5),
        ("logonet", 2e-5),
        ("ulkanet", 2e-5),  # its encoder is frozen
        ("accumulated", 5e-4),  # AdamW turns the rounding of gradients near 0 into steps
        ("pooled", 2e-6),
    ],
)
def test_two_processes_train_what_one_does(trained, variant, tolerance):
    one, two = (folder / variant for folder in trained)
    assert largest_difference(one / "weights.safetensors", two / "weights.safetensors") < tolerance
    assert [event["event"] for event in events(one)] == [event["event"] for event in events(two)]
    for first, second in zip(events(one), events(two), strict=True):
        if first["event"] == "epoch":
            assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
            assert second["validation_loss"] == pytest.approx(first["validation_loss"], abs=1e-4)


@pytest.mark.slow
def test_masks_move_alike_in_all_processes(trained):
    one, two = (load_file(folder / "e2enet" / "weights.safetensors") for folder in trained)
    masks = [name for name in one if name.endswith("kernel_mask")]
    assert masks
    assert all(torch.equal(one[name], two[name]) for name in masks)
    moved = [event for event in events(trained[1] / "e2enet") if event["event"] == "topology"]
    assert len(moved) == 3  # before the first step, and after the 2nd and the 4th of 6


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_same_command_gives_the_same_bits(
    trained, tiny_msd, prepared, tmp_path
):
    store = next(iter(prepared.stored.values())).folder.parent
    arguments = (HERE / "shared_training.py", tiny_msd, store, tmp_path, "accumulated")
    process = started(2, *arguments)
    wait_for(tmp_path / "accumulated" / "training_state.pt")  # after 2 of 6 steps
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
    code, printed = finished(process)
    assert code != 0
    code, printed = run(2, *arguments)
    assert code == 0, printed
    one, two = (load_file(folder / "accumulated" / "weights.safetensors") for folder in (tmp_path, trained[1]))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "resume" in [event["event"] for event in events(tmp_path / "accumulated")]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_process_that_is_left_says_that_another_is_gone(tiny_msd, prepared, tmp_path, killed):
    store = next(iter(prepared.stored.values())).folder.parent
    processes = started_side_by_side(HERE / "shared_training.py", tiny_msd, store, tmp_path, "accumulated")
    wait_for(tmp_path / "accumulated" / "training_state.pt")
    processes[killed].kill()
    code, printed = finished(processes[1 - killed])
    finished(processes[killed])
    assert code not in (0, -signal.SIGABRT)
    assert "VoxelsegError: another process of this training ended without a word" in printed


# --------------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
def test_a_failure_of_the_main_process_ends_all_with_its_message(tiny_msd, tmp_path):
    data = shutil.copytree(tiny_msd, tmp_path / "data")
    scan = data / "imagesTr" / "tiny_1.nii.gz"
    scan.write_bytes(scan.read_bytes()[:200])
    code, printed = run(2, "-m", "voxelseg", "train", data, "--out", tmp_path / "run", *TINY)
    assert code != 0
    assert printed.count("error: ") == 2
    assert printed.count("tiny_1.nii.gz: ") == 2
    assert "internal error" not in printed


@pytest.mark.slow
def test_sigterm_stops_all_processes_after_a_step_and_the_same_command_goes_on(tiny_msd, tmp_path):
    arguments = ("-m", "voxelseg", "train", tiny_msd, "--out", tmp_path / "run", *TINY)
    fold = tmp_path / "run" / "fold_0"
    process = started(2, *arguments, "--epochs", "400")
    wait_for(fold / "training_state.pt")
    process.send_signal(signal.SIGTERM)
    code, printed = finished(process)
    assert code != 0
    assert printed.count("stopped; the state is saved. The same command continues") == 2
    assert [event["event"] for event in events(fold)].count("stop") == 1
    steps = torch.load(fold / "training_state.pt", weights_only=True)["counters"]["step"]
    assert events(fold)[-1]["step"] == steps


@pytest.mark.slow
def test_other_commands_are_not_for_several_processes(tiny_msd):
    code, printed = run(2, "-m", "voxelseg", "check", tiny_msd)
    assert code != 0
    assert "torchrun is for `voxelseg train` and `voxelseg pretrain`. Run `voxelseg check` without it." in printed
