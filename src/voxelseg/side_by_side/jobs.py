"""Modules run beside each other, each with a log of its own; one that fails does not stop the others."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelseg.files import make_folder, write_error

_POLL_S = 0.2
_MESSAGE = re.compile(r"^(?:internal )?error: .*", re.MULTILINE | re.DOTALL)
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True)
class Job:
    """One of them."""

    name: str
    command: tuple[str, ...]
    """Module and arguments, as `python -m` takes them."""
    log: Path
    """What it prints is added there."""
    needs: tuple[str, ...] = ()
    """Names of jobs, earlier in the list, that must have ended well before it starts; those not in the list have."""


def run_side_by_side(
    jobs: Sequence[Job],
    *,
    places: Sequence[tuple[str, ...]],
    environment: Mapping[str, str],
    on_change: Callable[[Sequence[str], Job | None, str], None] | None = None,
) -> dict[str, str]:
    """Run all jobs, one at a time in each place; returns what went wrong, by the names of those that failed.

    A place is what is added to the command of the job that runs there, such as its device; it may be nothing. A job
    that needs one that failed is not started, and counts as failed. `on_change` is called with the names of the running
    ones and, when one has ended, with that one and its fault, which is empty if all went well. Ctrl-C and SIGTERM are
    passed on once to each, and their ends are awaited, so that trainings save their states. If this process is killed,
    they get a SIGTERM, too, as their input ends with it. VoxelsegError if a log cannot be written.
    """
    assert places, "there must be a place to run in"
    waiting, free = list(jobs), deque(places)
    running: dict[str, _Running] = {}
    faults: dict[str, str] = {}
    tell = on_change or (lambda *_: None)
    their_input, our_end = os.pipe()
    try:
        while waiting or running:
            while (hopeless := _hopeless(waiting, faults)) is not None:
                waiting.remove(hopeless)
                lost = next(name for name in hopeless.needs if name in faults)
                faults[hopeless.name] = f"was not started, since what it needs failed: {lost}: {faults[lost]}"
                tell(list(running), hopeless, faults[hopeless.name])
            while free and (ready := _next_ready(waiting, running)) is not None:
                waiting.remove(ready)
                place = free.popleft()
                running[ready.name] = _Running(ready, place, _start(ready, place, environment, their_input))
                tell(list(running), None, "")
            time.sleep(_POLL_S)
            for one in [one for one in running.values() if one.process.poll() is not None]:
                del running[one.job.name]
                free.append(one.place)
                fault = _fault(one.job, one.process.returncode)
                if fault:
                    faults[one.job.name] = fault
                tell(list(running), one.job, fault)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()
        os.close(our_end)
        os.close(their_input)
    return faults


@dataclass(frozen=True)
class _Running:
    job: Job
    place: tuple[str, ...]
    process: "subprocess.Popen[bytes]"


def _hopeless(waiting: Sequence[Job], faults: Mapping[str, str]) -> Job | None:
    """The first job that needs one that failed."""
    return next((job for job in waiting if any(name in faults for name in job.needs)), None)


def _next_ready(waiting: Sequence[Job], running: Mapping[str, _Running]) -> Job | None:
    """The first job whose needs have ended."""
    unfinished = {*running, *(job.name for job in waiting)}
    return next((job for job in waiting if not unfinished.intersection(job.needs)), None)


def _start(job: Job, place: Sequence[str], environment: Mapping[str, str], stdin: int) -> "subprocess.Popen[bytes]":
    make_folder(job.log.parent)
    command = [*job.command, *place]
    try:
        with job.log.open("ab") as log:
            log.write(f"\n$ python -m {shlex.join(command)}\n".encode())
            log.flush()
            # A session of its own: Ctrl-C in the terminal then reaches it through us, and not twice.
            return subprocess.Popen(
                [sys.executable, "-m", "voxelseg.side_by_side.tied", *command],
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
    except OSError as error:
        raise write_error(job.log, error) from error


def _fault(job: Job, code: int) -> str:
    """What the log of an ended job says went wrong; empty if nothing did."""
    if code == 0:
        return ""
    if code < 0:
        killed = f"was ended by the signal {_signal_name(-code)}"
        reason = ", which mostly means that the memory ran out" if code == -signal.SIGKILL else ""
        return f"{killed}{reason}"
    text = job.log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2]
    message = _MESSAGE.search(text)
    lines = message[0] if message else text.strip().rpartition("\n")[2]
    return lines.strip()[:_LONGEST_MESSAGE] or f"ended with code {code}"


def _signal_name(number: int) -> str:
    """Such as SIGKILL; the number of those that have no name, as most of the real-time ones."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)
