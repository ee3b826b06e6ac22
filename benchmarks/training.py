"""Seconds and memory of a training step of the four networks at their recipes' patch, against plain eager PyTorch.

    python benchmarks/training.py --threads 2 --out training.json
    python benchmarks/training.py --recipe mednext_s_k3_btcv --patch 64 64 64 --batch 1 --repeats 3
    python benchmarks/training.py --device cuda

A step is what `voxelseg train` does with one batch that is there: forward pass, loss, backward pass, clipping,
optimizer and masks, with the recipe's settings, on random images and labels; patches are not made, and of accumulated
batches one is taken. `--patch`, `--batch` and `--width` replace the recipe's.

Forms: `voxelseg`, what training runs; `plain`, PyTorch's own operations in the order of the authors' code (for E2ENet
dense tensors, rolled and concatenated; for LoGoNet the local networks in a loop) with glibc's own memory handling; on a
CPU `plain, kept`, the same with freed memory kept (`keep_freed_memory`), which any program could do; with `--compile`
and `--deterministic` also what these settings of `train` run.

Every measurement has a process of its own, takes a step to warm up and then times `--steps` of them; the forms take
turns, `--repeats` times. Medians of all steps are printed, and the ratio to `plain`. With `--threads 1` processor
seconds are counted on a CPU instead of elapsed ones: other processes then disturb little. Memory is the largest one
seen beyond what the process held before the network was built: resident on a CPU, allocated by torch on a GPU. Beyond
`--memory-gb` a process is refused more.

On a GPU, what others published for training these networks is printed below, with its source: measured elsewhere, on
other machines, and with the making of patches; so it says roughly how large the numbers should be, not more.
"""

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch

from voxelseg.data.dataset import Dataset
from voxelseg.data.labels import parse_labels
from voxelseg.errors import WorkerError, memory_ran_out
from voxelseg.files import write_json
from voxelseg.nets import Network, find_network
from voxelseg.ops.allocator import keep_freed_memory
from voxelseg.ops.dispatch import plain_forms
from voxelseg.parallel import call_in_process
from voxelseg.recipes import find_recipe
from voxelseg.train.loop.segmentation import Segmentation
from voxelseg.train.loop.step import Stepper
from voxelseg.train.machines.distributed import Processes
from voxelseg.train.run import build_network
from voxelseg.train.start.transfer import TransferConfig

RECIPES = ("mednext_s_k3_btcv", "mednext_s_k5_btcv", "uxnet_flare21", "e2enet_s80_amos22", "logonet_btcv")


@dataclass(frozen=True)
class Form:
    """One way of computing a training step."""

    plain: bool = False
    keeps_memory: bool = True
    compiled: bool = False
    deterministic: bool = False


FORMS = {
    "plain": Form(plain=True, keeps_memory=False),
    "plain, kept": Form(plain=True),
    "voxelseg": Form(),
    "compiled": Form(compiled=True),
    "deterministic": Form(deterministic=True),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others measured: seconds per step of a batch of two patches, and memory where it was told."""

    network: str
    seconds: float
    memory_gb: float | None = None
    machine: str
    source: str


_EPOCH_S = {
    "MedNeXt S k3": 117,
    "MedNeXt S k5": 364,
    "MedNeXt B k3": 120,
    "MedNeXt B k5": 381,
    "MedNeXt M k3": 213,
    "MedNeXt M k5": 668,
    "MedNeXt L k3": 267,
    "MedNeXt L k5": 735,
}
_PAPER = "MedNeXt, MICCAI 2023, Table 3: seconds of an epoch of 250 steps"
_PRESETS = "nnU-Net, documentation/resenc_presets.md: hours of 1000 epochs of 250 steps, memory by nvidia-smi"
PUBLISHED = [
    *(
        Published(network=name, seconds=epoch_s / 250, memory_gb=None, machine="A100", source=_PAPER)
        for name, epoch_s in _EPOCH_S.items()
    ),
    *(
        Published(
            network=name, seconds=hours * 3600 / 250_000, memory_gb=memory, machine="A100 40 GB PCIe", source=_PRESETS
        )
        for name, hours, memory in [
            ("MedNeXt L k3", 68, 17.3),
            ("MedNeXt L k5", 233, 18.0),
            ("nnU-Net", 9, 7.7),
            ("nnU-Net ResEnc L", 35, 22.7),
            ("SwinUNETR", 15, 13.1),
        ]
    ),
    Published(
        network="MedNeXt L k3",
        seconds=1200 / 250,
        memory_gb=None,
        machine="RTX 3090",
        source="MIC-DKFZ/MedNeXt issue 20",
    ),
]
"""For 3D UX-Net, E2ENet and LoGoNet nobody published the time of a training step."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement."""

    recipe: str
    form: str
    patch: tuple[int, ...] | None
    batch: int | None
    width: int | None
    device: str
    threads: int
    steps: int
    memory_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """All measurements of a recipe in one form."""

    recipe: str
    model: str
    patch: tuple[int, ...]
    batch: int
    form: str
    step_s: float | None
    """Median; None if the memory ran out."""
    step_min_s: float | None
    peak_mb: float | None
    """Beyond the imports."""
    steps: int
    """Measured."""


def measure(task: Task) -> tuple[list[float], float] | None:
    """Seconds of each step, and MB of the peak beyond the imports; None if the memory ran out. Changes the process."""
    form, device = FORMS[task.form], torch.device(task.device)
    torch.set_num_threads(task.threads)
    if task.memory_gb is not None:
        limit = round(task.memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if form.keeps_memory:
        keep_freed_memory()
    if form.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(form.deterministic, warn_only=device.type == "cuda")
    torch.backends.cudnn.benchmark = not form.deterministic
    before = _memory_mb(device)
    try:
        with plain_forms() if form.plain else nullcontext():
            return _timed_steps(task, device), _memory_mb(device, peak=True) - before
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        return None


def _timed_steps(task: Task, device: torch.device) -> list[float]:
    stepper, shape, num_classes = _prepared(task, device)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator)
    target = torch.randint(num_classes, (shape[0], *shape[2:]), generator=generator, dtype=torch.int16)
    clock = time.process_time if task.threads == 1 and device.type == "cpu" else time.perf_counter
    taken = []
    for number in range(1, task.steps + 2):
        began = clock()
        stepper.gradients([(image, target)])
        stepper.update(1e-4)
        stepper.finish(step=number, progress=0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - began)
    return taken[1:]  # the first warms up


def _prepared(task: Task, device: torch.device) -> tuple[Stepper[Network], tuple[int, ...], int]:
    """What takes steps, the shape of its images (B, C, D, H, W), and the number of classes."""
    recipe = find_recipe(task.recipe)
    options = {} if task.width is None else width_options(recipe.model, task.width)
    config = recipe.config([f"model.{name}={value}" for name, value in options.items()])
    labels = parse_labels({"background": 0} | {name: n for n, name in enumerate(recipe.public_data.classes, start=1)})
    channels = tuple(recipe.public_data.channels)
    dataset = Dataset(recipe.data, Path(), "none", channels, labels, cases=())
    torch.manual_seed(0)
    train = config.train.model_copy(update={"accumulate": 1, "compile": FORMS[task.form].compiled})
    network, alone = build_network(recipe.model, dataset, config).to(device), Processes.alone(device)
    stepper = Stepper(
        network,
        train,
        Segmentation(network, train, labels, alone),
        transfer=TransferConfig(),
        sparse=config.sparse,
        seed=0,
        processes=alone,
    )
    patch, batch = _size(task)
    return stepper, (batch, len(channels), *patch), labels.num_outputs


def _size(task: Task) -> tuple[tuple[int, ...], int]:
    plan = find_recipe(task.recipe).settings["plan"]
    return task.patch or tuple(plan["patch_size"]), task.batch or plan["batch_size"]


def width_options(model: str, width: int) -> Mapping[str, Any]:
    """Options of a network for so many channels at its first level, twice as many at each further one."""
    known = {field.name for field in fields(find_network(model).config)}
    if "width" in known:
        return {"width": width}
    return {"features" if "features" in known else "dims": [width << level for level in range(4)]}


def _memory_mb(device: torch.device, *, peak: bool = False) -> float:
    """MB of 10^6 bytes that the process holds, or has held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6 if peak else torch.cuda.memory_allocated(device) / 1e6
    wanted = "VmHWM" if peak else "VmRSS"
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[wanted].split()[0]) * 1024 / 1e6


def rows_of(recipe: str, forms: Sequence[str], *, repeats: int, **settings: Any) -> list[Row]:
    """Rows of all `forms` of one recipe, which take turns; `settings` are fields of Task."""
    found: dict[str, list[tuple[list[float], float] | None]] = {form: [] for form in forms}
    tasks = {form: Task(recipe=recipe, form=form, **settings) for form in forms}
    for _ in range(repeats):
        for form, task in tasks.items():
            if None not in found[form]:
                found[form].append(_measured_apart(task))
    return [_row(tasks[form], found[form]) for form in forms]


def _measured_apart(task: Task) -> tuple[list[float], float] | None:
    try:
        return call_in_process(measure, task)
    except WorkerError:  # the system killed it, as it does where the memory runs out
        return None


def _row(task: Task, found: Sequence[tuple[list[float], float] | None]) -> Row:
    known = [one for one in found if one is not None]
    seconds = [second for taken, _ in known for second in taken] if len(known) == len(found) else []
    patch, batch = _size(task)
    return Row(
        recipe=task.recipe,
        model=find_recipe(task.recipe).model,
        patch=patch,
        batch=batch,
        form=task.form,
        step_s=statistics.median(seconds) if seconds else None,
        step_min_s=min(seconds) if seconds else None,
        peak_mb=max(peak for _, peak in known) if seconds else None,
        steps=len(seconds),
    )


def _line(row: Row, plain: Row) -> str:
    size = f"{row.batch} x {'x'.join(map(str, row.patch))}"
    start = f"{row.recipe:24}{size:>18}  {row.form:12}"
    if row.step_s is None or row.step_min_s is None or row.peak_mb is None:
        return f"{start}  the memory ran out"
    ratios = ["-", "-"]
    if plain.step_s is not None and plain.peak_mb is not None:
        ratios = [f"{plain.step_s / row.step_s:.2f}", f"{row.peak_mb / plain.peak_mb:.2f}"]
    rate = prod(row.patch) * row.batch / row.step_s / 1e6
    return f"{start}{row.step_s:9.3f}{row.step_min_s:9.3f}{ratios[0]:>7}{rate:9.2f}{row.peak_mb:10.0f}{ratios[1]:>7}"


def _published_lines() -> list[str]:
    lines = ["Published by others, for batches of two patches, mostly of 128x128x128:"]
    for one in PUBLISHED:
        memory = "" if one.memory_gb is None else f", {one.memory_gb:g} GB"
        lines.append(f"  {one.network:18}{one.seconds:7.2f} s a step{memory}  {one.machine}  ({one.source})")
    return [*lines, "  3D UX-Net, E2ENet, LoGoNet: no time of a training step was published."]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print the table, and write it with the machine's name to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help=f"may be given again; default: {', '.join(RECIPES)}")
    parser.add_argument("--patch", type=int, nargs=3, metavar=("D", "H", "W"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--width", type=int, help="channels at the first level")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed in each process")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each form")
    parser.add_argument("--memory-gb", type=float, help="on a CPU (Linux); default: no limit")
    parser.add_argument("--compile", action="store_true", help="measure train.compile, too")
    parser.add_argument("--deterministic", action="store_true", help="measure train.deterministic, too")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    on_gpu = torch.device(given.device).type == "cuda"
    left_out = {
        *(() if given.compile else ("compiled",)),
        *(() if given.deterministic else ("deterministic",)),
        *(("plain, kept",) if on_gpu else ()),
    }
    forms = [name for name in FORMS if name not in left_out]
    machine = torch.cuda.get_device_name(given.device) if on_gpu else platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}, {given.threads} threads")
    print(
        f"{'recipe':24}{'batch x patch':>18}  {'form':12}{'step s':>9}{'min':>9}{'ratio':>7}{'Mvoxel/s':>9}"
        f"{'peak MB':>10}{'ratio':>7}"
    )
    settings = {
        **{name: getattr(given, name) for name in ("batch", "width", "device", "threads", "steps", "memory_gb")},
        "patch": None if given.patch is None else tuple(given.patch),
    }
    rows: list[Row] = []
    for recipe in given.recipe or RECIPES:
        measured = rows_of(recipe, forms, repeats=given.repeats, **settings)
        print("\n".join(_line(row, measured[0]) for row in measured), flush=True)
        rows += measured
    if on_gpu:
        print("\n".join(_published_lines()))
    if given.out is not None:
        record = {"machine": machine, "torch": torch.__version__, **settings, "rows": [asdict(row) for row in rows]}
        write_json(given.out, record | ({"published": [asdict(one) for one in PUBLISHED]} if on_gpu else {}))
    return rows


if __name__ == "__main__":
    main()
