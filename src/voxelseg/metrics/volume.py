"""Metrics of the size and place of a mask, whatever its shape."""

import math

from voxelseg.metrics.pair import MaskPair

_MM3_PER_ML = 1000


def volume_error_ml(pair: MaskPair) -> float:
    """Absolute difference of the two volumes in ml.

    Both masks empty: NaN. Exactly one empty: the volume of the other, as there is no largest error.
    """
    if pair.both_empty:
        return math.nan
    return abs(pair.num_prediction - pair.num_reference) * pair.voxel_mm3 / _MM3_PER_ML


def volume_similarity(pair: MaskPair) -> float:
    """1 - |P - R| / (P + R) of the volumes P and R, in [0, 1], wherever the masks lie.

    Both masks empty: NaN. Exactly one empty: 0. Source: Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x.
    """
    if pair.both_empty:
        return math.nan
    return 1 - abs(pair.num_prediction - pair.num_reference) / (pair.num_prediction + pair.num_reference)


def centre_distance_mm(pair: MaskPair) -> float:
    """Distance of the two centres of mass in mm.

    Both masks empty: NaN. Exactly one empty: the diagonal of the image, which no distance in it exceeds.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return pair.diagonal_mm
    return math.hypot(*pair.centre_shift_mm)
