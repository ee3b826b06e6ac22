"""Who takes part in a benchmark: a network each, with what it has of its own.

    mednext_s,uxnet,logonet:num_stages=3,tuned=unet:width=16:train.lr=5e-4

A part is NAME=MODEL:KEY=VALUE:..., where the name may be left out, and so may the keys. A key without a dot is an
option of the network; one with a dot is any other setting. A JSON or YAML file says the same as a list of objects with
`name`, `model`, `options` and `settings`, and also `init` for weights to start from, or `pretrain` for a method.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from voxelseg.data.wording import some
from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.recipes.recipe import as_setting

NNUNET = "nnunet"
"""The model that stands for nnU-Net v2 in an environment of its own."""
_NAME = re.compile(r"[\w.+-]+")
_FILES = (".json", ".yaml", ".yml")
_CLOSING = {"[": "]", "{": "}", "(": ")"}
DECIDED = {
    "train.epochs": "--epochs, --steps or --budget sets the length of all",
    "train.steps_per_epoch": "--epochs, --steps or --budget sets the length of all",
    "train.budget_s": "--epochs, --steps or --budget sets the length of all",
    "train.threads": "--threads sets that of all",
    "transfer.init": "give init in a file of contestants (--models FILE)",
}
"""Settings that are not a contestant's own, and why."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One of them."""

    name: str
    model: str
    settings: tuple[str, ...] = ()
    """What differs from the others', as "section.key=value"; goes before the settings of all."""
    init: str | None = None
    """Folder or file of weights to start from."""
    pretrain: str | None = None
    """Method of a pre-training that each of its trainings starts from."""
    pretrain_settings: tuple[str, ...] = ()
    """Of that."""

    @property
    def is_nnunet(self) -> bool:
        """Whether it is trained by nnU-Net's own commands."""
        return self.model == NNUNET

    @property
    def nnunet_options(self) -> dict[str, Any]:
        """Values of its own options by name; YAMLError if one is none."""
        parts = (setting.removeprefix("model.").partition("=") for setting in self.settings)
        return {name.strip(): yaml.safe_load(value) for name, _, value in parts}

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without what is not set."""
        values = {**asdict(self), "settings": list(self.settings), "pretrain_settings": list(self.pretrain_settings)}
        return {key: value for key, value in values.items() if value not in (None, [])}


def parse_entrants(text: str) -> tuple[Entrant, ...]:
    """Those of a list such as "unet,mednext_s:kernel_size=5", or of the JSON or YAML file of that name.

    ConfigError for another form, unknown keys of a file, settings that are not a contestant's own, and two that have
    one name.
    """
    if text.lower().endswith(_FILES) and Path(text).is_file():
        entrants = tuple(_from_file(one, Path(text)) for one in _read(Path(text)))
    else:
        entrants = tuple(_from_text(part) for part in split_outside_brackets(text, ","))
    return checked(entrants)


def checked(entrants: Sequence[Entrant]) -> tuple[Entrant, ...]:
    """`entrants`.

    ConfigError for none, two of one name, a name that cannot be a folder's, and settings in vain or those of all.
    """
    if not entrants:
        raise ConfigError("--models names no network. Give one or more, such as unet,mednext_s.")
    twice = [name for name, count in Counter(one.name.lower() for one in entrants).items() if count > 1]
    if twice:
        raise ConfigError(f"--models: several contestants are called {some(twice)}. Give each a name: NAME=MODEL.")
    for one in entrants:
        if not _NAME.fullmatch(one.name) or not one.name.strip("."):
            raise ConfigError(f"--models: the name {one.name!r} cannot be that of a folder. Give one: NAME=MODEL.")
        keys = [setting.partition("=")[0].strip() for setting in one.settings]
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            raise ConfigError(f"{one.name}: {some(repeated)}: is given twice. Give each option once.")
        for key in keys:
            reason = "the plan is one for all: give it with --set" if key.startswith("plan.") else DECIDED.get(key)
            if reason is not None:
                raise ConfigError(f"{one.name}: {key} cannot be a contestant's own, since {reason}.")
        if one.pretrain_settings and one.pretrain is None:
            raise ConfigError(f"{one.name}: pretrain_settings need a method, such as pretrain: simmim.")
        if one.is_nnunet:
            _check_nnunet(one)
    return tuple(entrants)


def _check_nnunet(one: Entrant) -> None:
    """ConfigError for settings of nnU-Net other than its batch and mirroring."""
    try:
        options = one.nnunet_options
        wrong = [name for name in options if name not in ("batch_size", "mirroring")]
    except yaml.YAMLError:
        options, wrong = {}, list(one.settings)
    batch, mirroring = options.get("batch_size", 1), options.get("mirroring", True)
    if wrong or one.init or one.pretrain or type(batch) is not int or batch < 1 or type(mirroring) is not bool:
        raise ConfigError(
            f"{one.name}: nnU-Net plans and trains by its own rules. Only batch_size, a number, and mirroring, true or "
            "false, can be set, as in nnunet:batch_size=2:mirroring=false."
        )


def _from_text(part: str) -> Entrant:
    first, *given = split_outside_brackets(part, ":")
    name, equals, model = first.partition("=")
    if not equals:
        name, model = "", first
    wrong = [one for one in given if not re.match(r"\s*[\w.]+\s*=", one)]
    if wrong or not model.strip() or (equals and not name.strip()):
        raise ConfigError(
            f"--models {part!r}: expected MODEL, NAME=MODEL, or MODEL:KEY=VALUE, with : between several keys."
        )
    settings = tuple(_full(one.strip()) for one in given)
    model = model.strip()
    return Entrant(name=name.strip() or _name(model, [one.strip() for one in given]), model=model, settings=settings)


def _full(setting: str) -> str:
    """The setting with its section: an option of the network where it has none."""
    return setting if "." in setting.partition("=")[0] else f"model.{setting}"


def _name(model: str, given: Sequence[str]) -> str:
    """Such as logonet_num_stages_3."""
    words = [model, *(one.replace("=", "_").removeprefix("model.") for one in given)]
    return re.sub(r"(?:[^\w.+-]|_)+", "_", "_".join(words)).strip("_")


def _read(path: Path) -> list[Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))  # which reads JSON, too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON or YAML ({error}). Correct it.") from error
    if not isinstance(content, list):
        raise ConfigError(f"{path}: expected a list of contestants, each with a model, such as - model: unet")
    return content


def _from_file(one: Any, path: Path) -> Entrant:
    known = [*(field.name for field in fields(Entrant)), "options"]
    if isinstance(one, str):
        return _from_text(one)
    if not isinstance(one, Mapping) or not isinstance(one.get("model"), str):
        raise ConfigError(f"{path}: {one!r}: expected an object with a model, such as model: unet.")
    unknown = [str(key) for key in one if key not in known]
    if unknown:
        hints = ", ".join(f"{key!r}{did_you_mean(key, known)}" for key in unknown)
        raise ConfigError(f"{path}: a contestant has no {hints}. Known: {', '.join(known)}.")
    options = [f"model.{key}={as_setting(value)}" for key, value in _mapping(one.get("options"), path).items()]
    settings = (*options, *_settings(one.get("settings"), path))
    return Entrant(
        name=str(one.get("name") or _name(one["model"], settings)),
        model=one["model"],
        settings=settings,
        init=None if one.get("init") is None else str(one["init"]),
        pretrain=None if one.get("pretrain") is None else str(one["pretrain"]),
        pretrain_settings=_settings(one.get("pretrain_settings"), path),
    )


def _settings(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    return tuple(f"{key}={as_setting(one)}" for key, one in _mapping(value, path).items())


def _mapping(value: Any, path: Path) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: {value!r}: expected keys with values, such as train.lr: 0.001.")
    return value


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Parts of `text` between separators that lie outside of brackets; empty ones are left out."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in _CLOSING) - (letter in _CLOSING.values())
        if letter == separator and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part.strip() for part in [*parts, current] if part.strip()]
