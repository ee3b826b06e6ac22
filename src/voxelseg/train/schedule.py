"""Learning rate as a function of progress, so that it can follow steps or elapsed time alike."""

import math

from voxelseg.train.config import TrainConfig

WARMUP_START = 1e-3
"""Share of the peak learning rate with which a warm-up begins."""
IMPROVEMENT = 1e-4
"""A validation loss counts as better if it is lower by this much."""


def lr_factor(config: TrainConfig, progress: float) -> float:
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

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.factor = 1.0
        self.best = math.inf
        self.waited = 0

    def update(self, loss: float) -> None:
        """Take the validation loss of one more epoch into account."""
        if loss < self.best - IMPROVEMENT:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.config.plateau_patience:
            self.factor *= self.config.plateau_factor
            self.waited = 0

    def state(self) -> dict[str, float]:
        """What must be saved to continue."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from a saved state."""
        self.factor, self.best, self.waited = state["factor"], state["best"], int(state["waited"])
