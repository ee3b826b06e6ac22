"""Learning rate as a function of progress, so that it can follow steps or elapsed time alike."""

import math

from voxelseg.train.loop.config import LoopConfig

WARMUP_START = 1e-3
"""Share of the peak learning rate with which a warm-up begins."""
IMPROVEMENT = 1e-4
"""A validation loss counts as better if it is lower by this much."""


def lr_factor(config: LoopConfig, progress: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1]: warm-up, then the schedule over what is left.

    A plateau schedule is constant here; the loop lowers it when validation stalls.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup:
        return max(progress / config.warmup, WARMUP_START)
    after = (progress - config.warmup) / (1 - config.warmup)
    if config.schedule == "poly":
        return float((1 - after) ** config.poly_power)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * after))
    if config.schedule in ("constant", "plateau"):
        return 1.0
    raise AssertionError(config.schedule)


class Plateau:
    """Factor that falls each time the validation loss has not improved for `plateau_patience` epochs."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.factor = 1.0
        self.best = math.inf
        self.since = -1
        """Epoch of the best loss, or of the last fall."""

    def update(self, loss: float, epoch: int) -> None:
        """Take the validation loss after `epoch` into account."""
        if loss < self.best - IMPROVEMENT:
            self.best, self.since = loss, epoch
        elif epoch - self.since >= self.config.plateau_patience:
            self.factor *= self.config.plateau_factor
            self.since = epoch

    def state(self) -> dict[str, float]:
        """What must be saved to continue."""
        return {"factor": self.factor, "best": self.best, "since": self.since}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from a saved state."""
        self.factor, self.best, self.since = state["factor"], state["best"], int(state["since"])


class Best:
    """The best running validation so far, by its score or its loss, and the epoch that it came after."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.value = -math.inf
        """Score, or the negative loss: more is better."""
        self.epoch = -1
        """None yet: as if it had been before the first."""

    def update(self, loss: float, score: float | None, epoch: int) -> bool:
        """Take the validation after `epoch` into account; returns whether it is better than all before.

        A score that is not defined, or a loss that is not a number, is never better.
        """
        value = -loss if self.config.watch == "loss" else score
        if value is None or not value > self.value:
            return False
        self.value, self.epoch = value, epoch
        return True

    def is_too_old(self, epoch: int) -> bool:
        """Whether so many epochs have passed without a better one, after `epoch`, that the training is to end."""
        return 0 < self.config.early_stopping <= epoch - self.epoch

    def state(self) -> dict[str, float]:
        """What must be saved to continue."""
        return {"value": self.value, "epoch": self.epoch}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from a saved state."""
        self.value, self.epoch = state["value"], int(state["epoch"])
