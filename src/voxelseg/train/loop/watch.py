"""Watching a training: its running validation, what that costs, and what follows from it."""

import math
from collections.abc import Callable
from typing import Any

from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.budget import num_validation_patches, validation_is_due
from voxelseg.train.loop.schedule import Best, Plateau
from voxelseg.train.loop.state import Counters
from voxelseg.train.loop.step import Stepper
from voxelseg.train.loop.validation import RunningValidation

NOT_VALIDATED: dict[str, Any] = {"validation_loss": None, "validation_dice": None, "mean_dice": None, "best": False}
"""What the log says of an epoch without running validation."""


class Watch:
    """Validates the network of `stepper` now and then; knows the best validation, and whether they stall."""

    def __init__(
        self, config: TrainConfig, validation: RunningValidation, stepper: Stepper, clock: Callable[[], float]
    ) -> None:
        self.config = config
        self.validation = validation
        self.stepper = stepper
        self.clock = clock
        self.plateau = Plateau(config)
        self.best = Best(config)

    def is_due(self, counters: Counters) -> bool:
        """Whether the epoch that is over ends with a running validation."""
        return bool(self.validation.places) and validation_is_due(self.config, counters)

    def look(self, counters: Counters) -> dict[str, Any]:
        """Validate after an epoch; returns what the log says of it, "best" if it is better than all before."""
        loss, dice = self.validate(counters, self._num_patches(counters))
        defined = [value for value in dice.values() if math.isfinite(value)]
        counters.mean_dice = sum(defined) / len(defined) if defined else None
        if self.config.schedule == "plateau":
            self.plateau.update(loss, counters.epoch)
        return {
            "validation_loss": loss,
            "validation_dice": dice or None,
            "mean_dice": counters.mean_dice,
            "best": self.best.update(loss, counters.mean_dice, counters.epoch),
        }

    def time_first_patch(self, counters: Counters) -> bool:
        """Whether it was not known yet how long a patch takes, and now is, with what all of them will."""
        if not self.validation.places or counters.patch_s is not None:
            return False
        self.validate(counters, 1)
        return True

    def validate(self, counters: Counters, num_patches: int) -> tuple[float, dict[str, float]]:
        """Loss and Dice on the first patches of the running validation; its time is noted."""
        began, stepper = self.clock(), self.stepper
        loss, dice = stepper.processes.from_main(
            lambda: self.validation(
                stepper.result,
                stepper.loss,
                device=stepper.device,
                precision=stepper.precision,
                num_patches=num_patches,
            )
        )
        took = self.clock() - began
        counters.validation_s += took
        counters.patch_s = min(took / num_patches, math.inf if counters.patch_s is None else counters.patch_s)
        expected = counters.patch_s * self._num_patches(counters)
        counters.longest_validation_s = max(counters.longest_validation_s, took, expected)
        return loss, dice

    def _num_patches(self, counters: Counters) -> int:
        return num_validation_patches(self.config, counters, len(self.validation.places))

    def state(self) -> dict[str, Any]:
        """What must be saved to continue."""
        return {"plateau": self.plateau.state(), "best": self.best.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.plateau.restore(state["plateau"])
        self.best.restore(state["best"])
