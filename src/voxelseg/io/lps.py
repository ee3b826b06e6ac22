"""World coordinates of the ITK formats, which run left, posterior, superior."""

from collections.abc import Sequence

import numpy as np

from voxelseg.geometry import Affine, Grid
from voxelseg.io.format import NUM_AXES

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_from_lps(direction: Affine, spacing: Sequence[float], origin: Sequence[float]) -> Affine:
    """(4, 4) voxel index to RAS+ from an ITK image of 2, 3 or 4 axes; columns of `direction` are the file's axes."""
    num_axes = min(len(spacing), 3)
    affine = np.eye(4)
    affine[:num_axes, :num_axes] = np.asarray(direction)[:num_axes, :num_axes] * np.asarray(spacing)[:num_axes]
    affine[:num_axes, 3] = origin[:num_axes]
    return _FLIP @ affine


def affine_to_lps(affine: Affine) -> Affine:
    """(4, 4) voxel index to LPS; columns 0 to 2 are steps along the file's axes, column 3 the origin."""
    return _FLIP @ affine


def num_axes_of(grid: Grid) -> int:
    """Axes to write a grid with: 2 if its file had no more and they say where all of its voxels lie, else 3."""
    if grid.extra.get(NUM_AXES, 3) > 2:
        return 3
    lps = affine_to_lps(grid.affine_ijk)
    flat = affine_from_lps(lps[:2, :2], (1.0, 1.0), (lps[0, 3], lps[1, 3]))
    return 2 if np.allclose(flat, grid.affine_ijk, rtol=0, atol=1e-6) else 3
