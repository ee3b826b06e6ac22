"""Everything that decides a training besides the data: frozen, checked, saved with the run.

Values are set as `--set section.key=value`, for example `--set train.lr=1e-3` or `--set plan.patch_size=[32,64,48]`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from voxelseg.errors import ConfigError, did_you_mean
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.sampler import Sampling
from voxelseg.plan.plan import Plan, describe
from voxelseg.predict.sliding_window import Average, Placement, Weighting
from voxelseg.train.sparse.settings import HOW_KERNELS_MOVE, SparseConfig
from voxelseg.train.start.transfer import TransferConfig

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    epochs: Annotated[int, Field(gt=0)] = 1000
    """Length of the training unless a budget is given."""
    steps_per_epoch: Annotated[int, Field(gt=0)] = 250
    """Optimizer steps. With a budget, an epoch is a fiftieth of it instead."""
    accumulate: Annotated[int, Field(gt=0)] = 1
    """Batches whose gradients are averaged for one step, which then sees so many times `plan.batch_size` patches."""
    budget_s: Positive | None = None
    """Seconds of training, running validation included: the schedule then follows elapsed time."""
    grow_kernel: tuple[PositiveInt, PositiveInt] | None = None
    """Train with kernels of the first size, then interpolate them to the second and train on (UpKern); None: off."""
    grow_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the length, in whole epochs, before the kernels grow; each part has a schedule of its own."""
    grow_lr: Positive | None = None
    """Peak learning rate once the kernels have grown; None: `lr`."""
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
    dice_background: bool = False
    """Whether the background is one of the classes whose Dice is taken, as in MONAI; not with regions."""
    deep_supervision: bool = True
    """Whether lower resolutions of the decoder are trained too, in networks that have heads there."""
    foreground_share: Share = 0.33
    """Share of each batch that must hold foreground, rounded as in nnU-Net, and at least one patch; with voxel the
    chance of each patch instead."""
    foreground_sampling: Literal["class", "voxel"] = "class"
    """class: around a voxel of a random class, the others anywhere (nnU-Net). voxel: around any voxel of the
    foreground, the others around any voxel of the background (MONAI's RandCropByPosNegLabel)."""
    background_above: float | None = None
    """With voxel, what the preprocessed image must exceed in a voxel of the background that a patch is drawn around."""
    crops_per_case: PositiveInt = 1
    """Patches in a row that come from one case; the patches of a step are a multiple of it."""
    case_order: Literal["random", "shuffled"] = "random"
    """random: any case each time. shuffled: all cases in turn, in another order each round."""
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
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make patches; None: one on a CPU, eight on a GPU, or one for each core if these are fewer. May be
    changed for a run that is there."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """Threads of the CPU's network operations; None leaves torch's choice. May be changed for a run that is there."""
    validation_patches: Annotated[int, Field(ge=0)] = 24
    """Patches of the running validation, spread over the held-out cases; a budget may allow fewer."""
    validate_every: Annotated[int, Field(gt=0)] = 1
    """Epochs from one running validation to the next; there is one at the end, too."""
    watch: Literal["dice", "loss"] = "dice"
    """What of the running validation `save_best` and `early_stopping` go by: its mean Dice, or its loss."""
    save_best: bool = True
    """Whether the weights of the best running validation are kept in best.safetensors, besides the last."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better running validation after which the training ends; 0: never."""
    tensorboard: bool = False
    """Write the log as curves for TensorBoard, too. May be changed for a run that is there."""

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.dice_weight == 0 and self.ce_weight == 0:
            raise ValueError("dice_weight and ce_weight cannot both be 0")
        if self.schedule == "plateau" and self.validation_patches == 0:
            raise ValueError("the plateau schedule needs validation_patches")
        if self.grow_kernel is not None and self.grow_kernel[0] >= self.grow_kernel[1]:
            raise ValueError("grow_kernel needs the smaller size first, as in [3, 5]")
        fields = type(self).model_fields
        idle = [name for name in ("grow_share", "grow_lr") if getattr(self, name) != fields[name].default]
        if idle and self.grow_kernel is None:
            raise ValueError(f"{', '.join(idle)}: no kernels grow. Set grow_kernel too, as in [3, 5]")
        if self.grow_kernel is not None and self.budget_s is None and self.epochs < 2:
            raise ValueError("grow_kernel needs an epoch before the growth and one after it: 2 epochs or more")
        if self.early_stopping and self.validation_patches == 0:
            raise ValueError("early_stopping needs validation_patches")
        if self.background_above is not None and self.foreground_sampling != "voxel":
            raise ValueError("background_above needs foreground_sampling=voxel")
        return self

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs before and after the kernels grow, at least one each; all of them where they do not."""
        if self.grow_kernel is None:
            return (self.epochs,)
        before = min(max(round(self.grow_share * self.epochs), 1), self.epochs - 1)
        return before, self.epochs - before

    @property
    def sampling(self) -> Sampling:
        """Which cases patches are taken from, and where."""
        return Sampling(
            foreground_share=self.foreground_share,
            foreground_sampling=self.foreground_sampling,
            background_above=self.background_above,
            crops_per_case=self.crops_per_case,
            case_order=self.case_order,
        )


class PredictConfig(BaseModel):
    """How the trained network is applied to the held-out cases; may be changed for a run that is there."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    checkpoint: Literal["last", "best"] = "last"
    """Weights that predict: those at the end of the training, or those of the best running validation."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Share of a window that the next one covers again."""
    placement: Placement = "even"
    """even: windows are spread evenly (nnU-Net). stepped: each lies one step after the last, except that the last ends
    with the scan (MONAI)."""
    weighting: Weighting = "gaussian"
    """Weight of a window's voxels where windows overlap: largest at its centre, or constant (MONAI's default)."""
    average: Average = "probabilities"
    """What is averaged over windows, mirrored versions and models: probabilities (nnU-Net v1), or logits, which become
    probabilities afterwards (nnU-Net v2, MONAI)."""
    tta: bool = False
    """Average over mirrored versions along the plan's mirror axes."""
    postprocess: bool = True
    """Choose, when all folds are scored, which classes keep only their largest component, and store that."""
    tolerance_mm: NotNegative = 1.0
    """Of surface Dice in the final validation."""

    @property
    def averaging(self) -> dict[str, Any]:
        """Options of a `Predictor` on windows, mirrored versions and what is averaged."""
        return self.model_dump(include={"overlap", "placement", "weighting", "average", "tta"})


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
    transfer: TransferConfig = TransferConfig()
    sparse: SparseConfig = SparseConfig()

    @model_validator(mode="after")
    def _possible(self) -> "RunConfig":
        if self.predict.checkpoint == "best" and not (self.train.save_best and self.train.validation_patches):
            raise ValueError("predict.checkpoint=best needs train.save_best and train.validation_patches")
        growth = self.train.grow_kernel
        if growth is not None and self.model.get("kernel_size", growth[1]) != growth[1]:
            raise ValueError(f"model.kernel_size is {growth[1]} with train.grow_kernel={list(growth)}. Leave it out")
        every, num_steps = self.sparse.update_every, max(self.train.stage_epochs) * self.train.steps_per_epoch
        if every is not None and self.train.budget_s is None and every >= num_steps:
            raise ValueError(
                f"sparse.update_every={every} is not reached in {num_steps} steps, so no kernel would ever move. Lower "
                "it, leave it out, or fix the masks with sparse.freeze_topology=true instead"
            )
        return self


_KEYS: dict[str, list[str] | None] = {
    "model": None,  # the network's own, checked when it is built
    "plan": list(Plan.model_fields),
    "augmentation": list(AugmentationConfig.model_fields),
    "train": list(TrainConfig.model_fields),
    "predict": list(PredictConfig.model_fields),
    "transfer": list(TransferConfig.model_fields),
    "sparse": list(SparseConfig.model_fields),
}


MAX_SEED = 2**32 - 1
"""What NumPy's global generator takes."""


def check_seed(seed: int) -> None:
    """ConfigError unless `seed` is one that all generators take."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed {seed}: expected 0 to {MAX_SEED}.")


def build_config(
    settings: list[str],
    *,
    epochs: int | None = None,
    budget_s: float | None = None,
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunConfig:
    """Configuration from "section.key=value" settings, and the training's length.

    They go before the values of `base`, those of a recipe by section and key; a budget goes before its length, too.
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
    merged = _over_base(value, base or {})
    _check_plan_values(merged["plan"])
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"configuration: {describe(error)}") from error
    _refuse_idle(value["train"], config.train)
    if config.train.budget_s is not None and (given := {"epochs", "steps_per_epoch"} & config.train.model_fields_set):
        raise ConfigError(f"{', '.join(sorted(given))} and a budget both set the training's length. Give one.")
    return config


_ONLY_WITH: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    "momentum": ("train.optimizer=sgd", lambda train: train.optimizer == "sgd"),
    "betas": ("train.optimizer=adamw", lambda train: train.optimizer == "adamw"),
    "eps": ("train.optimizer=adamw", lambda train: train.optimizer == "adamw"),
    "poly_power": ("train.schedule=poly", lambda train: train.schedule == "poly"),
    "plateau_factor": ("train.schedule=plateau", lambda train: train.schedule == "plateau"),
    "plateau_patience": ("train.schedule=plateau", lambda train: train.schedule == "plateau"),
    "batch_dice": ("a train.dice_weight above 0", lambda train: train.dice_weight > 0),
    "dice_background": ("a train.dice_weight above 0", lambda train: train.dice_weight > 0),
    "validate_every": ("train.validation_patches", lambda train: train.validation_patches > 0),
    "watch": ("train.save_best or train.early_stopping", lambda train: train.save_best or train.early_stopping > 0),
}
"""Keys that belong to one choice of several: what they need, and whether it is so."""


def _refuse_idle(given: Mapping[str, Any], train: TrainConfig) -> None:
    """ConfigError for what the user sets in vain; a recipe may say it, since the user may have chosen otherwise."""
    idle = [
        f"train.{key} needs {needed}"
        for key, (needed, holds) in _ONLY_WITH.items()
        if key in given and getattr(train, key) != TrainConfig.model_fields[key].default and not holds(train)
    ]
    if idle:
        raise ConfigError(f"{'; '.join(idle)}: without effect here. Leave it out, or set that too.")


def _over_base(given: dict[str, dict[str, Any]], base: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The values of `base`, replaced and completed by those that are `given`, without what says nothing beside them."""
    idle = _without_effect_beside(given)
    kept = {
        section: {key: value for key, value in values.items() if f"{section}.{key}" not in idle}
        for section, values in base.items()
    }
    return {section: {**kept.get(section, {}), **values} for section, values in given.items()}


def _without_effect_beside(given: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Keys of a recipe that contradict what the user sets, or say how something is done that the user switches off."""
    train, sparse = given["train"], given["sparse"]
    idle: set[str] = set()
    if train.get("budget_s") is not None:
        idle |= {"train.epochs", "train.steps_per_epoch"}
    if any(train.get(key) is not None for key in ("epochs", "steps_per_epoch")):
        idle |= {"train.budget_s"}
    if "grow_kernel" in train:
        idle |= {"train.grow_share", "train.grow_lr"} if train["grow_kernel"] is None else {"model.kernel_size"}
    if sparse.get("freeze_topology") or sparse.get("sparsity") == 0:
        idle |= {f"sparse.{key}" for key in (*HOW_KERNELS_MOVE, "freeze_topology")}
    return idle


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
