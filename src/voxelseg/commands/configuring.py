"""What the options of `train` and `plan` mean: recipe, network and configuration."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from voxelseg.commands.arguments import parse_duration, parse_growth
from voxelseg.commands.display import PathLike
from voxelseg.errors import ConfigError
from voxelseg.recipes import Recipe, find_recipe
from voxelseg.train.config import RunConfig, build_config

DEFAULT_MODEL = "mednext_s"


def what_to_train(
    *,
    recipe: str | Recipe | None,
    model: str | None,
    settings: Sequence[str],
    init: PathLike | None = None,
    grow_kernel: str | None = None,
    epochs: int | None = None,
    budget: str | None = None,
) -> tuple[Recipe | None, str, RunConfig]:
    """Recipe, network and configuration that these options mean; no file is read.

    ConfigError for an unknown or impossible one, and for two that say different things.
    """
    given = {
        "init": ("transfer.init", None if init is None else str(init)),
        "grow_kernel": ("train.grow_kernel", None if grow_kernel is None else parse_growth(grow_kernel)),
    }
    published = find_recipe(recipe) if isinstance(recipe, str) else recipe
    config = build_config(
        _with_options(settings, given),
        epochs=epochs,
        budget_s=None if budget is None else parse_duration(budget),
        base=None if published is None else published.settings,
    )
    if published is not None:
        published.check(config)
    return published, _model_of(published, model), config


def _model_of(recipe: Recipe | None, model: str | None) -> str:
    """The network to train; ConfigError for the recipe of another one."""
    if recipe is None:
        return model or DEFAULT_MODEL
    if model not in (None, recipe.model):
        raise ConfigError(
            f"--recipe {recipe.name} is a training of {recipe.model}, not of {model}. Leave out --model, or the recipe."
        )
    return recipe.model


def _with_options(settings: Sequence[str], options: Mapping[str, tuple[str, Any]]) -> list[str]:
    """`settings` and one more for each option that is given; ConfigError if a setting says the same thing again.

    `options` has the key and the value, None if it is not given, of each option by name.
    """
    keys = {setting.partition("=")[0].strip() for setting in settings}
    found = list(settings)
    for name, (key, value) in options.items():
        if value is None:
            continue
        if key in keys:
            raise ConfigError(f"--{name.replace('_', '-')} and --set {key} say the same thing. Give one.")
        found.append(f"{key}={json.dumps(value)}")
    return found
