"""The stages of a training: one, or two if its kernels grow on the way (UpKern, Roy et al., MICCAI 2023, Sec. 2.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.state import STATE_FILE

SMALL_KERNEL_FILE = "small_kernel.safetensors"
"""In the folder of a fold: the model at the end of the stage before the kernels grow."""
SMALL_KERNEL_STATE_FILE = "training_state_small_kernel.pt"
"""What continuing that stage needs."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a training that has a network, an optimizer and a schedule of its own; most have only one.

    The log and the numbers of the samples go on from one stage to the next.
    """

    name: str | None = None
    """In the log; None for the only stage of a training."""
    state_file: str = STATE_FILE
    """Name of the file that continuing needs, in the folder of the fold."""
    epochs: int = 0
    """Done by earlier stages."""
    steps: int = 0
    """Done by earlier stages."""
    elapsed_s: float = 0.0
    """Spent on earlier stages."""

    def counted_on(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` of a log event with the counts of this stage turned into those of the whole training; None stays."""
        before = {"epoch": self.epochs, "best_epoch": self.epochs, "step": self.steps, "elapsed_s": self.elapsed_s}
        counts = {key: value + before[key] for key, value in values.items() if key in before and value is not None}
        return {**values, **counts}


def share_before_growth(config: TrainConfig) -> float:
    """Share of the training's length that comes before the kernels grow."""
    return config.grow_share if config.budget_s is not None else config.stage_epochs[0] / config.epochs


def before_growth(config: TrainConfig) -> TrainConfig:
    """`config` with the length of the stage before the kernels grow."""
    return _of_length(config, config.stage_epochs[0], config.grow_share)


def after_growth(config: TrainConfig) -> TrainConfig:
    """`config` with length and learning rate of the stage after the kernels have grown: the length is what is left."""
    rest = _of_length(config, config.stage_epochs[1], 1 - config.grow_share)
    return rest.model_copy(update={"lr": config.lr if config.grow_lr is None else config.grow_lr})


def _of_length(config: TrainConfig, epochs: int, share: float) -> TrainConfig:
    if config.budget_s is not None:
        return config.model_copy(update={"budget_s": share * config.budget_s})
    return config.model_copy(update={"epochs": epochs})
