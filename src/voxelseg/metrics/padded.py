"""A mask with background around it, flattened: each neighbour of a voxel then lies at a fixed step from it.

What metrics need of a mask's shape is found here with a few passes over whole arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from voxelseg.geometry import Shape
from voxelseg.metrics.nearest import Places, Points

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Padded:
    """Foreground flags of the voxels of a grid (D, H, W), flattened."""

    flat: Mask
    shape: Shape
    """Sides of the grid; the voxels at its rim are background."""

    @classmethod
    def of(cls, mask: Mask, rim: Sequence[int]) -> "Padded":
        """A mask (D, H, W) with `rim` voxels of background, at least one, at both ends of each axis."""
        d, h, w = (size + 2 * width for size, width in zip(mask.shape, rim, strict=True))
        grid = np.zeros((d, h, w), np.bool_)
        grid[tuple(slice(width, width + size) for size, width in zip(mask.shape, rim, strict=True))] = mask
        return cls(grid.reshape(-1), (d, h, w))

    @property
    def steps(self) -> tuple[int, int, int]:
        """How far apart neighbours along D, H, W are."""
        _, height, width = self.shape
        return height * width, width, 1

    @cached_property
    def runs(self) -> tuple[Places, Places]:
        """Starts and ends (exclusive) of the stretches of foreground voxels along W, ascending."""
        changes = np.flatnonzero(self.flat[1:] != self.flat[:-1]) + 1
        return changes[::2], changes[1::2]

    def surface(self) -> Points:
        """Foreground voxels with at least one of their six face neighbours in the background."""
        plane, end = self.steps[0], self.flat.size
        core = self.flat[plane : end - plane]
        inside = core.copy()
        for step in self.steps:
            inside &= self.flat[plane - step : end - plane - step]
            inside &= self.flat[plane + step : end - plane + step]
        marked = np.zeros_like(self.flat)
        np.not_equal(core, inside, out=marked[plane : end - plane])
        return Points(marked, np.flatnonzero(marked), self.shape)

    def corners(self) -> tuple[Points, Codes]:
        """Corners at which foreground and background voxels meet, and the code of the eight voxels around each.

        Bit 4 d + 2 h + w of a code is set if the voxel is foreground that lies at d, h, w (0 or 1) beyond the corner's
        place along D, H, W. A corner's place is that of the first of its voxels.
        """
        codes = self.flat.view(np.uint8)
        for bits, step in zip((1, 2, 4), reversed(self.steps), strict=True):
            codes = codes[:-step] | (codes[step:] << np.uint8(bits))
        marked = np.zeros_like(self.flat)
        np.greater(codes + np.uint8(1), 1, out=marked[: codes.size])  # neither 0 nor, after the last of all, 255
        places = np.flatnonzero(marked)
        return Points(marked, places, self.shape), codes[places]
