"""Everything that decides a pre-training besides the scans: frozen, checked, saved with its result.

Values are set as `--set section.key=value`. Each method has a section of its own, with underscores in its name, as
`--set masked_clusters.num_clusterers=40`; that of another method would have no effect and is refused.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.plan.plan import Plan, describe
from voxelseg.pretrain.methods import METHODS
from voxelseg.pretrain.methods.method import Method
from voxelseg.train.config import NetworkConfig
from voxelseg.train.loop.config import (
    ONLY_WITH,
    LoopConfig,
    NotNegative,
    NotNegativeInt,
    Positive,
    PositiveInt,
    ShareBelowOne,
    set_in_vain,
)
from voxelseg.train.settings import check_plan_values, read_settings, refuse_two_lengths, set_length
from voxelseg.train.sparse.settings import SparseConfig


class PretrainingLoopConfig(LoopConfig):
    """How the weights are found; where the paper says it, the defaults are Masked LoGoNet's."""

    epochs: PositiveInt = 100
    """Length of the training unless a budget is given."""
    steps_per_epoch: NotNegativeInt = 0
    """Optimizer steps; 0: one crop of each scan. With a budget, an epoch is a fiftieth of it instead."""
    lr: Positive = 1e-4
    """Peak learning rate."""
    weight_decay: NotNegative = 1e-5
    """Decoupled from the gradient in adamw, part of it in sgd."""
    eps: Positive = 1e-8
    """Of adamw."""
    schedule: Literal["poly", "cosine", "constant", "plateau"] = "cosine"
    """Course of the learning rate after the warm-up: down to 0 as a power or a cosine, level, or down in steps."""
    warmup: ShareBelowOne = 0.1
    """Share of the training in which the learning rate rises linearly from a thousandth of its peak."""
    watch: Literal["score", "loss"] = "score"
    """What of the running validation `save_best` and `early_stopping` go by: the method's score, or its loss."""


class ScansConfig(BaseModel):
    """What is learnt from, and what all methods share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    held_out: ShareBelowOne = 0.1
    """Share of the scans that is not learnt from but watched, at least one of two patients; 0: none. simclr watches
    at least two, which it compares."""
    channel: str | None = None
    """What the channels of the scans show, such as "CT" or "T1,T2"; None: what the data set says, if it is one."""
    slice_axis: Annotated[int, Field(ge=0, le=2)] = 0
    """Axis of the plan's crops along which slices follow one another: 0 D (axial slices), 1 H or 2 W."""
    num_classes: Annotated[int, Field(ge=2)] = 14
    """Classes that the network is built for, background included: its heads are not kept, but widths of LoGoNet and
    ULKANet follow them, so weights fit a training with as many."""


class PretrainingConfig(NetworkConfig):
    """Method, its settings, and the sections of the configuration."""

    method: str
    train: PretrainingLoopConfig = PretrainingLoopConfig()
    pretrain: ScansConfig = ScansConfig()
    task: SerializeAsAny[BaseModel]
    """Settings of the method."""

    def record(self) -> dict[str, Any]:
        """The configuration as JSON, the method's settings in the section of its name."""
        values = self.model_dump(mode="json", exclude={"method", "task"})
        return {**values, section_of(self.method): self.task.model_dump(mode="json")}


def find_method(name: str) -> Method:
    """The method of that name; ConfigError, with the closest ones, if there is none."""
    if name not in METHODS:
        raise ConfigError(f"method {name!r}: unknown{did_you_mean(name, METHODS)}. There are {', '.join(METHODS)}.")
    return METHODS[name]


def section_of(method: str) -> str:
    """Name of a method's section."""
    return method.replace("-", "_")


def known_keys() -> dict[str, list[str] | None]:
    """Keys of each section of a pre-training, None where a network has its own."""
    return {
        "model": None,
        "plan": list(Plan.model_fields),
        "train": list(PretrainingLoopConfig.model_fields),
        "sparse": list(SparseConfig.model_fields),
        "pretrain": list(ScansConfig.model_fields),
        **{section_of(name): list(method.settings.model_fields) for name, method in METHODS.items()},
    }


def build_pretraining(
    method: str, settings: Sequence[str], *, epochs: int | None = None, budget_s: float | None = None
) -> PretrainingConfig:
    """Configuration of a pre-training by `method` from "section.key=value" settings, and its length.

    Raises ConfigError for an unknown method, naming every wrong key with the closest known one, for every impossible
    value, and for settings that would have no effect, such as those of another method.
    """
    chosen, own = find_method(method), section_of(method)
    values = read_settings(settings, known_keys())
    set_length(values["train"], epochs=epochs, budget_s=budget_s)
    _refuse_other_methods(values, method)
    check_plan_values(values["plan"])
    sections = {name: values[name] for name in ("model", "plan", "train", "sparse", "pretrain")}
    try:
        task = _validated(chosen.settings, values[own], own)
        config = PretrainingConfig.model_validate({"method": method, **sections, "task": task})
    except ValidationError as error:
        raise ConfigError(f"configuration: {describe(error)}") from error
    idle = set_in_vain(values["train"], config.train, ONLY_WITH)
    if idle:
        raise ConfigError(f"{'; '.join(idle)}: without effect here. Leave it out, or set that too.")
    refuse_two_lengths(values["train"])
    if config.pretrain.slice_axis and not chosen.slices:
        raise ConfigError(f"pretrain.slice_axis: {method} looks at no slices, so it has no effect. Leave it out.")
    return config


def _refuse_other_methods(values: dict[str, dict[str, Any]], method: str) -> None:
    others = {section_of(name): name for name in METHODS if name != method}
    given = {section: [f"{section}.{key}" for key in values[section]] for section in others if values[section]}
    if given:
        keys = ", ".join(key for listed in given.values() for key in listed)
        names = " or ".join(f"--method {others[section]}" for section in given)
        raise ConfigError(f"{keys}: without effect with --method {method}. Leave it out, or choose {names}.")


def _validated(settings: type[BaseModel], values: dict[str, Any], section: str) -> BaseModel:
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{section}: {describe(error)}") from error
