"""The plan: every decision between a raw scan and a network's input, as JSON that a person can read and change."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from voxelseg.errors import ConfigError
from voxelseg.files import read_json, sha256_of_json, write_json


def _all_three(value: tuple[int, int, int]) -> tuple[int, int, int]:
    if sorted(value) != [0, 1, 2]:
        raise ValueError("expected 0, 1 and 2, each once")
    return value


def _no_axis_twice(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names an axis twice")
    return value


PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Axis = Annotated[int, Field(ge=0, le=2)]
AxisOrder = Annotated[tuple[int, int, int], AfterValidator(_all_three)]
Axes = Annotated[tuple[Axis, ...], AfterValidator(_no_axis_twice)]


class Normalization(BaseModel):
    """How one channel's intensities are mapped before the network sees them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ct", "zscore", "zscore_nonzero", "zscore_mask", "window", "percentiles", "range_0_1", "none"]
    """ct: clip to `window`, subtract `mean`, divide by `std` of the whole data set's foreground. zscore: mean and
    standard deviation of the scan itself; zscore_nonzero: of its voxels that are not zero, which alone are changed;
    zscore_mask: of the voxels that are not zero in some channel, with the holes among them, as in nnU-Net. window: the
    ends of `window` to 0 and 1, clipped. percentiles: those of the scan to 0 and 1, clipped. range_0_1: the scan's
    minimum to 0, maximum to 1."""
    window: tuple[FiniteFloat, FiniteFloat] | None = None
    """Of ct and window: lowest and highest value that is kept. Of percentiles, optional: clipped to before."""
    percentiles: tuple[Percent, Percent] | None = None
    """Of percentiles: for example [1, 99]."""
    mean: FiniteFloat | None = None
    """Of ct."""
    std: PositiveFloat | None = None
    """Of ct."""

    @model_validator(mode="after")
    def _complete(self) -> "Normalization":
        needed, optional = _NORMALIZATION_VALUES.get(self.kind, ((), ()))
        given = [name for name in ("window", "percentiles", "mean", "std") if getattr(self, name) is not None]
        if missing := [name for name in needed if name not in given]:
            raise ValueError(f"a {self.kind} normalization needs {', '.join(missing)}")
        if idle := [name for name in given if name not in (*needed, *optional)]:
            raise ValueError(f"a {self.kind} normalization has no {', '.join(idle)}")
        for name, pair in (("window", self.window), ("percentiles", self.percentiles)):
            if pair is not None and pair[0] >= pair[1]:
                raise ValueError(f"{name} {list(pair)}: expected low before high")
        return self


_NORMALIZATION_VALUES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ct": (("window", "mean", "std"), ()),
    "window": (("window",), ()),
    "percentiles": (("percentiles",), ("window",)),
}
"""What a kind needs, and what it may have."""


class Plan(BaseModel):
    """Spatial values run along the plan's D, H, W, which are the canonical axes in the order of `axes`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    channels: tuple[str, ...]
    """Names of the input channels, in order."""
    axes: AxisOrder = (0, 1, 2)
    """Which canonical axis (0 inferior-superior, 1 posterior-anterior, 2 left-right) becomes D, H, W."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Voxel size that scans are resampled to."""
    resampling: Literal["edges", "centres", "file_centres", "none"] = "edges"
    """edges: a resampled scan covers what the scan covers, so that voxel sizes are rounded (nnU-Net). centres: the
    first voxels, inferior, posterior and left, keep their centres and the voxel size is exact (MONAI's Spacing after
    Orientation). file_centres: the same for the first voxels of the file (Spacing before Orientation). none: scans keep
    their voxels."""
    image_order: Literal[0, 1, 3] = 3
    """Splines that images are resampled by: 0 nearest neighbour, 1 linear, 3 cubic."""
    clip_overshoot: bool = False
    """Whether resampled images keep to the range of the scan, or of each slice where slices are picked, as in nnU-Net;
    cubic splines go beyond it beside sharp borders."""
    label_order: Literal[0, 1] = 1
    """1: each class is interpolated linearly and the strongest wins; 0: nearest neighbour."""
    anisotropic: bool
    """Whether D is so much coarser than H and W that patches are rotated and scaled in plane only."""
    nearest_along_coarse: bool = True
    """Whether D, if it is anisotropic, and a scan's own coarse axis are resampled by nearest neighbour."""
    normalization: tuple[Normalization, ...]
    """One per channel."""
    normalize_first: bool = True
    """Normalise before resampling (nnU-Net v2), or after it (nnU-Net v1, MONAI)."""
    crop: Literal["nonzero", "positive", "none"] = "nonzero"
    """The box that is kept of a scan. nonzero: around the voxels that are not 0 in some channel of the scan, before
    anything else (nnU-Net). positive: around those above 0 once normalised and resampled (MONAI's CropForeground)."""
    patch_size: Triple
    """Voxels that the network sees at once."""
    batch_size: PositiveInt
    """Patches of a training step."""
    mirror_axes: Axes
    """Axes (0 D, 1 H, 2 W) along which mirroring is harmless, in training and at prediction."""
    median_shape: Triple
    """Median size of the cases after cropping and resampling; for information."""
    strides: tuple[Triple, ...]
    """Downsampling of each level for networks whose topology follows the data, (1, 1, 1) first."""
    kernels: tuple[Triple, ...]
    """Kernel of each level for the same networks: 1 along an axis that is still too coarse to be mixed."""
    notes: tuple[str, ...] = ()
    """Why the values are what they are, in words."""

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        if len(self.normalization) != len(self.channels):
            raise ValueError(f"{len(self.normalization)} normalizations for {len(self.channels)} channels")
        if len(self.strides) != len(self.kernels):
            raise ValueError(f"{len(self.strides)} strides for {len(self.kernels)} kernels")
        return self

    @property
    def masked_channels(self) -> tuple[int, ...]:
        """Channels whose background is left at 0 by their normalisation."""
        masking = ("zscore_nonzero", "zscore_mask")
        return tuple(channel for channel, rule in enumerate(self.normalization) if rule.kind in masking)

    def preprocessing_key(self) -> str:
        """Hash of what changes stored data; patch, batch, mirroring and topology do not.

        What plans did not have from the start counts only where it is not as it was before: their keys stay.
        """
        fields = {"axes", "spacing_mm", "anisotropic", "nearest_along_coarse", "normalization", "channels"}
        value = self.model_dump(mode="json", include=fields)
        for rule in value["normalization"]:
            if rule["percentiles"] is None:
                del rule["percentiles"]
        added = {"resampling", "image_order", "clip_overshoot", "label_order", "normalize_first", "crop"}
        return sha256_of_json({**value, **self.model_dump(mode="json", include=added, exclude_defaults=True)})

    def changed(self, **overrides: Any) -> "Plan":
        """Plan with some values replaced; ConfigError names an unknown key or an impossible value."""
        return parse_plan({**self.model_dump(), **overrides}, source="plan")

    def write(self, path: Path) -> None:
        """Write as JSON; what does not apply to a channel's normalization is left out."""
        write_json(path, self.model_dump(exclude_none=True))


def parse_plan(value: Any, *, source: str) -> Plan:
    """Plan from its JSON form; ConfigError names `source` and every wrong key."""
    try:
        return Plan.model_validate(value)
    except ValidationError as error:
        unknown = any(fault["type"] == "extra_forbidden" for fault in error.errors())
        known = f" The keys of a plan are {', '.join(Plan.model_fields)}." if unknown else ""
        raise ConfigError(f"{source}: {describe(error)}{known} Correct it.") from error


def read_plan(path: Path) -> Plan:
    """Plan from its JSON file."""
    return parse_plan(read_json(path, remedy="Run `voxelseg plan` again."), source=str(path))


_PLAIN_WORDS = {
    "extra_forbidden": "unknown key",
    "tuple_type": "should be a list, as [a, b]",
    "dict_type": "should be names with values, as {a: 1}",
}
"""For faults that pydantic names in Python's terms."""


def describe(error: ValidationError) -> str:
    """All faults of a pydantic error in one line, each with its key and what was given."""
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = _PLAIN_WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
        given = repr(fault["input"])
        faults.append(f"{key}: {message}" if key else message)
        if key and fault["type"] != "missing" and len(given) < 80:
            faults[-1] += f" (got {given})"
    return "; ".join(faults) + "."
