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


def within(tolerance_mm: float) -> float:
    """The longest distance that counts as within the tolerance; ConfigError if that is impossible."""
    check_tolerance(tolerance_mm)
    return tolerance_mm * (1 + _ROUNDING)


def surface_dice(pair: MaskPair, *, tolerance_mm: float) -> float:
    """Share of the voxels of both surfaces lying within `tolerance_mm` of the other surface, in [0, 1].

    Every surface voxel counts once, as in Seidlitz et al. 2022 (arXiv:2111.05408) and `monai.metrics`; the original,
    Nikolov et al. 2018 (arXiv:1809.04430), weighs surface elements by their area.
    Both masks empty: NaN. Exactly one empty: 0. Raises ConfigError for an impossible tolerance.
    """
    within_reach = within(tolerance_mm)
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return 0.0
    near = sum(np.count_nonzero(distances <= within_reach) for distances in pair.surface_distances_mm)
    return near / sum(distances.size for distances in pair.surface_distances_mm)


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


def hd_mm(pair: MaskPair) -> float:
    """Hausdorff distance in mm: the longest distance from a voxel of one surface to the other surface.

    Both masks empty: NaN. Exactly one empty: the diagonal of the image.
    Source: Huttenlocher et al. 1993, doi:10.1109/34.232073.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return max(float(distances.max()) for distances in pair.surface_distances_mm)


def assd_mm(pair: MaskPair) -> float:
    """Average symmetric surface distance in mm: mean distance of all voxels of both surfaces to the other surface.

    The larger surface has the greater weight. Both masks empty: NaN. Exactly one empty: the diagonal of the image.
    Source: Heimann et al. 2009, doi:10.1109/TMI.2009.2013851.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    of_both = pair.surface_distances_mm
    return sum(float(distances.sum()) for distances in of_both) / sum(distances.size for distances in of_both)


def masd_mm(pair: MaskPair) -> float:
    """Mean average surface distance in mm: mean of the mean distances of the two directions.

    Both surfaces have the same weight. Both masks empty: NaN. Exactly one empty: the diagonal of the image.
    Source: Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return float(np.mean([distances.mean() for distances in pair.surface_distances_mm]))
