"""How long each training of a benchmark is: equal minutes, equal steps, or equal epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxelseg.errors import ConfigError

LONGEST_EPOCH = 250
"""Steps of an epoch, at most, where the length is given in steps: as many as an epoch has otherwise."""
MOST_VALIDATIONS = 50
"""Of a training whose length is given in steps, as with a budget."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """One of the three, as the user gave it."""

    budget: str | None = None
    """Time such as "30m"."""
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("budget", "steps", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(f'--{name}' for name in given)}" if given else "found none"
            raise ConfigError(
                f"expected one of --budget, --steps and --epochs, {found}. All contestants get equal time (--budget "
                "30m), or equally many steps."
            )
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: expected 1 or more.")

    @property
    def in_minutes(self) -> bool:
        """Whether the time is equal, which depends on the machine and on what else runs."""
        return self.budget is not None

    def settings(self, given: Sequence[str] = ()) -> list[str]:
        """For `voxelseg train --set`, where the length is one in steps; `given` are settings that go before them."""
        if self.steps is None:
            return []
        size = next(count for count in range(min(self.steps, LONGEST_EPOCH), 0, -1) if self.steps % count == 0)
        epochs = self.steps // size
        wanted = {"train.steps_per_epoch": size, "train.epochs": epochs}
        if epochs > MOST_VALIDATIONS:
            wanted["train.validate_every"] = -(-epochs // MOST_VALIDATIONS)
        keys = {setting.partition("=")[0].strip() for setting in given}
        return [f"{key}={value}" for key, value in wanted.items() if key not in keys]

    def options(self) -> list[str]:
        """For `voxelseg train`, where the length is one in time or epochs."""
        if self.budget is not None:
            return ["--budget", self.budget]
        return [] if self.epochs is None else ["--epochs", str(self.epochs)]

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the one that is given."""
        values = {"budget": self.budget, "steps": self.steps, "epochs": self.epochs}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        """In words."""
        if self.budget is not None:
            return f"{self.budget} of training each"
        return f"{self.steps} steps each" if self.steps is not None else f"{self.epochs} epochs each"
