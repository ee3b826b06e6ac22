import signal
import subprocess
import sys
import time
from contextlib import chdir, contextmanager
from dataclasses import replace

import pytest

from voxelseg.side_by_side.jobs import Job, run_side_by_side


def module(tmp_path, name, script):
    """A job that runs a module of its own, which is in `tmp_path`."""
    (tmp_path / f"{name}.py").write_text(script)
    return Job(name, (name,), tmp_path / "logs" / f"{name}.log")


WAITING = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    time.sleep(0.3)
    Path("saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
Path("begun").touch()
time.sleep(60)
"""
STUDY = """
from pathlib import Path
from voxelseg.side_by_side.jobs import Job, run_side_by_side
run_side_by_side([Job("waiting", ("waiting",), Path("log"))], places=[()], environment={})
"""


@contextmanager
def running_study(tmp_path):
    """A process that runs a job, which waits, notes that it was begun, and saves when it is asked to end."""
    module(tmp_path, "waiting", WAITING)
    with subprocess.Popen([sys.executable, "-c", STUDY], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_failing_command_does_not_stop_the_others(tmp_path):
    jobs = [
        module(tmp_path, "wrong", "print('working'); import sys; sys.exit('error: no such thing.\\nDo another.')"),
        module(tmp_path, "plain", "raise SystemExit('gone')"),
        module(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        module(tmp_path, "unnamed", "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)"),
        module(tmp_path, "good", "import os; print(os.environ['ANSWER'])"),
    ]
    ended = []
    found = run_side_by_side(
        jobs,
        places=[(), ()],
        environment={"ANSWER": "42", "PYTHONPATH": str(tmp_path)},
        on_change=lambda _, job, fault: ended.append(job and job.name),
    )
    assert found == {
        "wrong": "error: no such thing.\nDo another.",
        "plain": "gone",
        "killed": "was ended by the signal SIGKILL, which mostly means that the memory ran out",
        "unnamed": f"was ended by the signal {signal.SIGRTMIN + 3}",
    }
    assert "42" in jobs[4].log.read_text()
    assert jobs[4].log.read_text().lstrip().startswith("$ python -m good")
    assert sorted(name for name in ended if name) == ["good", "killed", "plain", "unnamed", "wrong"]


def test_of_a_log_only_the_last_command_counts(tmp_path):
    path = {"PYTHONPATH": str(tmp_path)}
    run_side_by_side([module(tmp_path, "twice", "raise SystemExit('error: first')")], places=[()], environment=path)
    again = module(tmp_path, "twice", "raise SystemExit('the second error')")
    assert run_side_by_side([again], places=[()], environment=path) == {"twice": "the second error"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_passed_on_and_the_ends_are_awaited(tmp_path):
    with running_study(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_runs_ends_with_a_study_that_is_killed(tmp_path):
    with running_study(tmp_path) as process:
        process.kill()
        process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_waits_for_what_it_needs_and_each_runs_in_a_place_of_its_own(tmp_path):
    first = module(tmp_path, "first", "import time; time.sleep(1); open('made', 'w').close()")
    second = module(tmp_path, "second", "import sys; print('place', sys.argv[1]); open('made')")
    needing = replace(second, needs=("first", "finished long ago"))
    other = module(tmp_path, "other", "import sys; print('place', sys.argv[1])")
    path = {"PYTHONPATH": str(tmp_path)}
    with chdir(tmp_path):
        found = run_side_by_side([first, needing, other], places=[("left",), ("right",)], environment=path)
    assert not found
    assert "place right" in other.log.read_text()  # began beside the first, before the second


def test_what_needs_a_job_that_failed_is_not_started(tmp_path):
    wrong = module(tmp_path, "wrong", "raise SystemExit('error: no such thing.')")
    needing = replace(module(tmp_path, "needing", "raise SystemExit('started')"), needs=("wrong",))
    last = replace(module(tmp_path, "last", "raise SystemExit('started')"), needs=("needing",))
    path, ended = {"PYTHONPATH": str(tmp_path)}, []
    found = run_side_by_side(
        [wrong, needing, last],
        places=[()],
        environment=path,
        on_change=lambda _, job, fault: ended.append(job and job.name),
    )
    lost = "was not started, since what it needs failed: wrong: error: no such thing."
    assert found == {
        "wrong": "error: no such thing.",
        "needing": lost,
        "last": f"was not started, since what it needs failed: needing: {lost}",
    }
    assert [name for name in ended if name] == ["wrong", "needing", "last"]
    assert not needing.log.exists()
