"""What a recipe is: the values of a published training, and what is known of where they come from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from voxelseg.data.convert import PublicDataset, find_public_data
from voxelseg.data.dataset import Dataset, is_ct
from voxelseg.data.wording import some
from voxelseg.errors import ConfigError
from voxelseg.train.config import KEYS, RunConfig, build_config

UNSAID = "not said"
"""What a paper says of a value that only its code has."""
Settings = dict[str, dict[str, Any]]
"""Values by section and key of the configuration."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the values of a recipe come from."""

    paper: str
    """Publication."""
    where: str
    """Sections and tables of it."""
    code: str
    """The authors' repository and the state of it."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value in which paper and code differ, or in which the paper says several things."""

    what: str
    """The value that it is about."""
    paper: str
    """What the paper says, or `UNSAID`."""
    code: str
    """What the authors' code does."""
    settings: tuple[str, ...] = ()
    """What to give as --set for what the recipe does not follow; empty where no setting can."""
    note: str = ""
    """Which the recipe follows, and why, where that is not the paper or, if it says nothing, the code."""

    @property
    def choice(self) -> str:
        """Which the recipe follows, in words."""
        return self.note or ("Here the code's." if self.paper == UNSAID else "Here the paper's.")


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number that a paper prints for a training."""

    metric: str
    """With its unit, as in "Dice (%)", a mean over classes and cases."""
    value: float
    digits: int
    """Decimals that are printed."""
    where: str
    """Table, and what it was measured on."""

    def __str__(self) -> str:
        return f"{self.value:.{self.digits}f}{' %' if '%' in self.metric else ''}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published training: `settings` are values of RunConfig, everything else is about them."""

    name: str
    model: str
    """A name of `create_model`."""
    settings: Settings
    """Published values by section and key; what is not in it comes from the planner or is the default."""
    data: str
    """Public data set, by its name in `voxelseg.data.convert`."""
    splits: str = ""
    """Division of these data that the paper used, by its name there; empty: five folds."""
    source: Source
    differences: tuple[Difference, ...] = ()
    reported: tuple[Score, ...] = ()
    """Printed scores, the one to compare with first; empty if none was printed for these values."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Keys that only the user can give, as "transfer.init", and what to give."""
    notes: tuple[str, ...] = ()
    """What cannot be reproduced, and what else to know."""

    @property
    def public_data(self) -> PublicDataset:
        """The data set that the paper trained on."""
        return find_public_data(self.data)

    def config(self, settings: Iterable[str] = ()) -> RunConfig:
        """The whole configuration, with "section.key=value" settings that go before the recipe's; ConfigError if bad.

        What the recipe needs may be missing; `check` says so.
        """
        return build_config(list(settings), base=self.settings)

    def check(self, config: RunConfig) -> None:
        """ConfigError, with what to give, if `config` lacks what only the user can give."""
        for path, what in self.needs.items():
            section, key = path.split(".")
            if getattr(getattr(config, section), key) is None:
                raise ConfigError(f"recipe {self.name} needs {path}: {what}")

    def remarks(self, dataset: Dataset) -> list[str]:
        """What to know before `dataset` is trained on with values that were meant for other data; often empty."""
        found, meant = [], self.public_data
        fixed = "normalization" in self.settings["plan"]  # else the planner's rules suit the data
        if len(dataset.channels) != len(meant.channels):
            found.append(
                f"Recipe {self.name} is for {_count(meant.channels, 'channel')} ({some(meant.channels)}); "
                f"{dataset.name} has {_count(dataset.channels, 'channel')} ({some(dataset.channels)})."
                + (" Give --set plan.normalization=... with a rule for each." if fixed else "")
            )
        elif fixed and any(
            is_ct(there) != is_ct(here) for there, here in zip(meant.channels, dataset.channels, strict=True)
        ):
            found.append(
                f"Recipe {self.name} is for {meant.modality} ({some(meant.channels)}), and {dataset.name} has "
                f"{some(dataset.channels)}: check that plan.normalization suits it."
            )
        if len(dataset.labels.names) != len(meant.classes):
            found.append(
                f"Recipe {self.name} was made for {_count(meant.classes, 'class')} of {meant.title}; {dataset.name} "
                f"has {len(dataset.labels.names)}."
            )
        return found

    def command(self, data: str = "DATA", out: str = "RUN") -> str:
        """The command that trains by this recipe, as the paper divided the data."""
        folds = f" --splits {data}/splits_{self.splits}.json" if self.splits else " --fold all"
        start = " --init START" if "transfer.init" in self.needs else ""
        return f"voxelseg train {data} --out {out} --recipe {self.name}{start}{folds}"

    def flat_settings(self) -> dict[str, str]:
        """The values as --set takes them: "section.key" to text."""
        return {
            f"{section}.{key}": as_setting(value)
            for section in KEYS
            for key, value in self.settings.get(section, {}).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        meant = self.public_data
        public = {"name": meant.name, "title": meant.title, "modality": meant.modality, "cases": meant.num_training}
        return {
            **asdict(self),
            "data": {**public, "channels": list(meant.channels), "classes": list(meant.classes)},
            "needs": dict(self.needs),
            "command": self.command(),
        }


def merged(*parts: Mapping[str, Mapping[str, Any]]) -> Settings:
    """One set of values from several; later ones go before earlier ones, key by key."""
    result: Settings = {}
    for part in parts:
        for section, values in part.items():
            result.setdefault(section, {}).update(values)
    return result


def as_setting(value: Any) -> str:
    """A value as --set takes it, without the quotes that YAML does not need."""
    return json.dumps(value).replace('"', "")


def _count(things: tuple[str, ...], word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{len(things)} {word}{plural if len(things) != 1 else ''}"
