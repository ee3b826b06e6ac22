"""Everything that decides a training besides the data: frozen, checked, saved with the run.

Values are set as `--set section.key=value`, for example `--set train.lr=1e-3` or `--set plan.patch_size=[32,64,48]`.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.plan.plan import Plan, describe

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    epochs: Annotated[int, Field(gt=0)] = 1000
    """Length of the training unless a budget is given."""
    steps_per_epoch: Annotated[int, Field(gt=0)] = 250
    """Optimizer steps; one step sees a batch. With a budget, an epoch is a fiftieth of it instead."""
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
    plateau_patience: Annotated[int, Field(gt=0)] = 30
    """Epochs without a better validation loss before the rate is multiplied by `plateau_factor`."""
    gradient_clip: NotNegative = 12.0
    """Largest norm of all gradients together; 0 switches clipping off."""
    dice_weight: NotNegative = 1.0
    """Of the soft Dice in the loss."""
    ce_weight: NotNegative = 1.0
    """Of the cross entropy in the loss."""
    batch_dice: bool = False
    """Pool the patches of a batch before the Dice is taken: steadier where most patches lack a class."""
    deep_supervision: bool = True
    """Whether lower resolutions of the decoder are trained too, in networks that have heads there."""
    foreground_share: Share = 0.33
    """Share of each batch that must hold foreground, rounded as in nnU-Net, and at least one patch."""
    ema: ShareBelowOne = 0.0
    """Decay per step of an exponential moving average of the weights, which is then validated and saved; 0: off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that has it, else fp16 on a GPU, fp32 on a CPU."""
    deterministic: bool = False
    """Only operations that give the same bits each time, where the device has them; slower on a GPU."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make patches; None: one on a CPU, eight on a GPU. May be changed for a run that is there."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """Threads of the CPU's network operations; None leaves torch's choice. May be changed for a run that is there."""
    validation_patches: Annotated[int, Field(ge=0)] = 24
    """Patches of the running validation, spread over the held-out cases; a budget may allow fewer."""

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.dice_weight == 0 and self.ce_weight == 0:
            raise ValueError("dice_weight and ce_weight cannot both be 0")
        if self.schedule == "plateau" and self.validation_patches == 0:
            raise ValueError("the plateau schedule needs validation_patches")
        return self


class PredictConfig(BaseModel):
    """How the trained network is applied to the held-out cases; may be changed for a run that is there."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Share of a window that the next one covers again."""
    tta: bool = False
    """Average over mirrored versions along the plan's mirror axes."""
    tolerance_mm: NotNegative = 1.0
    """Of surface Dice in the final validation."""


class RunConfig(BaseModel):
    """Sections of the configuration; `plan` holds values that replace the planner's."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: dict[str, Any] = {}
    """Options of the network, by the names of its config class."""
    plan: dict[str, Any] = {}
    """Keys of the plan."""
    augmentation: AugmentationConfig = AugmentationConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()


_KEYS: dict[str, list[str] | None] = {
    "model": None,  # the network's own, checked when it is built
    "plan": list(Plan.model_fields),
    "augmentation": list(AugmentationConfig.model_fields),
    "train": list(TrainConfig.model_fields),
    "predict": list(PredictConfig.model_fields),
}


MAX_SEED = 2**32 - 1
"""What NumPy's global generator takes."""


def check_seed(seed: int) -> None:
    """ConfigError unless `seed` is one that all generators take."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed {seed}: expected 0 to {MAX_SEED}.")


def build_config(settings: list[str], *, epochs: int | None = None, budget_s: float | None = None) -> RunConfig:
    """Configuration from "section.key=value" settings, and the training's length.

    Raises ConfigError that names every wrong key, with the closest known one, and every impossible value.
    """
    value: dict[str, dict[str, Any]] = {section: {} for section in _KEYS}
    lengths = {key: length for key, length in (("epochs", epochs), ("budget_s", budget_s)) if length is not None}
    problems = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            problems.append(f"--set {setting}: expected section.key=value, for example train.lr=1e-3")
        elif section not in _KEYS:
            problems.append(
                f"--set {setting}: no section {section!r}{did_you_mean(section, _KEYS)}, there are {', '.join(_KEYS)}"
            )
        elif (known := _KEYS[section]) is not None and key not in known:
            problems.append(f"--set {setting}: {section} has no {key!r}{did_you_mean(key, known)}")
        else:
            value[section][key] = _parse(text, setting)
    if problems:
        raise ConfigError("; ".join(problems) + ". docs/reference/configuration.md lists all keys.")
    for key, length in lengths.items():
        if value["train"].setdefault(key, length) != length:
            option = "--budget" if key == "budget_s" else "--epochs"
            raise ConfigError(f"{option} and --set train.{key} give {length:g} and {value['train'][key]}. Give one.")
    _check_plan_values(value["plan"])
    try:
        config = RunConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"configuration: {describe(error)}") from error
    if config.train.budget_s is not None and (given := {"epochs", "steps_per_epoch"} & config.train.model_fields_set):
        raise ConfigError(f"{', '.join(sorted(given))} and a budget both set the training's length. Give one.")
    return config


def _check_plan_values(values: dict[str, Any]) -> None:
    """Whether each value fits its key, long before the plan that they replace values of is there."""
    for key, value in values.items():
        field = Plan.model_fields[key]
        try:
            annotation: Any = Annotated[field.annotation, field]
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"plan.{key}: {describe(error)}") from error


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
