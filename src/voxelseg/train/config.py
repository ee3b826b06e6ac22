"""Everything that decides a training besides the data: frozen, checked, saved with the run.

Values are set as `--set section.key=value`, for example `--set train.lr=1e-3` or `--set plan.patch_size=[32,64,48]`.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from voxelseg.errors import ConfigError
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.plan.plan import describe

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainConfig(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: Annotated[int, Field(gt=0)] = 1000
    """Length of the training unless a budget is given."""
    steps_per_epoch: Annotated[int, Field(gt=0)] = 250
    budget_s: Positive | None = None
    """Seconds of training: the schedule then follows elapsed time, and an epoch is a fiftieth of the budget."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: NotNegative = 3e-5
    momentum: Share = 0.99
    """Nesterov momentum of sgd."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of adamw."""
    eps: Positive = 1e-4
    """Of adamw; large, as MedNeXt's authors found 1e-8 to give NaN in half precision."""
    schedule: Literal["poly", "cosine", "constant", "plateau"] = "poly"
    poly_power: Positive = 0.9
    warmup: Share = 0.0
    """Share of the training in which the learning rate rises linearly from 0."""
    plateau_factor: Share = 0.5
    plateau_patience: Annotated[int, Field(gt=0)] = 30
    """Epochs without a better validation loss before the rate is multiplied by `plateau_factor`."""
    gradient_clip: NotNegative = 12.0
    """Largest norm of all gradients together; 0 switches clipping off."""
    dice_weight: NotNegative = 1.0
    ce_weight: NotNegative = 1.0
    batch_dice: bool = False
    deep_supervision: bool = True
    foreground_share: Share = 0.33
    """Share of each batch that must hold foreground, at least one patch."""
    ema: Share = 0.0
    """Decay per step of an exponential moving average of the weights, which is then validated and saved; 0: off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that has it, else fp16 on a GPU, fp32 on a CPU."""
    deterministic: bool = False
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make patches; None: one on a CPU, up to eight on a GPU."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """Threads of the CPU's network operations; None leaves torch's choice."""
    validation_patches: Annotated[int, Field(ge=0)] = 24
    """Patches of the running validation, spread over the held-out cases."""


class PredictConfig(BaseModel):
    """How the trained network is applied to a whole scan."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a window that the next one covers again."""
    tta: bool = False
    """Average over mirrored versions along the plan's mirror axes."""
    tolerance_mm: Positive = 1.0
    """Of surface Dice in the final validation."""


class RunConfig(BaseModel):
    """Sections of the configuration; `plan` holds values that replace the planner's."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: dict[str, Any] = {}
    """Options of the network, by the names of its config class."""
    plan: dict[str, Any] = {}
    augmentation: AugmentationConfig = AugmentationConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()

    @model_validator(mode="before")
    @classmethod
    def _sections_are_mappings(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key, section in value.items():
                if isinstance(section, dict | BaseModel):
                    continue
                raise ValueError(f"section {key!r} must be a mapping")
        return value


def build_config(defaults: dict[str, Any], settings: list[str]) -> RunConfig:
    """Configuration from defaults by section, then "section.key=value" settings; ConfigError names every wrong key."""
    value: dict[str, Any] = {section: dict(keys) for section, keys in defaults.items()}
    for setting in settings:
        path, equals, text = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not equals or not dot or not key:
            raise ConfigError(f"--set {setting}: expected section.key=value, for example train.lr=1e-3.")
        value.setdefault(section, {})[key] = _parse(text, setting)
    try:
        return RunConfig.model_validate(value)
    except ValidationError as error:
        known = ", ".join(RunConfig.model_fields)
        raise ConfigError(f"configuration: {describe(error)} Sections are {known}.") from error


def _parse(text: str, setting: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML.") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value
