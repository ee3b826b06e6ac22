"""Seconds of a training step and of a prediction on the CPU: the fast forms of the operations against plain PyTorch.

    python benchmarks/networks.py --threads 2 --out networks.json

Every row is one network on one patch size: one input channel, three classes, deep supervision, batch 2. A step is the
forward pass, the backward pass of a simple loss and the optimizer (AdamW); a forward is without gradients. The forms
take turns within each repeat, so that a busy machine slows both, and the medians and their ratio are printed. Each is
run in its own process, since whether freed memory is kept is decided once per process:

- `plain`: PyTorch's own operations, glibc's own memory handling;
- `plain, kept`: the same with `keep_freed_memory`;
- `fast, kept`: what `voxelseg train` and `voxelseg predict` run.

With `--threads 1`, processor seconds are counted instead of elapsed ones: other processes then disturb little.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from voxelseg.files import write_json
from voxelseg.nets import create_model
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.ops.dispatch import plain_forms

FORMS = {"plain": (False, False), "plain, kept": (False, True), "fast, kept": (True, True)}
"""Name -> whether the fast forms run, whether freed memory is kept."""

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *(("mednext_s", {"width": width, "kernel_size": kernel}) for width in (16, 24, 32) for kernel in (3, 5)),
    ("mednext_xs", {"width": 16, "kernel_size": 3}),
    *(("unet_s", {"width": width}) for width in (16, 32)),
]


@dataclass(frozen=True)
class Row:
    """One network, patch and form; medians and minima over the repeats, in seconds."""

    network: str
    patch: tuple[int, ...]
    form: str
    step_s: float
    step_min_s: float
    forward_s: float
    peak_mb: float
    """Largest resident memory of the process."""


def _worker(
    connection: Connection, name: str, options: dict[str, Any], patch: Sequence[int], form: str, threads: int
) -> None:
    """Run one timed step and forward per message until None arrives; the first answer is not timed."""
    fast, keep = FORMS[form]
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    torch.manual_seed(0)
    model = create_model(name, in_channels=1, num_classes=3, deep_supervision=True, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x = torch.randn(2, 1, *patch)
    while connection.recv() is not None:
        with nullcontext() if fast else plain_forms():
            start = clock()
            sum(output.square().mean() for output in model(x)).backward()
            optimizer.step()
            optimizer.zero_grad()
            stepped = clock()
            with torch.no_grad():
                model(x)
            connection.send((stepped - start, clock() - stepped, _peak_mb()))


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def measure(name: str, options: dict[str, Any], patch: Sequence[int], *, threads: int, repeats: int) -> list[Row]:
    """Rows of all forms of one network on one patch, measured in turns."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for form in FORMS:
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(theirs, name, options, patch, form, threads), daemon=True)
        process.start()
        theirs.close()
        workers[form] = (process, ours)
    taken: dict[str, list[tuple[float, float, float]]] = {form: [] for form in FORMS}
    for _ in range(repeats + 1):
        for form, (_process, connection) in workers.items():
            connection.send(True)
            taken[form].append(connection.recv())
    for process, connection in workers.values():
        connection.send(None)
        process.join()
    label = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    rows = []
    for form, all_times in taken.items():
        times = all_times[1:]  # the first warms up
        rows.append(
            Row(
                network=label,
                patch=tuple(patch),
                form=form,
                step_s=statistics.median(step for step, _, _ in times),
                step_min_s=min(step for step, _, _ in times),
                forward_s=statistics.median(forward for _, forward, _ in times),
                peak_mb=max(peak for _, _, peak in times),
            )
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table, and write it with the machine's name to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patch", type=int, nargs=3, action="append", help="D H W; may be given several times")
    parser.add_argument("--network", action="append", metavar="JSON", help='such as \'["unet_s", {"width": 32}]\'')
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    networks = [json.loads(text) for text in given.network] if given.network else NETWORKS
    clock = "processor seconds" if given.threads == 1 else "seconds"
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {given.threads} threads, {clock}")
    print(f"{'network':38}{'patch':>10}  {'form':12}{'step':>8}{'min':>8}{'ratio':>7}{'forward':>9}{'peak MB':>9}")
    rows: list[Row] = []
    for name, options in networks:
        for patch in given.patch or [(48, 64, 48)]:
            new = measure(name, options, patch, threads=given.threads, repeats=given.repeats)
            for row in new:
                size = "x".join(str(n) for n in row.patch)
                print(
                    f"{row.network:38}{size:>10}  {row.form:12}{row.step_s:8.3f}{row.step_min_s:8.3f}"
                    f"{new[0].step_s / row.step_s:7.2f}{row.forward_s:9.3f}{row.peak_mb:9.0f}",
                    flush=True,
                )
            rows += new
    if given.out is not None:
        write_json(given.out, {"threads": given.threads, "clock": clock, "rows": [asdict(row) for row in rows]})
    return rows


if __name__ == "__main__":
    main()
