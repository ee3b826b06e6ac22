"""The commands `models` and `recipes`."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from voxelseg.benchmark.grids import Grid
from voxelseg.commands.display import counting_bar
from voxelseg.errors import ConfigError
from voxelseg.nets import describe_models, list_models
from voxelseg.recipes import RECIPES, Difference, Recipe, find_recipe

MOST_VOXELS = 4096
"""Along one axis; no patch is larger."""


def models(size: str | int = 96, *, console: Console | None = None) -> list[dict[str, Any]]:
    """Every network that `create_model` and --model know, and what a patch costs it for 1 channel and 14 classes.

    `size` is the patch: voxels along each axis, as 96 or "64,160,160" (D, H, W). ConfigError for anything else.
    Networks that need a library which is not installed are left out; with `console` that is said.
    """
    patch, names = parse_size(size), list_models()
    with counting_bar(console, "Counting", total=len(names)) as update:
        found = describe_models(patch, progress=lambda done, name: update(done, note=name))
    missing = [name for name in names if name not in {one["name"] for one in found}]
    if missing and console is not None:
        remark = f'Left out, until you pip install "voxelseg[baselines]": {", ".join(missing)}.'
        console.print(remark, soft_wrap=True, highlight=False, markup=False)
    return found


def parse_size(text: str | int) -> tuple[int, int, int]:
    """Voxels along D, H, W of "64,160,160", or of one number for all three; ConfigError for anything else."""
    numbers = [int(part) for part in re.findall(r"\d+", str(text))]
    written = ",".join(map(str, numbers)) == re.sub(r"\s", "", str(text))
    if not written or len(numbers) not in (1, 3) or not all(1 <= number <= MOST_VOXELS for number in numbers):
        raise ConfigError(
            f"size {text!r}: expected voxels along each axis, as 96, or along D, H, W, as 64,160,160; "
            f"from 1 to {MOST_VOXELS}."
        )
    d, h, w = numbers * (3 // len(numbers))
    return d, h, w


def models_table(found: list[dict[str, Any]], size: str | int) -> Table:
    """What `models` found for patches of `size`, for people."""
    asked = list(parse_size(size))
    table = Table(
        title=f"Networks: 1 channel, 14 classes, one patch of {_times(asked)} voxels",
        caption=Text(
            "GMAC: 10^9 multiply-accumulates of a prediction. GB: an estimate of what a training step (weights, "
            "gradients, AdamW, activations) or a prediction holds at once in single precision with PyTorch's own "
            "operations. Below a name: the patch, where the network takes only multiples of its divisor, or slices.",
            style="table.caption",
            justify="left",
        ),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for title in ("params\n(10^6)", "GMAC", "train\n(GB)", "predict\n(GB)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("divisor", no_wrap=True)
    table.add_column("what it is")
    for one in found:
        table.add_row(
            one["name"] if one["size"] == asked else f"{one['name']}\n  {_times(one['size'])}",
            f"{one['parameters'] / 1e6:.2f}",
            f"{one['macs'] / 1e9:.1f}",
            f"{one['training_bytes'] / 1e9:.2f}",
            f"{one['prediction_bytes'] / 1e9:.2f}",
            _times(one["divisor"]),
            Text(one["summary"]),
        )
    return table


def recipes(name: str | None = None) -> list[Recipe]:
    """Every recipe that --recipe knows, or the one of this name; ConfigError, with the closest, for an unknown one."""
    return list(RECIPES.values()) if name is None else [find_recipe(name)]


def recipes_table(found: Sequence[Recipe]) -> Table:
    """What `recipes` found, one line each, for people."""
    table = Table(
        title=f"{len(found)} published trainings",
        caption=Text(
            "Steps: of the optimizer; 2 x where kernels grow after the first half. Score: the first that the paper "
            "prints for this training. `voxelseg recipes NAME` shows all of one.",
            style="table.caption",
            justify="left",
        ),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("recipe", no_wrap=True)
    table.add_column("network", no_wrap=True)
    table.add_column("data")
    for title in ("patch", "steps", "score"):
        table.add_column(title, justify="right", no_wrap=True)
    for recipe in found:
        score = recipe.reported[0] if recipe.reported else None
        table.add_row(
            recipe.name,
            recipe.model,
            recipe.data,
            _patch(recipe),
            _steps(recipe),
            "" if score is None else str(score),
        )
    return table


def grids_page(grids: Mapping[str, Grid]) -> Group:
    """Grids of benchmarks, for people: network, what differs, contestants, source."""
    shown: list[Text | Table] = []
    for name, grid in grids.items():
        arms = ", ".join(arm.name for arm in grid.arms)
        rows = [("network", "those it compares" if grid.fixed else grid.model), ("differs", grid.summary)]
        shown += [Text(name, style="bold"), _two_columns([*rows, ("contestants", arms), ("source", grid.source)])]
    return Group(*shown)


def recipe_page(recipe: Recipe) -> Group:
    """All of a recipe, for people: values, data, source, differences, scores, remarks, command."""
    public, source = recipe.public_data, recipe.source
    parts: list[tuple[str, Iterable[tuple[str, str]]]] = [
        (
            recipe.name,
            (
                ("network", recipe.model),
                ("paper", f"{source.paper}: {source.where}"),
                ("code", source.code),
                ("data", f"{public.title}, {public.num_training} labelled cases; `voxelseg data show {public.name}`"),
                ("channels", ", ".join(public.channels)),
                ("classes", ", ".join(public.classes)),
            ),
        ),
        ("Printed scores", ((str(score), f"{score.metric}: {score.where}") for score in recipe.reported)),
        ("Values", recipe.flat_settings().items()),
        ("Where paper and code differ", ((one.what, _difference(one)) for one in recipe.differences)),
        ("You give", recipe.needs.items()),
        ("Remarks", (("-", note) for note in recipe.notes)),
        ("Command", (("$", recipe.command()),)),
    ]
    shown: list[Text | Table] = []
    for title, rows in parts:
        lines = list(rows)
        if lines:
            shown += [Text(f"\n{title}" if shown else title, style="bold"), _two_columns(lines)]
    return Group(*shown)


def _two_columns(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(max_width=40)
    table.add_column()
    for left, right in rows:
        table.add_row(Text(f"  {left}"), Text(right))
    return table


def _difference(one: Difference) -> str:
    other = f" Other: {' '.join(f'--set {shlex.quote(setting)}' for setting in one.settings)}." if one.settings else ""
    return f"Paper: {one.paper}. Code: {one.code}.{other} {one.choice}"


def _patch(recipe: Recipe) -> str:
    patch = recipe.settings["plan"].get("patch_size")
    return "planned" if patch is None else _times(patch)


def _steps(recipe: Recipe) -> str:
    train = recipe.settings["train"]
    steps = train["epochs"] * train["steps_per_epoch"]
    return f"2 x {steps // 2:,}" if "grow_kernel" in train else f"{steps:,}"


def _times(numbers: list[int]) -> str:
    same = len(numbers) == 3 and len(set(numbers)) == 1
    return f"{numbers[0]}^3" if same else "x".join(map(str, numbers))
