"""The plan: every decision between a raw scan and a network's input, as JSON that a person can read and change."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from voxelseg.errors import ConfigError
from voxelseg.files import read_json, sha256_of_json, write_json

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Axis = Annotated[int, Field(ge=0, le=2)]


class Normalization(BaseModel):
    """How one channel's intensities are mapped before the network sees them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ct", "zscore", "zscore_nonzero", "range_0_1", "none"]
    """ct: clip to `window`, subtract `mean`, divide by `std` of the whole data set's foreground. zscore: mean and
    standard deviation of the scan itself; zscore_nonzero: of its voxels that are not zero, which alone are changed.
    range_0_1: the scan's minimum to 0, maximum to 1."""
    window: tuple[float, float] | None = None
    """Of ct: lowest and highest value that is kept."""
    mean: float | None = None
    """Of ct."""
    std: PositiveFloat | None = None
    """Of ct."""

    @model_validator(mode="after")
    def _complete(self) -> "Normalization":
        given = (self.window, self.mean, self.std)
        if self.kind == "ct" and (None in given or (self.window and self.window[0] >= self.window[1])):
            raise ValueError("a ct normalization needs window (low below high), mean and std")
        return self


class Plan(BaseModel):
    """Spatial values run along the plan's D, H, W, which are the canonical axes in the order of `axes`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    channels: tuple[str, ...]
    """Names of the input channels, in order."""
    axes: tuple[int, int, int] = (0, 1, 2)
    """Which canonical axis (0 inferior-superior, 1 posterior-anterior, 2 left-right) becomes D, H, W."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Voxel size that scans are resampled to."""
    anisotropic: bool
    """Whether D is so much coarser than H and W that patches are rotated and scaled in plane only."""
    nearest_along_coarse: bool = True
    """Whether D, if it is anisotropic, and a scan's own coarse axis are resampled by nearest neighbour."""
    normalization: tuple[Normalization, ...]
    """One per channel."""
    patch_size: Triple
    """Voxels that the network sees at once."""
    batch_size: PositiveInt
    """Patches of a training step."""
    mirror_axes: tuple[Axis, ...]
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
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"axes must name 0, 1, 2 once each, got {self.axes}")
        if len(self.normalization) != len(self.channels):
            raise ValueError(f"{len(self.normalization)} normalizations for {len(self.channels)} channels")
        if len(set(self.mirror_axes)) != len(self.mirror_axes):
            raise ValueError(f"mirror_axes names an axis twice: {self.mirror_axes}")
        if len(self.strides) != len(self.kernels):
            raise ValueError(f"{len(self.strides)} strides for {len(self.kernels)} kernels")
        return self

    def preprocessing_key(self) -> str:
        """Hash of what changes stored data; patch, batch, mirroring and topology do not."""
        fields = {"axes", "spacing_mm", "anisotropic", "nearest_along_coarse", "normalization", "channels"}
        return sha256_of_json(self.model_dump(mode="json", include=fields))

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


def describe(error: ValidationError) -> str:
    """All faults of a pydantic error in one line, each with its key and what was given."""
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        given = repr(fault["input"])
        faults.append(f"{key}: {message}" if key else message)
        if key and fault["type"] != "missing" and len(given) < 80:
            faults[-1] += f" (got {given})"
    return "; ".join(faults) + "."
