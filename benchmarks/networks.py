"""Seconds of a training step and of a prediction on the CPU: the fast forms of the operations against plain PyTorch.

    python benchmarks/networks.py --threads 2 --out networks.json
    python benchmarks/networks.py --four --batch 1 --patch 64 64 64 --threads 1

Every row is one network on one patch size: one input channel, three classes, deep supervision where the network has it.
A step is the forward pass, the backward pass of a simple loss and the optimizer (AdamW); a forward is without gradients
and as prediction runs it, with the first output only. The forms take turns within each repeat, so that a busy machine
slows all, and the medians and their ratio to the first form are printed. Each form is run in its own process, since
whether freed memory is kept is decided once per process:

- `plain`: PyTorch's own operations in the order of the authors' code (for E2ENet: dense tensors, rolled and
  concatenated; for LoGoNet: the local networks in a loop), glibc's own memory handling;
- `plain, kept`: the same with `keep_freed_memory`;
- `fast, kept`: what `voxelseg train` and `voxelseg predict` run; `fast, fused`, for prediction only, the same after
  `voxelseg.optimize_for_inference`;
- `MONAI` and `MONAI, kept`: MONAI's own network of that name, where it has one.

`--four` measures the default sizes of the four published networks instead of small and large MedNeXts and U-Nets. With
`--threads 1`, processor seconds are counted instead of elapsed ones: other processes then disturb little.
"""

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from voxelseg import optimize_for_inference
from voxelseg.files import write_json
from voxelseg.nets import Network, create_model, find_network
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.ops.dispatch import plain_forms


@dataclass(frozen=True)
class Form:
    """One way of computing a network."""

    keeps_memory: bool
    fast: bool = False
    fused: bool = False
    monai: bool = False


FORMS = {
    "plain": Form(keeps_memory=False),
    "plain, kept": Form(keeps_memory=True),
    "fast, kept": Form(keeps_memory=True, fast=True),
    "fast, fused": Form(keeps_memory=True, fast=True, fused=True),
    "MONAI": Form(keeps_memory=False, monai=True),
    "MONAI, kept": Form(keeps_memory=True, monai=True),
}

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *(("mednext_s", {"width": width, "kernel_size": kernel}) for width in (16, 24, 32) for kernel in (3, 5)),
    ("mednext_xs", {"width": 16, "kernel_size": 3}),
    *(("unet_s", {"width": width}) for width in (16, 32)),
]
THE_FOUR: list[tuple[str, dict[str, Any]]] = [
    ("mednext_s", {"kernel_size": 3}),
    ("mednext_s", {"kernel_size": 5}),
    ("uxnet", {}),
    ("e2enet", {}),
    ("logonet", {}),
]


def _monai_mednext_s(options: dict[str, Any]) -> nn.Module:
    from monai.networks.nets.mednext import MedNeXt

    network: nn.Module = MedNeXt(  # its other defaults are size S
        in_channels=1,
        out_channels=3,
        kernel_size=options.get("kernel_size", 3),
        init_filters=options.get("width", 32),
        deep_supervision=True,
        use_residual_connection=True,
    )
    return network


MONAI: dict[str, Callable[[dict[str, Any]], nn.Module]] = {"mednext_s": _monai_mednext_s}
"""Networks that MONAI has too; from the options of ours."""


@dataclass(frozen=True)
class Row:
    """One network, patch and form; medians and minima over the repeats, in seconds."""

    network: str
    patch: tuple[int, ...]
    form: str
    step_s: float | None
    """None for a form that only predicts."""
    step_min_s: float | None
    forward_s: float
    peak_mb: float
    """Largest resident memory of the process."""


class _Contestant:
    """A network in one form, with its optimizer and an input; runs in a process of its own."""

    def __init__(self, name: str, options: dict[str, Any], shape: Sequence[int], form: Form) -> None:
        if form.keeps_memory:
            keep_freed_memory()
        torch.manual_seed(0)
        self.form = form
        self.model: nn.Module
        self.supervised: Network | None = None
        if form.monai:
            self.model = MONAI[name](options)
        else:
            has_heads = "deep_supervision" in {field.name for field in fields(find_network(name).config)}
            supervision = {"deep_supervision": True} if has_heads else {}
            network = create_model(name, in_channels=1, num_classes=3, **supervision, **options)
            self.model = optimize_for_inference(network) if form.fused else network
            self.supervised = network if network.deep_supervision and not form.fused else None
        self.optimizer = None if form.fused else torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.x = torch.randn(*shape)

    def run(self, clock: Callable[[], float]) -> tuple[float, float]:
        """Seconds of a training step (NaN for a form that only predicts) and of a prediction."""
        with nullcontext() if self.form.fast else plain_forms():
            took = self._step(clock) if self.optimizer is not None else math.nan
            self.model.eval()
            if self.supervised is not None:
                self.supervised.deep_supervision = False
            start = clock()
            with torch.no_grad():
                self.model(self.x)
            return took, clock() - start

    def _step(self, clock: Callable[[], float]) -> float:
        assert self.optimizer is not None
        self.model.train()
        if self.supervised is not None:
            self.supervised.deep_supervision = True
        start = clock()
        outputs = self.model(self.x)
        loss = torch.stack([out.square().mean() for out in ([outputs] if torch.is_tensor(outputs) else outputs)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return clock() - start


def _work(
    connection: Connection, name: str, options: dict[str, Any], shape: Sequence[int], form: Form, threads: int
) -> None:
    """Run once per message until None arrives; the first answer is not counted."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    contestant = _Contestant(name, options, shape, form)
    while connection.recv() is not None:
        connection.send((*contestant.run(clock), _peak_mb()))


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def measure(
    name: str, options: dict[str, Any], patch: Sequence[int], *, batch: int, threads: int, repeats: int
) -> list[Row]:
    """Rows of all forms of one network on one patch, measured in turns."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for label, form in FORMS.items():
        if form.monai and name not in MONAI:
            continue
        ours, theirs = context.Pipe()
        given = (theirs, name, options, (batch, 1, *patch), form, threads)
        process = context.Process(target=_work, args=given, daemon=True)
        process.start()
        theirs.close()
        workers[label] = (process, ours)
    taken: dict[str, list[tuple[float, float, float]]] = {label: [] for label in workers}
    for _ in range(repeats + 1):
        for label, (_process, connection) in workers.items():
            connection.send(True)
            taken[label].append(connection.recv())
    for process, connection in workers.values():
        connection.send(None)
        process.join()
    network = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    return [_row(network, patch, label, times[1:]) for label, times in taken.items()]  # the first warms up


def _row(network: str, patch: Sequence[int], form: str, times: list[tuple[float, float, float]]) -> Row:
    steps, forwards, peaks = zip(*times, strict=True)
    return Row(
        network=network,
        patch=tuple(patch),
        form=form,
        step_s=None if math.isnan(steps[0]) else statistics.median(steps),
        step_min_s=None if math.isnan(steps[0]) else min(steps),
        forward_s=statistics.median(forwards),
        peak_mb=max(peaks),
    )


def _line(row: Row, first: Row) -> str:
    size = "x".join(map(str, row.patch))
    step = f"{'-':>8}{'-':>8}{'-':>7}"
    if row.step_s is not None and row.step_min_s is not None and first.step_s is not None:
        step = f"{row.step_s:8.3f}{row.step_min_s:8.3f}{first.step_s / row.step_s:7.2f}"
    forward = f"{row.forward_s:9.3f}{first.forward_s / row.forward_s:7.2f}"
    return f"{row.network:38}{size:>12}  {row.form:12}{step}{forward}{row.peak_mb:9.0f}"


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table, and write it with the machine's name to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--patch", type=int, nargs=3, action="append", help="D H W; may be given several times")
    parser.add_argument("--four", action="store_true", help="the four published networks at their default sizes")
    parser.add_argument("--network", action="append", metavar="JSON", help='such as \'["unet_s", {"width": 32}]\'')
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    networks = [json.loads(text) for text in given.network or []] or (THE_FOUR if given.four else NETWORKS)
    clock = "processor seconds" if given.threads == 1 else "seconds"
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {given.threads} threads, {clock}")
    print(
        f"{'network':38}{'patch':>12}  {'form':12}{'step':>8}{'min':>8}{'ratio':>7}{'forward':>9}{'ratio':>7}"
        f"{'peak MB':>9}"
    )
    rows: list[Row] = []
    for name, options in networks:
        for patch in given.patch or [(48, 64, 48)]:
            measured = measure(name, options, patch, batch=given.batch, threads=given.threads, repeats=given.repeats)
            for row in measured:
                print(_line(row, measured[0]), flush=True)
            rows += measured
    if given.out is not None:
        settings = {"threads": given.threads, "clock": clock, "batch": given.batch}
        write_json(given.out, {**settings, "rows": [asdict(row) for row in rows]})
    return rows


if __name__ == "__main__":
    main()
