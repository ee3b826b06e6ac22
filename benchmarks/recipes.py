"""Does every published training start at its full size? One real step of each recipe on a phantom of its shape.

    python benchmarks/recipes.py [NAME ...] --out recipes.json [--threads 2] [--memory-gb 20] [--smallest]

Each recipe runs as `voxelseg train --recipe NAME` in a process of its own: on a data set with its channels and classes,
whose scans have the size of its patch, for one step, or one before and one after the kernels grow, and one batch to a
step where the recipe accumulates several. Recipes with the same network, patch and batch are done once; `--smallest`
does all of them, with the smallest patch that their network takes. Linux only.

The process may hold `--memory-gb` (default: what is free). What does not fit is done patch by patch, whose gradients
are added up, then with recomputing (train.checkpointing) besides; the table says so. Seconds are those of the steps
and of a running validation with one patch; memory is the process's peak, imports and preprocessing included.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from voxelseg.data.convert import PublicDataset
from voxelseg.data.convert.public import label_table
from voxelseg.data.dataset import is_ct
from voxelseg.files import write_json
from voxelseg.geometry import Grid, Shape
from voxelseg.io import write_volume
from voxelseg.recipes import RECIPES, Recipe, find_recipe
from voxelseg.volume import Volume

NUM_CASES = 2
PLANNED_SHAPE = (64, 64, 64)
"""Scans for recipes whose patch is the planner's."""
_SMALLEST_PATCH = {
    "mednext": [16, 16, 32],
    "uxnet": [32, 16, 16],
    "e2enet": [64, 32, 32],
    "logonet": [64, 32, 32],
}
"""By the first word of the network's name: its divisor, with more than one voxel at the lowest resolution."""
_PATCH_BY_PATCH = ("plan.batch_size=1", "train.accumulate={batch}")
FORMS: dict[str, tuple[str, ...]] = {
    "whole batch": (),
    "patch by patch": _PATCH_BY_PATCH,
    "patch by patch, recomputing": (*_PATCH_BY_PATCH, "train.checkpointing=true"),
}
"""How a step may be done, and the settings for it, given the recipe's batch; the next is tried where one does not
fit."""


@dataclass(frozen=True)
class Step:
    """What was measured of one recipe's step."""

    recipe: str
    form: str
    """A key of FORMS, or why there was no step."""
    steps: int
    """Done: two where kernels grow."""
    loss: float
    """Mean over the last step."""
    seconds: float
    peak_gb: float

    @property
    def passed(self) -> bool:
        """Whether there was a step with a loss that is a number."""
        return self.steps > 0 and isfinite(self.loss)


def write_phantom(public: PublicDataset, folder: Path, shape: Shape, *, spacing_mm: Sequence[float]) -> Path:
    """Data set in nnU-Net's layout with the channels and classes of `public`, NUM_CASES scans of `shape`; its folder.

    Every class occurs: one slab behind the other along W, within the middle of D and H. Intensities are noise around a
    value for each class, in Hounsfield units or from 100 up.
    """
    generator = np.random.default_rng(0)
    d, h, w = shape
    grid = Grid(shape_ijk=(w, h, d), affine_ijk=np.diag([*reversed(spacing_mm), 1.0]))
    values = sorted({value for one in public.labels.classes for value in one.values})
    label = np.zeros(shape, np.uint8)
    for value, slab in zip(values, np.array_split(np.arange(w), len(values)), strict=True):
        label[d // 4 : -(d // 4), h // 4 : -(h // 4), slab] = value
    for number in range(NUM_CASES):
        for channel, name in enumerate(public.channels):
            level = np.where(label > 0, 60 + 8 * label.astype(np.float32), 0)
            scan = (
                generator.normal(level, 20).clip(-150) if is_ct(name) else generator.normal(level + 300, 40).clip(100)
            )
            path = folder / "imagesTr" / f"phantom_{number}_{channel:04d}.nii.gz"
            write_volume(path, Volume(scan[None].astype(np.float32), grid))
        write_volume(folder / "labelsTr" / f"phantom_{number}.nii.gz", Volume(label[None], grid))
    description = {
        "channel_names": {str(channel): name for channel, name in enumerate(public.channels)},
        "labels": label_table(public.labels),
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }
    if public.labels.has_regions:
        description["regions_class_order"] = [one.paint for one in public.labels.classes]
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def smallest_patch(recipe: Recipe) -> list[int]:
    """The smallest patch (D, H, W) that the network of `recipe` takes."""
    return _SMALLEST_PATCH[recipe.model.split("_")[0]]


def one_step_settings(recipe: Recipe) -> list[str]:
    """Settings with which a training by `recipe` ends after one step of one batch, and predicts by single windows."""
    stages = 2 if "grow_kernel" in recipe.settings["train"] else 1
    return [
        f"train.epochs={stages}",
        "train.steps_per_epoch=1",
        "train.accumulate=1",
        "train.validation_patches=1",
        "train.workers=0",
        "predict.tta=false",
        "predict.overlap=0",
    ]


def train_one_step(recipe: Recipe, folder: Path, settings: Sequence[str] = (), **options: Any) -> list[dict[str, Any]]:
    """Events of the log of a training of `recipe` for one step on its phantom, which is written to `folder`.

    `settings` go before `one_step_settings`, `options` are those of `voxelseg.commands.train`.
    """
    from voxelseg import commands

    config = recipe.config(settings)
    shape = tuple(config.plan.get("patch_size", PLANNED_SHAPE))
    spacing_mm = config.plan.get("spacing_mm", (1.0, 1.0, 1.0))
    data = write_phantom(recipe.public_data, folder / "data", shape, spacing_mm=spacing_mm)
    given = {setting.partition("=")[0] for setting in settings}
    short = [setting for setting in one_step_settings(recipe) if setting.partition("=")[0] not in given]
    arguments = {"device": "cpu", "workers": 1, **options}
    run = commands.train(data, folder / "run", recipe=recipe.name, settings=[*short, *settings], **arguments)
    lines = (run.fold_folder(0) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def distinct(recipes: Iterable[Recipe], *, by_size: bool = True) -> list[Recipe]:
    """One recipe for each network with its options and growth, and unless not `by_size` each patch and batch of it."""
    found: dict[str, Recipe] = {}
    for recipe in recipes:
        train, plan = recipe.settings["train"], recipe.settings["plan"]
        same = [
            recipe.model,
            recipe.settings.get("model"),
            *([plan.get("patch_size"), plan.get("batch_size")] if by_size else []),
            train.get("deep_supervision"),
            train.get("grow_kernel"),
        ]
        if not recipe.needs:
            found.setdefault(json.dumps(same), recipe)
    return list(found.values())


def measure(recipe: Recipe, *, threads: int, memory_gb: float, settings: Sequence[str] = ()) -> Step:
    """One step of `recipe` with `settings` in a process of its own, in the first of FORMS that fits `memory_gb`."""
    reason = "no form"
    batch = recipe.settings["plan"].get("batch_size", 1)
    for form, of_form in FORMS.items():
        if "train.checkpointing=true" in of_form and not _can_recompute(recipe):
            continue
        filled = [setting.format(batch=batch) for setting in of_form]
        done = _run_child(recipe, [*settings, *filled, f"train.threads={threads}"], memory_gb)
        if done.returncode == 0:
            return Step(recipe.name, form, **json.loads(done.stdout.splitlines()[-1]))
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if "memory" not in reason and done.returncode != -signal.SIGKILL:  # which the kernel sends when none is left
            break
    return Step(recipe.name, f"failed: {reason}", 0, float("nan"), float("nan"), float("nan"))


def _run_child(recipe: Recipe, settings: Sequence[str], memory_gb: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, recipe.name, "--child", folder, "--memory-gb", str(memory_gb)]
        given = [word for setting in settings for word in ("--set", setting)]
        return subprocess.run([*command, *given], capture_output=True, text=True, check=False)


def _can_recompute(recipe: Recipe) -> bool:
    from dataclasses import fields

    from voxelseg.nets import find_network

    return "checkpointing" in {field.name for field in fields(find_network(recipe.model).config)}


def _child(recipe: Recipe, folder: Path, settings: Sequence[str], memory_gb: float) -> None:
    """Do one step with at most `memory_gb` and print what was measured as JSON."""
    limit = round(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    events = train_one_step(recipe, folder, settings)
    epochs = [event for event in events if event["event"] == "epoch"]
    measured = {
        "steps": epochs[-1]["step"],
        "loss": epochs[-1]["loss"],
        "seconds": epochs[-1]["elapsed_s"],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(measured))


def _all_of(smallest: bool) -> list[Recipe]:
    """Every recipe that starts from nothing, or one of each size."""
    return [recipe for recipe in RECIPES.values() if not recipe.needs] if smallest else distinct(RECIPES.values())


def main(arguments: Sequence[str] | None = None) -> list[Step]:
    """Measure, print and write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; default: one of each kind")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--memory-gb", type=float, default=os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    )
    parser.add_argument("--smallest", action="store_true", help="every recipe, with its network's smallest patch")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], dest="settings", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    chosen = [find_recipe(name) for name in given.names] or _all_of(given.smallest)
    if given.child is not None:
        _child(chosen[0], given.child, given.settings, given.memory_gb)
        return []
    print(f"{'recipe':32} {'steps':>5} {'loss':>8} {'seconds':>8} {'peak GB':>8}  form", flush=True)
    steps = []
    for recipe in chosen:
        patch = [f"plan.patch_size={smallest_patch(recipe)}"] if given.smallest else []
        step = measure(recipe, threads=given.threads, memory_gb=given.memory_gb, settings=patch)
        steps.append(step)
        print(
            f"{step.recipe:32} {step.steps:5} {step.loss:8.4f} {step.seconds:8.1f} {step.peak_gb:8.2f}  {step.form}",
            flush=True,
        )
        if given.out is not None:
            write_json(given.out, {"threads": given.threads, "steps": [asdict(one) for one in steps]})
    print(f"{sum(step.passed for step in steps)} of {len(steps)} passed.")
    return steps


if __name__ == "__main__":
    sys.exit(0 if all(step.passed for step in main()) else 1)
