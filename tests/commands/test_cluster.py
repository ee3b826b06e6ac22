import os
import shlex
import signal
import subprocess
import time

import pytest
from rich.console import Console

from voxelseg.commands import slurm
from voxelseg.commands.cluster import seconds_of
from voxelseg.errors import ConfigError

STRANGE = ["my data", "--out", "$(touch here) `id` \"quoted\" 'twice'\nnew line", "--set", "plan.patch_size=[16,24,16]"]
RECORD = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" > "$RECORDS/$(basename "$0")-$$"
"""


def headers(script):
    return [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]


def is_good_shell(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    return (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def cluster(tmp_path):
    """Runs a script with programs in the place of SLURM's that record how they were called, as there is no SLURM."""
    programs, records = tmp_path / "programs", tmp_path / "records"
    programs.mkdir()
    records.mkdir()
    behaviour = {
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "torchrun": "",
        "voxelseg": 'echo $$ > "$RECORDS/id"; trap "exit 2" TERM; while [ "$LONG" ]; do sleep 0.1; done; exit $CODE',
        "scontrol": 'if [ "$1" = show ]; then printf "node7\\nnode8\\n"; else exit $REQUEUED; fi',
        "scancel": 'kill -TERM "$(cat "$RECORDS/id")"',
    }
    for name, does in behaviour.items():
        (programs / name).write_text(RECORD + does + "\n")
        (programs / name).chmod(0o755)

    def start(script, **variables):
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RECORDS": str(records),
            "SLURM_JOB_ID": "40012",
            "LONG": "",
            "CODE": "0",
            "REQUEUED": "0",
            **variables,
        }
        return subprocess.Popen(["bash", str(script)], env=environment, cwd=tmp_path)

    def calls(name):
        return [file.read_text().split("\0")[1:-1] for file in sorted(records.glob(f"{name}-*"))]

    return start, calls


def test_one_process_needs_no_torchrun(tmp_path, cluster):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", STRANGE, time="2-12:00", partition="gpu,long", cpus_per_task=8, mem="64G")
    assert is_good_shell(script)
    assert headers(script) == [
        "--job-name=voxelseg",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--gpus-per-node=1",
        "--time=2-12:00",
        "--partition=gpu,long",
        "--cpus-per-task=8",
        "--mem=64G",
        "--output=%x-%j.out",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@300",
    ]
    assert start(script).wait(timeout=20) == 0
    assert calls("srun") == [["--kill-on-bad-exit=1", "--cpus-per-task=8", "voxelseg", "train", *STRANGE]]
    assert calls("voxelseg") == [["train", *STRANGE]]
    assert not (tmp_path / "here").exists()


def test_several_machines_meet_at_the_first_one(tmp_path, cluster):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", STRANGE, nodes=2, gpus_per_node=4)
    assert is_good_shell(script)
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"} <= set(headers(script))
    assert start(script).wait(timeout=20) == 0
    (call,) = calls("torchrun")
    assert call == [
        *("--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=node7:20012", "--rdzv-id=40012"),  # 20000 + 40012 mod 20000
        *("-m", "voxelseg", "train", *STRANGE),
    ]


def test_one_machine_with_several_gpus_needs_no_address(tmp_path, cluster):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"], gpus_per_node=2)
    assert start(script).wait(timeout=20) == 0
    assert calls("torchrun") == [
        ["--standalone", "--nproc-per-node=2", *shlex.split("-m voxelseg train DATA --out RUN")]
    ]


def test_without_gpus_none_is_asked_for(tmp_path):
    script = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"], nodes=3, gpus_per_node=0)
    assert not [line for line in headers(script) if "gpu" in line]
    assert "--nnodes=3 --nproc-per-node=1" in script.read_text()


def test_an_array_gives_each_task_a_fold(tmp_path, cluster):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"], folds=5)
    assert is_good_shell(script)
    assert {"--array=0-4", "--output=%x-%A_%a.out"} <= set(headers(script))
    assert start(script, SLURM_ARRAY_JOB_ID="40010", SLURM_ARRAY_TASK_ID="3").wait(timeout=20) == 0
    assert calls("voxelseg") == [["train", "DATA", "--out", "RUN", "--fold", "3"]]


@pytest.mark.parametrize(
    ("variables", "job", "code"),
    [
        ({}, "40012", 0),
        ({"SLURM_ARRAY_JOB_ID": "40010", "SLURM_ARRAY_TASK_ID": "3"}, "40010_3", 0),
        ({"REQUEUED": "1"}, "40012", 1),
    ],
    ids=["job", "array", "the cluster refuses"],
)
def test_before_the_time_limit_the_training_is_stopped_and_the_job_queued_again(
    tmp_path, cluster, variables, job, code
):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"])
    process = start(script, LONG="1", **variables)
    ends = time.monotonic() + 20
    while not calls("voxelseg"):
        assert time.monotonic() < ends
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == code
    assert calls("scancel") == [["--signal=TERM", job]]  # of an array, only this task
    assert calls("scontrol") == [["requeue", job]]


def test_a_training_that_fails_is_not_queued_again(tmp_path, cluster):
    start, calls = cluster
    script = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"])
    assert start(script, CODE="2").wait(timeout=20) == 2
    assert calls("scontrol") == []


def test_lines_of_setup_come_before_the_training_as_they_are(tmp_path):
    lines = ["module load cuda/12", "source ~/env/bin/activate"]
    text = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"], env_setup=lines, sbatch=["--account=lab"]).read_text()
    assert "\n".join(lines) in text
    assert text.index(lines[1]) < text.index("srun")
    assert "#SBATCH --account=lab\n" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time": "tomorrow"}, r"--time 'tomorrow': expected 24:00:00"),
        ({"time": "1:00\n#SBATCH --x"}, r"--time '1:00\\n#SBATCH --x': expected"),
        ({"time": "0:10:00"}, r"--time 0:10:00: expected more than 10 minutes.* 5 minutes before its limit"),
        ({"partition": "a b"}, "--partition 'a b': expected the name"),
        ({"mem": "lots"}, "--mem 'lots': expected 64G"),
        ({"sbatch": ["account"]}, "--sbatch 'account': expected --account=NAME"),
        ({"nodes": 0}, "--nodes 0: expected 1 or more"),
        ({"gpus_per_node": -1}, "--gpus-per-node -1: expected 0 or more"),
        ({"folds": 0}, "--folds 0: expected 1 or more"),
        ({"env_setup": ["a\nb"]}, "expected one line"),
        ({"folds": 5, "arguments": ["DATA", "--out", "RUN", "--fold=1"]}, "Leave --fold out"),
        ({"arguments": []}, "nothing to train"),
        ({"arguments": ["a\0b"]}, "zero byte"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        slurm(tmp_path / "job.sh", **{"arguments": ["DATA", "--out", "RUN"], **settings})
    assert not (tmp_path / "job.sh").exists()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 30 * 60),
        ("30:15", 30 * 60 + 15),
        ("1:30:15", 90 * 60 + 15),
        ("2-1", 49 * 3600),
        ("2-1:30", 49 * 3600 + 30 * 60),
        ("2-1:30:15", 49 * 3600 + 30 * 60 + 15),
    ],
)
def test_times_in_all_forms_of_slurm(time, seconds):
    assert seconds_of(time) == seconds


def test_torchrun_leaves_the_training_time_to_stop(tmp_path):
    text = slurm(tmp_path / "job.sh", ["DATA", "--out", "RUN"], gpus_per_node=2).read_text()
    assert text.index("export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240") < text.index("torchrun --standalone")


def test_it_says_what_to_run_next(tmp_path):
    console = Console(record=True, width=200)
    slurm(tmp_path / "my job.sh", ["DATA", "--out", "RUN"], console=console)
    assert f"sbatch '{tmp_path / 'my job.sh'}'" in console.export_text()
