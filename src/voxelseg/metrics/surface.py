"""Metrics of the distance between two surfaces; `MaskPair` says what a surface is."""

import math

import numpy as np

from voxelseg.errors import ConfigError
from voxelseg.metrics.pair import MaskPair

_ROUNDING = 1e-6
"""A distance equal to the tolerance lies within it even if sums of spacings differ from it in the last digits."""


def check_tolerance(tolerance_mm: float) -> None:
    """ConfigError unless `tolerance_mm` is a number of at least 0."""
    if not 0 <= tolerance_mm < math.inf:
        raise ConfigError(f"tolerance_mm must be a number of at least 0, got {tolerance_mm}.")


def surface_dice(pair: MaskPair, *, tolerance_mm: float) -> float:
    """Share of the voxels of both surfaces lying within `tolerance_mm` of the other surface, in [0, 1].

    Every surface voxel counts once, as in Seidlitz et al. 2022 (arXiv:2111.05408) and `monai.metrics`; the original,
    Nikolov et al. 2018 (arXiv:1809.04430), weighs surface elements by their area.
    Both masks empty: NaN. Exactly one empty: 0. Raises ConfigError for an impossible tolerance.
    """
    check_tolerance(tolerance_mm)
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return 0.0
    distances = np.concatenate(pair.surface_distances_mm)
    return float(np.count_nonzero(distances <= tolerance_mm * (1 + _ROUNDING)) / distances.size)


def hd95_mm(pair: MaskPair) -> float:
    """95th percentile Hausdorff distance in mm: the larger of the two directed 95th percentiles.

    Percentiles are interpolated linearly. Both masks empty: NaN. Exactly one empty: the diagonal of the image, which
    no distance between two masks exceeds.
    Source: Huttenlocher et al. 1993, doi:10.1109/34.232073, each direction with its percentile as in `monai.metrics`.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return max(float(np.percentile(distances, 95)) for distances in pair.surface_distances_mm)
