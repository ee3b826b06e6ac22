"""World coordinates of the ITK formats, which run left, posterior, superior."""

from collections.abc import Sequence

import numpy as np

from voxelseg.geometry import Affine

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
