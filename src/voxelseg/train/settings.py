"""Settings "section.key=value" of a command line, checked against the keys that there are."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.plan.plan import Plan, describe

Sections = dict[str, dict[str, Any]]
"""Values by section and key."""
MAX_SEED = 2**32 - 1
"""What NumPy's global generator takes."""


def check_seed(seed: int) -> None:
    """ConfigError unless `seed` is one that all generators take."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed {seed}: expected 0 to {MAX_SEED}.")


def read_settings(settings: Iterable[str], known: Mapping[str, Collection[str] | None]) -> Sections:
    """The values by section and key, an empty section where nothing is set.

    `known` has the keys of each section, None for one whose keys are checked elsewhere. ConfigError that names every
    wrong section and key, with the closest known one.
    """
    values: Sections = {section: {} for section in known}
    problems = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            problems.append(f"--set {setting}: expected section.key=value, for example train.lr=1e-3")
        elif section not in known:
            problems.append(
                f"--set {setting}: no section {section!r}{did_you_mean(section, known)}, there are {', '.join(known)}"
            )
        elif (keys := known[section]) is not None and key not in keys:
            problems.append(f"--set {setting}: {section} has no {key!r}{did_you_mean(key, keys)}")
        else:
            values[section][key] = _parsed(text, setting)
    if problems:
        raise ConfigError("; ".join(problems) + ". docs/reference/configuration.md lists all keys.")
    return values


def _parsed(text: str, setting: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML.") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def set_length(train: dict[str, Any], *, epochs: int | None, budget_s: float | None) -> None:
    """Put the length that options give into the values of `train`; ConfigError if a setting gives another one."""
    for key, length in (("epochs", epochs), ("budget_s", budget_s)):
        if length is not None and train.setdefault(key, length) != length:
            option = "--budget" if key == "budget_s" else "--epochs"
            raise ConfigError(f"{option} and --set train.{key} give {length:g} and {train[key]}. Give one.")


def refuse_two_lengths(train: Mapping[str, Any]) -> None:
    """ConfigError if the values of `train` have both a budget and a number of epochs or steps."""
    if train.get("budget_s") is not None and (given := {"epochs", "steps_per_epoch"} & train.keys()):
        raise ConfigError(f"{', '.join(sorted(given))} and a budget both set the training's length. Give one.")


def check_plan_values(values: Mapping[str, Any]) -> None:
    """Whether each value fits its key, long before the plan that they replace values of is there."""
    for key, value in values.items():
        field = Plan.model_fields[key]
        try:
            annotation: Any = Annotated[field.annotation, field]
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"plan.{key}: {describe(error)}") from error
