"""How contestants are compared, and the rules of what is called better, worse and equivalent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from voxelseg.errors import ConfigError
from voxelseg.metrics import Column
from voxelseg.statistics.resampling import RESAMPLES
from voxelseg.statistics.sample_size import POWER

Missing = Literal["refuse", "worst", "leave-out"]


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Of `compare`."""

    margin: float = 0.005
    """Differences of ratios, such as Dice, that are smaller are not worth speaking of."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Margins of single columns by key, such as {"hd95_mm": 0.5}; without one, none of mm is called equivalent."""
    alpha: float = 0.05
    """Level of tests, each adjusted for all pairs of its table; intervals hold 1 - alpha."""
    resamples: int = RESAMPLES
    """Draws of the bootstrap."""
    seed: int = 0
    """Of the draws."""
    missing: Missing = "refuse"
    """What a missing prediction counts as. "refuse": nothing is compared, since only you can know why it is missing:
    the tool may have failed, which is its worst result, or never have been asked. "worst": the worst value of the
    column. "leave-out": the case is left out for all."""
    power: float = POWER
    """With which the number of patients that would be needed is stated."""

    def __post_init__(self) -> None:
        for key, margin in {"margin": self.margin, **self.margins}.items():
            if not 0 < margin < math.inf:
                raise ConfigError(f"the margin of {key} must be a positive number, got {margin}.")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha must lie between 0 and 0.5, got {self.alpha}.")
        if not 0.5 <= self.power < 1:
            raise ConfigError(f"power must be at least 0.5 and below 1, got {self.power}.")
        if self.resamples < 100:
            raise ConfigError(f"resamples must be at least 100, got {self.resamples}.")
        if self.missing not in get_args(Missing):
            raise ConfigError(f"missing must be one of {', '.join(get_args(Missing))}, got {self.missing!r}.")

    def margin_of(self, column: Column) -> float | None:
        """Margin of a column; None for one with a unit that was given none."""
        return self.margins.get(column.key, None if column.unit else self.margin)
