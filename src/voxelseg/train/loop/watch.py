"""Watching a training: its running validation, what that costs, and what follows from it."""

import math
from collections.abc import Callable
from typing import Any, Generic

from voxelseg.train.loop.budget import num_validation_patches, validation_is_due
from voxelseg.train.loop.config import LoopConfig
from voxelseg.train.loop.objective import Model, Validation
from voxelseg.train.loop.schedule import Best, Plateau
from voxelseg.train.loop.state import Counters
from voxelseg.train.loop.step import Stepper


class Watch(Generic[Model]):
    """Validates the model of `stepper` now and then; knows the best validation, and whether they stall."""

    def __init__(
        self, config: LoopConfig, validation: Validation[Model], stepper: Stepper[Model], clock: Callable[[], float]
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
        loss, scores = self.validate(counters, self._num_patches(counters))
        counters.score = self.stepper.objective.score(scores)
        if self.config.schedule == "plateau":
            self.plateau.update(loss, counters.epoch)
        best = self.best.update(loss, counters.score, counters.epoch)
        return self._record(loss, scores or None, counters.score, best=best)

    def not_validated(self) -> dict[str, Any]:
        """What the log says of an epoch without running validation."""
        return self._record(None, None, None, best=False)

    def _record(
        self, loss: float | None, scores: dict[str, float] | None, score: float | None, *, best: bool
    ) -> dict[str, Any]:
        objective = self.stepper.objective
        return {"validation_loss": loss, objective.scores_name: scores, objective.score_name: score, "best": best}

    def time_first_patch(self, counters: Counters) -> bool:
        """Whether it was not known yet how long a patch takes, and now is, with what all of them will."""
        if not self.validation.places or counters.patch_s is not None:
            return False
        self.validate(counters, 1)
        return True

    def validate(self, counters: Counters, num_patches: int) -> tuple[float, dict[str, float]]:
        """Loss and scores on the first patches of the running validation; its time is noted."""
        began, stepper = self.clock(), self.stepper
        loss, scores = stepper.processes.from_main(
            lambda: self.validation(
                stepper.result,
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
        return loss, scores

    def _num_patches(self, counters: Counters) -> int:
        return num_validation_patches(self.config, counters, len(self.validation.places))

    def state(self) -> dict[str, Any]:
        """What must be saved to continue."""
        return {"plateau": self.plateau.state(), "best": self.best.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.plateau.restore(state["plateau"])
        self.best.restore(state["best"])
