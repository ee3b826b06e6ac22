"""Write the pages of docs/reference that are made from the code: `python docs/generate_reference.py`."""

import ast
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from voxelseg.nets import NETWORKS, create_model, describe_models
from voxelseg.nets.complexity import CONVENTIONS, cost_in_papers
from voxelseg.nets.network import PrintedCost
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.plan.plan import Normalization, Plan
from voxelseg.pretrain.config import PretrainingLoopConfig, ScansConfig, section_of
from voxelseg.pretrain.methods import METHODS
from voxelseg.recipes import RECIPES, Recipe
from voxelseg.train.config import PredictConfig, TrainConfig
from voxelseg.train.sparse.settings import SparseConfig
from voxelseg.train.start.transfer import TransferConfig

Thing = TypeVar("Thing")
FOLDER = Path(__file__).parent / "reference"
SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "augmentation": AugmentationConfig,
    "predict": PredictConfig,
    "transfer": TransferConfig,
    "sparse": SparseConfig,
    "plan": Plan,
}
_CONFIGURATION = """# Configuration

Set any key with `--set section.key=value` (the value is YAML, so lists are `[1,2,3]`). Keys of `model` are the
[options of the network](models.md#options), as in `--set model.kernel_size=5`. Keys of `plan` replace what the planner
decided; they can also be changed in `plan.json`. An unknown key is an error.

This page is made by `python docs/generate_reference.py` from the classes.
"""


_PRETRAINING = """## Pre-training

`voxelseg pretrain` has the sections `model`, `plan` and `sparse` as above, a `train` section without what belongs to
labels, `pretrain`, and one section for each method. Keys of a method that is not used are refused.

[How to use them](../how-to/pretraining.md); there are the settings of Masked LoGoNet's pre-training, too.
"""


def configuration_page() -> str:
    """Every setting, its default and its meaning."""
    parts = [_CONFIGURATION]
    for section, config in SECTIONS.items():
        parts += [f"## {section}\n", _flat(config.__doc__) + "\n", _settings(config) + "\n"]
    parts += ["### One entry of `plan.normalization`\n", _settings(Normalization) + "\n", _PRETRAINING]
    parts += ["### train, of a pre-training\n", _flat(PretrainingLoopConfig.__doc__) + "\n"]
    parts += [_settings(PretrainingLoopConfig) + "\n"]
    parts += ["### pretrain\n", _flat(ScansConfig.__doc__) + "\n", _settings(ScansConfig) + "\n"]
    for name, method in METHODS.items():
        section = section_of(name)
        parts += [f"### {section}\n", f"`--method {name}`: {method.summary} ({method.source}).\n"]
        parts += [_flat(method.settings.__doc__) + "\n", _settings(method.settings) + "\n"]
        for key, nested in _nested(method.settings).items():
            parts += [f"Keys of `{section}.{key}`, as in `--set {section}.{key}={{...}}`. {_flat(nested.__doc__)}\n"]
            parts += [_settings(nested) + "\n"]
    return "\n".join(parts)


def _nested(config: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Fields that are settings themselves, by their names."""
    return {name: type(field.default) for name, field in config.model_fields.items() if _is_nested(field.default)}


def _is_nested(default: object) -> bool:
    return isinstance(default, BaseModel)


def _settings(config: type[BaseModel]) -> str:
    return _table(
        ("key", "default", "meaning"),
        ((f"`{name}`", _default(field), field.description) for name, field in config.model_fields.items()),
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "from the data"
    return "below" if _is_nested(field.default) else f"`{field.default!r}`"


_MODELS = """# Networks

Names for `--model` and `voxelseg.create_model`. For 1 input channel, 14 classes and one patch of 96 x 96 x 96 voxels,
or of the size after the name; `voxelseg models --size 64,160,160` prints the table for other patches.

- GMAC: 10^9 multiply-accumulates of a prediction, in convolutions, linear layers and attention products. A transposed
  convolution is counted where it reads. FLOPs are twice as many.
- Training and prediction: an estimate of the memory that one patch takes in single precision, with PyTorch's own
  operations. Training holds weights, gradients, the state of AdamW, and the activations kept for the backward pass.
- Divisor: each axis of the input must be a multiple of it; `forward_any_size` pads and crops.

Heads that only deep supervision needs are left out. This page is made by `python docs/generate_reference.py` from the
networks.
"""
_PAPERS = """## Numbers in papers

What papers print for these networks, beside what ours have for the same input, classes and options. Every paper counts
operations in its own way, so ours are counted in each paper's way, too; the last number is our plain count.

- `macs`: multiply-accumulates.
- `fvcore`: the same, and 5 for each normalised value.
- `ptflops`: transposed convolutions as if every output voxel took the full kernel (8 times too many for stride 2);
  biases, norms and activations are added, attention products and layer norms are not.
- `thop`: transposed convolutions likewise; 4 for each normalised value (2 without scale and shift), attention products
  not counted.
- `e2enet`: two for each multiply-accumulate; transposed convolutions likewise, attention products not counted. For
  E2ENet itself active kernels only, in operations and parameters; the plain count has all kernels.
"""
_OPTIONS = """## Options

Fields of each network's config: `create_model("mednext_s", kernel_size=5)`, or `--set model.kernel_size=5`.
`in_channels` and `num_classes` are left out. Named sizes differ from the defaults as said.
"""


def models_page() -> str:
    """Every network with its cost, what papers print for it, and its options."""
    parts = [_MODELS, _costs() + "\n", _PAPERS, _printed() + "\n", _OPTIONS, *_options()]
    return "\n".join(parts)


def _costs() -> str:
    rows = []
    for one in describe_models():
        size = "" if one["size"] == [96, 96, 96] else f" ({_times(one['size'])})"
        rows.append(
            (
                f"`{one['name']}`{size}",
                f"{one['parameters']:,}",
                f"{one['macs'] / 1e9:.1f}",
                f"{one['training_bytes'] / 1e9:.2f}",
                f"{one['prediction_bytes'] / 1e9:.2f}",
                _times(one["divisor"]),
                one["summary"],
                one["source"],
            )
        )
    titles = ("name", "parameters", "GMAC", "training (GB)", "prediction (GB)", "divisor", "what it is", "source")
    return _table(titles, rows)


def _printed() -> str:
    titles = ("network", "printed in", "counted", "10^6 parameters", "ours", "", "10^9 operations", "ours", "", "GMAC")
    rows = [_printed_row(name, cost) for name, entry in NETWORKS.items() for cost in entry.printed]
    return _table((*titles, "note"), rows)


def _printed_row(name: str, cost: PrintedCost) -> tuple[str, ...]:
    assert cost.convention in CONVENTIONS
    with torch.device("meta"):
        model = create_model(name, in_channels=cost.in_channels, num_classes=cost.num_classes, **cost.options)
    parameters, operations, macs = cost_in_papers(model, cost.size, convention=cost.convention)
    options = "".join(f", {key} = {value}" for key, value in cost.options.items())
    return (
        f"`{name}`",
        cost.where,
        f"{cost.convention}: {cost.in_channels} x {_times(cost.size)}, {cost.num_classes} classes{options}",
        *_compared(cost.parameters_m, parameters / 1e6),
        *_compared(cost.gflops, operations / 1e9),
        f"{macs / 1e9:.1f}",
        cost.note,
    )


def _compared(printed: float | None, ours: float) -> tuple[str, str, str]:
    if printed is None:
        return "-", f"{ours:.2f}", ""
    return f"{printed:g}", f"{ours:.2f}", f"{100 * (ours / printed - 1):+.1f} %"


def _options() -> list[str]:
    parts = []
    for config in dict.fromkeys(entry.config for entry in NETWORKS.values()):
        names = [name for name, entry in NETWORKS.items() if entry.config is config]
        parts.append(f"### {', '.join(f'`{name}`' for name in names)}\n")
        parts.append(_flat(config.__doc__) + "\n")
        meanings = _meanings(config)
        fields = [field for field in dataclasses.fields(config) if field.name not in ("in_channels", "num_classes")]
        rows = [(f"`{field.name}`", f"`{field.default!r}`", meanings[field.name]) for field in fields]
        parts.append(_table(("option", "default", "meaning"), rows) + "\n")
        parts += [
            f"`{name}`: {', '.join(f'{key} = {value}' for key, value in NETWORKS[name].options.items())}.\n"
            for name in names
            if NETWORKS[name].options
        ]
    return parts


def _meanings(config: type[Any]) -> dict[str, str]:
    """The text under each field of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for owner in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        (definition,) = ast.parse(inspect.getsource(owner)).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value.value)
    return found


def _table(titles: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    lines += [f"| {' | '.join(_flat(cell).replace('|', 'or') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))


_RECIPES = """# Recipes

Every training of the four papers, for `voxelseg train DATA --out RUN --recipe NAME`; [how to use
them](../how-to/recipes.md). `voxelseg recipes NAME` prints one with all its values. Keys are those of [the
configuration](configuration.md); spacing and patches run along D, H, W: inferior to superior, posterior to anterior,
left to right. What a recipe does not set comes from the planner, or is voxelseg's default.

This page is made by `python docs/generate_reference.py` from the functions in `voxelseg.recipes`.
"""


def recipes_page() -> str:
    """Every recipe: what it trains, its values, where paper and code differ, and what the paper reports."""
    parts = [_RECIPES]
    papers = dict.fromkeys(recipe.source.paper for recipe in RECIPES.values())
    for paper in papers:
        parts += _paper(paper, [recipe for recipe in RECIPES.values() if recipe.source.paper == paper])
    return "\n".join(parts)


def _paper(paper: str, recipes: Sequence[Recipe]) -> list[str]:
    values = {recipe.name: recipe.flat_settings() for recipe in recipes}
    first = values[recipes[0].name]
    shared = [key for key in first if all(one.get(key) == first[key] for one in values.values())]
    own = {
        name: ", ".join(f"`{key}={value}`" for key, value in one.items() if key not in shared)
        for name, one in values.items()
    }
    rows = [
        (f"`{one.name}`", f"`{one.model}`", f"`{one.data}`", _scores(one), own[one.name], one.source.where)
        for one in recipes
    ]
    parts = [
        f"## {paper}\n",
        _table(("recipe", "network", "data", "printed scores", "values of its own", "where in the paper"), rows) + "\n",
        "### Values of all of these\n",
        _table(("key", "value"), ((f"`{key}`", f"`{first[key]}`") for key in shared)) + "\n",
        "### Where paper and code differ\n",
        "Code: " + "; ".join(dict.fromkeys(one.source.code for one in recipes)) + ".\n",
        _table(("value", "paper", "code", "the other", "which the recipe has", "recipes"), _differences(recipes))
        + "\n",
    ]
    remarks = [*_by_recipe(recipes, _needs), *_by_recipe(recipes, lambda one: one.notes)]
    parts += ["### Remarks\n", *(f"- {text} ({names})" for text, names in remarks), ""]
    return parts


def _scores(recipe: Recipe) -> str:
    return (
        "; ".join(f"{score} {score.metric.removesuffix(' (%)')} ({score.where})" for score in recipe.reported) or "none"
    )


def _differences(recipes: Sequence[Recipe]) -> list[tuple[str, ...]]:
    return [
        (
            one.what,
            one.paper,
            one.code,
            " ".join(f"`--set {setting}`" for setting in one.settings),
            one.choice,
            names,
        )
        for one, names in _by_recipe(recipes, lambda recipe: recipe.differences)
    ]


def _needs(recipe: Recipe) -> list[str]:
    return [f"`{key}`: {what}" for key, what in recipe.needs.items()]


def _by_recipe(recipes: Sequence[Recipe], things: Callable[[Recipe], Iterable[Thing]]) -> list[tuple[Thing, str]]:
    """Each thing that some of the recipes have, and the names of these, or "all"."""
    found: dict[Thing, list[str]] = {}
    for recipe in recipes:
        for thing in things(recipe):
            found.setdefault(thing, []).append(f"`{recipe.name}`")
    return [(thing, "all" if len(names) == len(recipes) else ", ".join(names)) for thing, names in found.items()]


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "models.md": models_page,
    "recipes.md": recipes_page,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, text in PAGES.items():
        (FOLDER / page).write_text(text(), encoding="utf-8")
        print(f"Wrote {FOLDER / page}.")
