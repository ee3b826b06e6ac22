"""A scan or label map in memory."""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from voxelseg.errors import DataError
from voxelseg.geometry import Grid, Shape, Spacing


@dataclass(frozen=True, eq=False)
class Volume:
    """Array (C, D, H, W) on a grid. Label maps have one channel and an integer dtype."""

    array: npt.NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.grid.shape_dhw:
            raise DataError(
                f"array of shape {self.array.shape} does not fit its grid: expected (C, D, H, W) with "
                f"D, H, W = {self.grid.shape_dhw}."
            )

    @property
    def shape_dhw(self) -> Shape:
        """Size along D, H, W."""
        return self.grid.shape_dhw

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along D, H, W in mm."""
        return self.grid.spacing_mm
