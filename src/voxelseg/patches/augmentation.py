"""What training patches go through: nnU-Net's augmentation, and what MONAI pipelines have besides.

`spatial` moves image and target alike, then `intensity` changes the image.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from voxelseg.errors import ConfigError
from voxelseg.geometry import Shape


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("expected the lower bound before the upper bound")
    return value


def _around_1(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= 1 <= value[1]:
        raise ValueError("expected a range of factors that includes 1")
    return value


def _angles(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("expected degrees from 0 to 180: one number, or one for each of D, H, W") from error


Finite = Annotated[float, Field(allow_inf_nan=False)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Axis = Annotated[int, Field(ge=0, le=2)]
Angles = Annotated[Degrees | tuple[Degrees, Degrees, Degrees], WrapValidator(_angles)]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Range = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ascending)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
FiniteRange = Annotated[tuple[Finite, Finite], AfterValidator(_ascending)]
FactorRange = Annotated[tuple[Positive, Positive], AfterValidator(_around_1)]


class AugmentationConfig(BaseModel):
    """Defaults are nnU-Net v2's (nnUNetTrainer.get_training_transforms); probabilities are per sample."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """Whether anything is changed at all."""
    rotation: Probability = 0.2
    """Probability of a rotation about all three axes; about D only, in plane, if the data are anisotropic."""
    rotation_degrees: Angles = 30.0
    """Largest angle about each axis where the data are isotropic; one for all, or those about D, H, W."""
    rotation_degrees_in_plane: Degrees = 180.0
    """Largest angle about D where the data are anisotropic."""
    scaling: Probability = 0.2
    """Probability that the patch shows a larger or smaller part of the scan."""
    scaling_range: PositiveRange = (0.7, 1.4)
    """Size of that part relative to the patch: above 1, structures get smaller."""
    scaling_per_axis: bool = False
    """Whether each axis is scaled by a factor of its own, as in MONAI."""
    scaling_balanced: bool = False
    """Whether half of the factors are below 1 and half above, as in nnU-Net v1; else all are equally likely."""
    outside: Literal["scan", "zeros", "border", "reflection"] = "scan"
    """What rotation and scaling find beyond the patch: the scan around it, and 0 beyond the scan; or 0, the patch's
    border voxel, or its mirror image (MONAI's default)."""
    image_order: Literal[1, 3] = 1
    """Splines that a rotated or scaled image is interpolated by: 1 linear, 3 cubic (nnU-Net v1)."""
    label_order: Literal[0, 1] = 1
    """How its target is: 1 each class linearly, and the strongest wins; 0 nearest neighbour (MONAI)."""
    noise: Probability = 0.1
    """Probability of Gaussian noise."""
    noise_std: Range = (0.0, 0.1)
    """Standard deviation of the noise, in normalised intensities."""
    blur: Probability = 0.2
    """Probability of a Gaussian blur, which then takes each channel with probability 1/2."""
    blur_sigma: PositiveRange = (0.5, 1.0)
    """Standard deviation of the blur in voxels."""
    blur_per_axis: bool = True
    """Whether each axis has a standard deviation of its own; in nnU-Net v1 all have the same."""
    blur_truncate: Literal[3, 4] = 3
    """Standard deviations at which the blur is cut off: 3 in nnU-Net v2, 4 in v1."""
    brightness: Probability = 0.15
    """Probability that intensities are multiplied by a factor."""
    brightness_range: FactorRange = (0.75, 1.25)
    """Of that factor."""
    brightness_per_channel: bool = True
    """Whether each channel has a factor of its own; in MONAI's RandScaleIntensity all have the same."""
    shift: Probability = 0.0
    """Probability that one number is added to all intensities, after the brightness (MONAI's RandShiftIntensity)."""
    shift_range: FiniteRange = (-0.1, 0.1)
    """Of that number, in normalised intensities."""
    contrast: Probability = 0.15
    """Probability that the distance of intensities from their mean is multiplied by a factor."""
    contrast_range: FactorRange = (0.75, 1.25)
    """Of that factor."""
    low_resolution: Probability = 0.25
    """Probability of sampling down and up again, which then takes each channel with probability 1/2."""
    low_resolution_zoom: ShareRange = (0.5, 1.0)
    """Resolution that is left, relative to the patch's."""
    low_resolution_order: Literal[1, 3] = 1
    """Splines that it is sampled up by: 1 linear, 3 cubic (nnU-Net v1). Down it is the nearest neighbour."""
    inverted_gamma: Probability = 0.1
    """Probability of a gamma correction of the inverted intensities."""
    gamma: Probability = 0.3
    """Probability of a gamma correction, apart from the inverted one."""
    gamma_range: FactorRange = (0.7, 1.5)
    """Exponent of both corrections."""
    mirror: bool = True
    """Mirror along the plan's mirror axes, each with `mirror_probability`."""
    mirror_probability: Probability = 0.5
    """Of each axis by itself."""
    rotation90: Probability = 0.0
    """Probability of one, two or three quarter turns in the plane of `rotation90_axes` (MONAI's RandRotate90)."""
    rotation90_axes: tuple[Axis, Axis] = (1, 2)
    """Two of 0 D, 1 H, 2 W, along which patches must be equally long."""

    @model_validator(mode="after")
    def _possible(self) -> "AugmentationConfig":
        if self.scaling_balanced and not self.scaling_range[0] <= 1 <= self.scaling_range[1]:
            raise ValueError(f"scaling_balanced needs a scaling_range that includes 1, got {self.scaling_range}")
        if self.rotation90_axes[0] == self.rotation90_axes[1]:
            raise ValueError(f"rotation90_axes names one axis twice: {self.rotation90_axes}")
        return self

    def check_patch(self, patch_size: Shape) -> None:
        """ConfigError if patches of this size cannot be augmented so."""
        first, second = self.rotation90_axes
        if self.enabled and self.rotation90 and patch_size[first] != patch_size[second]:
            raise ConfigError(
                f"quarter turns (augmentation.rotation90) need a patch that is equally long along "
                f"{'DHW'[first]} and {'DHW'[second]}, but plan.patch_size is {list(patch_size)}. Set another patch, or "
                "augmentation.rotation90=0."
            )


def _some(*changes: str) -> tuple[str, Callable[[AugmentationConfig], bool]]:
    """What keys need that only say how these `changes` are made, and whether it is so."""
    needed = f"augmentation.enabled, and augmentation.{' or augmentation.'.join(changes)}"
    return needed, lambda config: config.enabled and any(getattr(config, change) for change in changes)


ONLY_WITH: dict[str, tuple[str, Callable[[AugmentationConfig], bool]]] = {
    **dict.fromkeys(("rotation_degrees", "rotation_degrees_in_plane"), _some("rotation")),
    **dict.fromkeys(("scaling_range", "scaling_per_axis", "scaling_balanced"), _some("scaling")),
    **dict.fromkeys(("outside", "image_order", "label_order"), _some("rotation", "scaling")),
    "noise_std": _some("noise"),
    **dict.fromkeys(("blur_sigma", "blur_per_axis", "blur_truncate"), _some("blur")),
    **dict.fromkeys(("brightness_range", "brightness_per_channel"), _some("brightness")),
    "shift_range": _some("shift"),
    "contrast_range": _some("contrast"),
    **dict.fromkeys(("low_resolution_zoom", "low_resolution_order"), _some("low_resolution")),
    "gamma_range": _some("gamma", "inverted_gamma"),
    "mirror_probability": _some("mirror"),
    "rotation90_axes": _some("rotation90"),
}
"""Keys that say how something is changed: what must be switched on for them, and whether it is."""
