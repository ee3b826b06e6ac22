"""Everything that decides a training besides the data: frozen, checked, saved with the run.

Values are set as `--set section.key=value`, for example `--set train.lr=1e-3` or `--set plan.patch_size=[32,64,48]`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from voxelseg.errors import ConfigError
from voxelseg.patches.augmentation import ONLY_WITH as HOW_TO_AUGMENT
from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.sampler import Sampling
from voxelseg.plan.plan import Plan, describe
from voxelseg.predict.sliding_window import Average, Placement, Weighting
from voxelseg.train.loop.config import (
    ONLY_WITH,
    LoopConfig,
    NotNegative,
    Positive,
    PositiveInt,
    Share,
    set_in_vain,
)
from voxelseg.train.settings import check_plan_values, read_settings, refuse_two_lengths, set_length
from voxelseg.train.sparse.settings import HOW_KERNELS_MOVE, SparseConfig
from voxelseg.train.start.transfer import TransferConfig


class TrainConfig(LoopConfig):
    """How the weights are found."""

    grow_kernel: tuple[PositiveInt, PositiveInt] | None = None
    """Train with kernels of the first size, then interpolate them to the second and train on (UpKern); None: off."""
    grow_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the length, in whole epochs, before the kernels grow; each part has a schedule of its own."""
    grow_lr: Positive | None = None
    """Peak learning rate once the kernels have grown; None: `lr`."""
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
    watch: Literal["dice", "loss"] = "dice"
    """What of the running validation `save_best` and `early_stopping` go by: its mean Dice, or its loss."""

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.dice_weight == 0 and self.ce_weight == 0:
            raise ValueError("dice_weight and ce_weight cannot both be 0")
        if self.grow_kernel is not None and self.grow_kernel[0] >= self.grow_kernel[1]:
            raise ValueError("grow_kernel needs the smaller size first, as in [3, 5]")
        fields = type(self).model_fields
        idle = [name for name in ("grow_share", "grow_lr") if getattr(self, name) != fields[name].default]
        if idle and self.grow_kernel is None:
            raise ValueError(f"{', '.join(idle)}: no kernels grow. Set grow_kernel too, as in [3, 5]")
        if self.grow_kernel is not None and self.budget_s is None and self.epochs < 2:
            raise ValueError("grow_kernel needs an epoch before the growth and one after it: 2 epochs or more")
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


class NetworkConfig(BaseModel):
    """Sections that every training has, whatever it minimises; `plan` holds values that replace the planner's."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: dict[str, Any] = {}
    """Options of the network, by the names of its config class."""
    plan: dict[str, Any] = {}
    """Keys of the plan."""
    train: LoopConfig = LoopConfig()
    sparse: SparseConfig = SparseConfig()

    @property
    def deep_supervision(self) -> bool:
        """Whether lower resolutions of the decoder are trained, too."""
        return False

    @property
    def grow_kernel(self) -> tuple[int, int] | None:
        """Kernel sizes before and after kernels grow; None if they do not."""
        return None

    @property
    def dice_background(self) -> bool:
        """Whether the background must be a class."""
        return False


class RunConfig(NetworkConfig):
    """Sections of the configuration of a run."""

    augmentation: AugmentationConfig = AugmentationConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()
    transfer: TransferConfig = TransferConfig()

    @property
    def deep_supervision(self) -> bool:
        """As the `train` section says."""
        return self.train.deep_supervision

    @property
    def grow_kernel(self) -> tuple[int, int] | None:
        """As the `train` section says."""
        return self.train.grow_kernel

    @property
    def dice_background(self) -> bool:
        """As the `train` section says."""
        return self.train.dice_background

    @model_validator(mode="after")
    def _possible(self) -> "RunConfig":
        if self.predict.checkpoint == "best" and not (self.train.save_best and self.train.validation_patches):
            raise ValueError("predict.checkpoint=best needs train.save_best and train.validation_patches")
        growth = self.train.grow_kernel
        if growth is not None and self.model.get("kernel_size", growth[1]) != growth[1]:
            raise ValueError(f"model.kernel_size is {growth[1]} with train.grow_kernel={list(growth)}. Leave it out")
        if self.train.budget_s is None:
            self.sparse.check_length(max(self.train.stage_epochs) * self.train.steps_per_epoch)
        return self


KEYS: dict[str, list[str] | None] = {
    "model": None,  # the network's own, checked when it is built
    "plan": list(Plan.model_fields),
    "augmentation": list(AugmentationConfig.model_fields),
    "train": list(TrainConfig.model_fields),
    "predict": list(PredictConfig.model_fields),
    "transfer": list(TransferConfig.model_fields),
    "sparse": list(SparseConfig.model_fields),
}
"""Keys of each section, in the order in which sections are shown."""


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
    value = read_settings(settings, KEYS)
    set_length(value["train"], epochs=epochs, budget_s=budget_s)
    merged = _over_base(value, base or {})
    check_plan_values(merged["plan"])
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"configuration: {describe(error)}") from error
    # A recipe may say in vain what the user has chosen otherwise.
    idle = [
        *set_in_vain(value["train"], config.train, {**ONLY_WITH, **_ONLY_WITH_DICE}),
        *set_in_vain(value["augmentation"], config.augmentation, HOW_TO_AUGMENT, section="augmentation"),
    ]
    if idle:
        raise ConfigError(f"{'; '.join(idle)}: without effect here. Leave it out, or set that too.")
    refuse_two_lengths(merged["train"])
    return config


_ONLY_WITH_DICE: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    key: ("a train.dice_weight above 0", lambda train: train.dice_weight > 0)
    for key in ("batch_dice", "dice_background")
}


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
