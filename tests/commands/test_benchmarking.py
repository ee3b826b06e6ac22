import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from voxelseg import commands
from voxelseg.benchmark.length import Length
from voxelseg.commands.benchmark_options import chosen_devices, chosen_pace, parse_seeds
from voxelseg.compare.cost import Cost
from voxelseg.errors import ConfigError
from voxelseg.io import read_label, write_volume
from voxelseg.volume import Volume

MODELS = "unet=unet_s:width=4,next=mednext_xs:width=4"
SETTINGS = ("train.workers=0", "train.validation_patches=1", "plan.patch_size=[16,24,16]", "plan.batch_size=2")
MAD = "mad=unet_s:width=4:train.lr=1e30:train.gradient_clip=0"
"""Its loss becomes NaN in the second step."""


def benchmark(data, out, **changes):
    arguments = {
        "models": MODELS,
        "steps": 3,
        "seeds": "1",
        "device": "cpu",
        "settings": SETTINGS,
        "costs": False,
        "workers": 1,
        "threads": 1,
    }
    return commands.benchmark(data, out, **(arguments | changes))


def models_below(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("model.safetensors")}


@pytest.mark.slow
def test_contestants_share_all_but_their_own_and_a_failing_one_does_not_stop_the_others(tiny_msd, tmp_path):
    out = tmp_path / "out"
    found = benchmark(tiny_msd, out, models=f"{MODELS},{MAD}")
    assert list(found.faults) == ["mad, fold 0, seed 0"]
    unet, other, mad = found.contestants
    assert [list(one.runs) for one in found.contestants] == [["0"], ["0"], []]
    assert "the loss became nan in step 2" in mad.fault
    assert unet.runs["0"].cases == other.runs["0"].cases
    # 16 is what MedNeXt divides H and W by: the patch of 16 x 24 x 16 is rounded up for all
    plans = {(out / "cells" / name / "fold_0_seed_0" / "plan.json").read_text() for name in ("unet", "next")}
    assert len(plans) == 1
    assert json.loads(plans.pop())["patch_size"] == [16, 32, 16]
    record = json.loads((out / "benchmark.json").read_text())
    assert record["reasons"]["next"]["divisor"] == [2, 16, 16]
    assert any("Of their own: unet (model.width=4); next" in sentence for sentence in record["fairness"])
    assert unet.cost.steps == 3
    assert unet.cost.training_s > 0
    assert unet.cost.seconds_per_case > 0
    assert {"report.html", "comparison.json", "scores.csv"} <= {path.name for path in out.iterdir()}
    assert "the loss became nan" in (out / "comparison.md").read_text()
    page = (out / "report.html").read_text()
    assert "during training" in page  # curves of what the trainings logged
    assert "No pictures" not in page
    assert "Worst case of" in page
    trained = models_below(out)
    again = benchmark(tiny_msd, out, pictures=False)  # mad is not asked for now
    assert not again.faults
    assert again.comparison.primary.num_cases == 1
    assert models_below(out) == trained
    assert "Worst case of" not in (out / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"other settings \(contestant unet;"):
        benchmark(tiny_msd, out, models="unet=unet_s:width=6")
    with pytest.raises(ConfigError, match=r"other settings \(length;"):
        benchmark(tiny_msd, out, steps=4)
    # Five steps of 2 along each axis: multiples of 32
    deep = "deep=uxnet:features=[4, 4, 4, 4, 4]:depths=[1, 1, 1, 1, 1]:strides=" + str([[2, 2, 2]] * 5)
    with pytest.raises(ConfigError, match=r"deep: takes patches in multiples of \[32, 32, 32\], .* was begun"):
        benchmark(tiny_msd, out, models=deep)


def running(words):
    """Ids of the processes whose command holds all these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if all(word in command for word in words) and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def wait_until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started(data, out, steps):
    settings = [word for setting in (*SETTINGS, "train.validate_every=50") for word in ("--set", setting)]
    words = ["benchmark", data, "--out", out, "--models", MODELS, "--epochs", str(steps), "--seeds", "1", "--no-costs"]
    words += ["--device", "cpu", "--threads", "1", "--workers", "1", *settings, "--set", "train.steps_per_epoch=1"]
    return subprocess.Popen([sys.executable, "-m", "voxelseg", *map(str, words)], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found as Linux shows them")
def test_a_benchmark_that_is_killed_goes_on_and_so_do_its_trainings(tiny_msd, tmp_path):
    out, steps = tmp_path / "out", 60
    second = out / "cells" / "next" / "fold_0_seed_0" / "fold_0"
    with started(tiny_msd, out, steps) as process:
        wait_until((second / "training_state.pt").exists)
        process.send_signal(signal.SIGKILL)
    trained = models_below(out)
    assert len(trained) == 1  # unet is finished, next has begun
    with started(tiny_msd, out, steps) as process:  # at once, while the killed one's training may still save its state
        words = process.communicate(timeout=240)[1]
    assert process.returncode == 0, words
    assert {path: time for path, time in models_below(out).items() if path in trained} == trained
    events = [json.loads(line) for line in (second / "log.jsonl").read_text().splitlines()]
    resumed = [event["step"] for event in events if event["event"] == "resume"]
    assert resumed
    assert min(resumed) > 0
    assert [event["step"] for event in events if event["event"] == "epoch"] == list(range(1, steps + 1))
    assert (out / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found as Linux shows them")
def test_a_contestant_whose_process_is_killed_is_shown_as_failed_and_tried_again(tiny_msd, tmp_path):
    out = tmp_path / "out"
    first = out / "cells" / "unet" / "fold_0_seed_0"
    with started(tiny_msd, out, 20) as process:
        wait_until((first / "fold_0" / "training_state.pt").exists)
        for one in running(["voxelseg.side_by_side.tied", str(first)]):
            os.kill(one, signal.SIGKILL)
        words = process.communicate(timeout=240)[1]
    assert process.returncode == 1
    assert "failed: unet, fold 0, seed 0: was ended by the signal SIGKILL" in words
    assert "finished: next, fold 0, seed 0" in words
    assert "SIGKILL" in (out / "comparison.md").read_text()
    with started(tiny_msd, out, 20) as process:
        words = process.communicate(timeout=240)[1]
    assert process.returncode == 0, words
    assert "SIGKILL" not in (out / "comparison.md").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="runs a shell script")
def test_a_script_for_a_cluster_has_a_task_for_each_training_and_the_same_call_collects(tiny_msd, tmp_path):
    out = tmp_path / "out"
    limits = ["--time=1:00:00", "--cpus-per-task=2"]
    found = benchmark(tiny_msd, out, folds="0,1", slurm=True, sbatch=limits, env_setup=["export MODULE=1"], jobs=2)
    assert found.comparison is None
    assert [one.fault for one in found.contestants] == [
        "fold 0, seed 0: not finished; fold 1, seed 0: not finished"
    ] * 2
    script = out / "slurm.sh"
    assert "#SBATCH --array=0-3%2" in script.read_text().splitlines()  # two networks, two folds, two at a time
    assert set(limits) <= {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines()}
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, does in {
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "python": 'printf "%s\\n" "$MODULE" "$@" > "$RECORD"',
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{does}\n")
        (programs / name).chmod(0o755)
    record = tmp_path / "record"
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record), "SLURM_JOB_ID": "7"}
    subprocess.run(["bash", str(script)], env={**os.environ, **variables, "SLURM_ARRAY_TASK_ID": "2"}, check=True)
    words = record.read_text().splitlines()
    assert words[:4] == ["1", "-m", "voxelseg", "train"]
    assert words[words.index("--out") + 1] == str(
        out / "cells" / "unet" / "fold_1_seed_0"
    )  # folds come before networks
    assert words[-2:] == ["--device", "cpu"]
    with pytest.raises(ConfigError, match="--time 0:05:00: expected more than"):
        benchmark(tiny_msd, out, folds="0,1", slurm=True, sbatch=["--time=0:05:00"])


def test_data_that_have_changed_are_refused(tiny_msd, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(tiny_msd, data)
    limits = {"slurm": True, "sbatch": ["--cpus-per-task=2"]}
    benchmark(data, out, **limits)
    label, kept = data / "labelsTr" / "tiny_1.nii.gz", tmp_path / "kept.nii.gz"
    shutil.copy(label, kept)
    volume = read_label(label)
    write_volume(label, Volume(np.flip(volume.array, axis=2).copy(), volume.grid))
    with pytest.raises(
        ConfigError, match=r"\(the scans or label maps of tiny_1 changed\).*Put the original data back, or"
    ):
        benchmark(data, out, **limits)
    shutil.copy(kept, label)
    benchmark(data, out, **limits)


def test_what_cannot_take_part_is_named_before_anything_is_trained(tiny_msd, tmp_path):
    out = tmp_path / "out"
    for message, changes in {
        r"expected one of --budget, --steps and --epochs": {"steps": None},
        r"expected --models or --grid": {"models": None},
        r"2 contestants cannot take part:\n  unet: unet_s has no option 'widht'.*\n  uxnett: unknown model 'uxnett'": {
            "models": "unet=unet_s:widht=4,uxnett,mednext_xs"
        },
        r"mednext_xs_kernel_size_4: kernel_size = 4": {"models": "unet_s,mednext_xs:kernel_size=4"},
        r"fold 7: the data set has folds 0 to 3": {"folds": "7"},
        r"--seeds 'a'": {"seeds": "a"},
        r"--jobs 0": {"jobs": 0},
        r"--set train.threads: --threads says that": {"settings": ["train.threads=3"]},
        r"--set train.epochs: --steps sets the length": {"settings": ["train.epochs=3"]},
        r"--device 'cpu,cpu'": {"device": "cpu,cpu"},
        r"--sbatch: for the jobs of a cluster only": {"sbatch": ["--mem=3G"]},
        r"say where: --nnunet-env DIR|Say where: --nnunet-env DIR": {"models": "unet_s,nnunet"},
        r"nnunet is not among the contestants": {"nnunet_env": tmp_path},
        r"has no Python": {"models": "unet_s,nnunet", "nnunet_env": tmp_path},
        r"lies where nnU-Net's data go": {"models": "unet_s,nnunet", "nnunet_env": out / "nnunet" / "env"},
        r"simmim: transbts cannot be pre-trained": {"grid": "pretrain_methods", "models": "transbts"},
    }.items():
        with pytest.raises(ConfigError, match=message):
            benchmark(tiny_msd, out, **changes)
    assert not out.exists()


def test_seeds_are_a_number_or_a_list():
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("5,1") == (5, 1)
    assert parse_seeds("20261122,") == (20261122,)
    for text, message in {
        "0": "expected 1 or more",
        "1,1": "names a seed twice",
        "1,-1": "seed -1",
        "20261122": r"more than 1000. If one seed is meant, write 20261122,",
    }.items():
        with pytest.raises(ConfigError, match=message):
            parse_seeds(text)


def test_gpus_of_different_models_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: "M2000" if name == "cuda:1" else "H200")
    assert chosen_devices("cuda:0,cuda:2") == ["cuda:0", "cuda:2"]
    with pytest.raises(ConfigError, match=r"of one kind, and cuda:0 is H200, cuda:1 is M2000\. Choose equal ones"):
        chosen_devices("cuda:0,cuda:1")


def test_trainings_are_spread_evenly_over_devices_where_minutes_count():
    devices, minutes = ["cuda:0", "cuda:1"], Length(budget="3m")
    assert chosen_pace(None, 3, devices, minutes, sbatch=None) == (2, 3)
    assert chosen_pace(4, 3, devices, minutes, sbatch=None) == (4, 3)
    assert chosen_pace(3, 3, devices, Length(steps=3), sbatch=None) == (3, 3)
    for jobs, length in ((3, minutes), (1, minutes), (1, Length(steps=3))):
        with pytest.raises(ConfigError, match=f"--jobs {jobs}: 2 devices .* multiple of 2, or fewer devices"):
            chosen_pace(jobs, 3, devices, length, sbatch=None)


def test_a_cluster_says_how_many_threads_a_training_has_there():
    length = Length(steps=3)
    assert chosen_pace(5, None, ["cuda"], length, sbatch=["--mem=3G", "--cpus-per-task=8"]) == (5, 8)
    assert chosen_pace(None, 4, ["cuda"], length, sbatch=["--cpus-per-task=8"]) == (1, 4)
    with pytest.raises(ConfigError, match=r"--threads N, or --sbatch=--cpus-per-task=N"):
        chosen_pace(None, None, ["cuda"], length, sbatch=[])


def test_a_cost_survives_its_file():
    cost = Cost(parameters=3, patch_size=(1, 2, 3), notes=("a",))
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
