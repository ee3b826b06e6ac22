"""What every training has, whatever it minimises: its length, optimizer, schedule, precision, processes."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class LoopConfig(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    epochs: PositiveInt = 1000
    """Length of the training unless a budget is given."""
    steps_per_epoch: PositiveInt = 250
    """Optimizer steps. With a budget, an epoch is a fiftieth of it instead."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged for one step, which then sees so many times `plan.batch_size` patches."""
    budget_s: Positive | None = None
    """Seconds of training, running validation included: the schedule then follows elapsed time."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: NotNegative = 3e-5
    """Decoupled from the gradient in adamw, part of it in sgd."""
    momentum: ShareBelowOne = 0.99
    """Nesterov momentum of sgd."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """Of adamw."""
    eps: Positive = 1e-4
    """Of adamw; large, as MedNeXt's authors found 1e-8 to give NaN in half precision."""
    schedule: Literal["poly", "cosine", "constant", "plateau"] = "poly"
    """Course of the learning rate after the warm-up: down to 0 as a power or a cosine, level, or down in steps."""
    poly_power: Positive = 0.9
    """Exponent of the poly schedule."""
    warmup: ShareBelowOne = 0.0
    """Share of the training in which the learning rate rises linearly from a thousandth of its peak."""
    plateau_factor: Share = 0.5
    """What the learning rate is multiplied by when validation stalls."""
    plateau_patience: PositiveInt = 30
    """Epochs without a better validation loss before the rate is multiplied by `plateau_factor`."""
    gradient_clip: NotNegative = 12.0
    """Largest norm of all gradients together; 0 switches clipping off."""
    ema: ShareBelowOne = 0.0
    """Decay per step of an exponential moving average of the weights, which is then validated and saved; 0: off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that has it, else fp16 on a GPU, fp32 on a CPU."""
    compile: bool = False
    """Have torch.compile make code for the training's forward and backward pass; the first step then takes minutes."""
    checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, more time. None: the network's own default."""
    deterministic: bool = False
    """Only operations that give the same bits each time, where the device has them; slower on a GPU."""
    workers: NotNegativeInt | None = None
    """Processes that make patches; None: one on a CPU, eight on a GPU, or one for each core if these are fewer. May be
    changed for a run that is there."""
    threads: PositiveInt | None = None
    """Threads of the CPU's network operations; None leaves torch's choice. May be changed for a run that is there."""
    validation_patches: NotNegativeInt = 24
    """Patches of the running validation, spread over the held-out cases; a budget may allow fewer."""
    validate_every: PositiveInt = 1
    """Epochs from one running validation to the next; there is one at the end, too."""
    watch: str = "loss"
    """What of the running validation `save_best` and `early_stopping` go by."""
    save_best: bool = True
    """Whether the weights of the best running validation are kept in best.safetensors, besides the last."""
    early_stopping: NotNegativeInt = 0
    """Epochs without a better running validation after which the training ends; 0: never."""
    tensorboard: bool = False
    """Write the log as curves for TensorBoard, too. May be changed for a run that is there."""

    @model_validator(mode="after")
    def _validates(self) -> "LoopConfig":
        if self.schedule == "plateau" and self.validation_patches == 0:
            raise ValueError("the plateau schedule needs validation_patches")
        if self.early_stopping and self.validation_patches == 0:
            raise ValueError("early_stopping needs validation_patches")
        return self


ONLY_WITH: dict[str, tuple[str, Callable[[LoopConfig], bool]]] = {
    "momentum": ("train.optimizer=sgd", lambda train: train.optimizer == "sgd"),
    "betas": ("train.optimizer=adamw", lambda train: train.optimizer == "adamw"),
    "eps": ("train.optimizer=adamw", lambda train: train.optimizer == "adamw"),
    "poly_power": ("train.schedule=poly", lambda train: train.schedule == "poly"),
    "plateau_factor": ("train.schedule=plateau", lambda train: train.schedule == "plateau"),
    "plateau_patience": ("train.schedule=plateau", lambda train: train.schedule == "plateau"),
    "validate_every": ("train.validation_patches", lambda train: train.validation_patches > 0),
    "watch": (
        "train.validation_patches, and train.save_best or train.early_stopping",
        lambda train: train.validation_patches > 0 and (train.save_best or train.early_stopping > 0),
    ),
}
"""Keys that belong to one choice of several: what they need, and whether it is so."""


def set_in_vain(
    given: Mapping[str, Any],
    config: BaseModel,
    only_with: Mapping[str, tuple[str, Callable[[Any], bool]]],
    *,
    section: str = "train",
) -> list[str]:
    """What is wrong with the keys that are `given` without what `only_with` says that they need, one text for each.

    `config` is that of the `section`.
    """
    fields = type(config).model_fields
    return [
        f"{section}.{key} needs {needed}"
        for key, (needed, holds) in only_with.items()
        if key in given and getattr(config, key) != fields[key].default and not holds(config)
    ]
