"""How much memory do training and prediction of whole scans take beyond the imports?

    python benchmarks/memory.py DATA --out DIR --minutes 2 --model mednext_s [--set KEY=VALUE ...]

Runs `voxelseg train` on fold 0 for a few minutes (planning, preprocessing, training and the scoring of the held-out
cases, each with its worker processes), then `voxelseg predict` on all scans of the data set. Linux only: every tenth of
a second it adds up the memory of the command and of all its workers, pages that several of them share counted once
(PSS of /proc/PID/smaps_rollup). From the peak it subtracts what one process holds that has imported the packages and
does nothing. What workers import counts as the command's use.

The largest process's peak as the kernel kept it is printed beside it, since the sampling may miss a short one.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from voxelseg.files import make_folder, write_json

INTERVAL_S = 0.1
IMPORTS = "from voxelseg.commands import predict, train; import torch, batchgeneratorsv2, sys; sys.stdin.read()"
"""Imports what training and prediction import, then waits."""


@dataclass(frozen=True)
class Peak:
    """Memory of one command, in MB of 10^6 bytes."""

    command: str
    beyond_imports_mb: float
    """Peak of all its processes together, without `imports_mb`."""
    imports_mb: float
    largest_process_mb: float
    """Resident peak of its largest process, imports and shared pages included."""
    seconds: float


def proportional_memory(session: int) -> int:
    """Bytes that the processes of `session` hold now, a page shared by n processes counted as an nth in each."""
    return sum(_field(process / "smaps_rollup", "Pss") for process in _processes(session))


def _processes(session: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[3]) == session:
                yield process


def _field(file: Path, name: str) -> int:
    """Bytes in a line such as `Pss:  123 kB`; 0 if the process has ended."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0


def memory_of_imports() -> int:
    """Bytes that a process holds which has imported the packages."""
    process = subprocess.Popen([sys.executable, "-c", IMPORTS], stdin=subprocess.PIPE, start_new_session=True)
    before = -1
    while (held := proportional_memory(process.pid)) != before or held < 1e8:  # until it stands still, imported
        before = held
        time.sleep(1.0)
    process.communicate()
    return held


def peak_of(arguments: Sequence[str | Path], *, imports: int) -> Peak:
    """Run `voxelseg` with `arguments` and watch its memory; ends this script with the command's own error."""
    command = [sys.executable, "-m", "voxelseg", *map(str, arguments)]
    began, peak, largest = time.monotonic(), 0, 0
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        peak = max(peak, proportional_memory(process.pid))
        largest = max([largest, *(_field(one / "status", "VmHWM") for one in _processes(process.pid))])
        time.sleep(INTERVAL_S)
    if process.returncode != 0:
        sys.exit(f"`voxelseg {arguments[0]}` ended with exit code {process.returncode}.")
    return Peak(str(arguments[0]), (peak - imports) / 1e6, imports / 1e6, largest / 1e6, time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> list[Peak]:
    """Measure both commands, print a line for each, and write them to memory.json in `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True, help="folder to work in, kept")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training")
    parser.add_argument("--model", default="mednext_s")
    parser.add_argument("--overlap", default="0.5", help="of windows at prediction; changes its time, not its memory")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `voxelseg train`")
    given = parser.parse_args(arguments)
    make_folder(given.out)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {given.model}")
    settings = [word for setting in given.set for word in ("--set", setting)]
    run, budget = given.out / "run", f"{given.minutes}m"
    training = ["train", given.data, "--out", run, "--model", given.model, "--budget", budget, "--device", "cpu"]
    imports = memory_of_imports()
    peaks = []
    prediction = ["predict", run, "--input", given.data, "--output", given.out / "predictions", "--device", "cpu"]
    for words in ([*training, *settings], [*prediction, "--overlap", given.overlap]):
        peak = peak_of(words, imports=imports)
        print(
            f"{peak.command}: {peak.beyond_imports_mb:.0f} MB beyond the imports ({peak.imports_mb:.0f} MB); "
            f"largest process {peak.largest_process_mb:.0f} MB; {peak.seconds:.0f} s",
            flush=True,
        )
        peaks.append(peak)
    given_words = list(sys.argv[1:] if arguments is None else arguments)
    write_json(given.out / "memory.json", {"arguments": given_words, "peaks": [asdict(peak) for peak in peaks]})
    return peaks


if __name__ == "__main__":
    main()
