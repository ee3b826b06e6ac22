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


def run_side_by_side(
    jobs: Sequence[Job],
    *,
    at_once: int,
    environment: Mapping[str, str],
    on_change: Callable[[Sequence[str], Job | None, str], None] | None = None,
) -> dict[str, str]:
    """Run all jobs, `at_once` at a time; returns what went wrong, by the names of those that failed.

    `on_change` is called with the names of the running ones and, when one has ended, with that one and its fault, which
    is empty if all went well. Ctrl-C and SIGTERM are passed on once to each, and their ends are awaited, so that
    trainings save their states. If this process is killed, they get a SIGTERM, too, as their input ends with it.
    VoxelsegError if a log cannot be written.
    """
    waiting = deque(jobs)
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    faults: dict[str, str] = {}
    tell = on_change or (lambda *_: None)
    their_input, our_end = os.pipe()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                running[job.name] = (job, _start(job, environment, their_input))
                tell(list(running), None, "")
            time.sleep(_POLL_S)
            for job, process in [one for one in running.values() if one[1].poll() is not None]:
                del running[job.name]
                fault = _fault(job, process.returncode)
                if fault:
                    faults[job.name] = fault
                tell(list(running), job, fault)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        os.close(our_end)
        os.close(their_input)
    return faults


def _start(job: Job, environment: Mapping[str, str], stdin: int) -> "subprocess.Popen[bytes]":
    make_folder(job.log.parent)
    try:
        with job.log.open("ab") as log:
            log.write(f"\n$ python -m {shlex.join(job.command)}\n".encode())
            log.flush()
            # A session of its own: Ctrl-C in the terminal then reaches it through us, and not twice.
            return subprocess.Popen(
                [sys.executable, "-m", "voxelseg.study.tied", *job.command],
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
