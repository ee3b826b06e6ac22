"""Metrics that count voxels."""

import math

from voxelseg.metrics.pair import MaskPair


def dice(pair: MaskPair) -> float:
    """Dice coefficient 2 |R and P| / (|R| + |P|), in [0, 1].

    Both masks empty: NaN. Exactly one empty: 0. Source: Dice 1945, doi:10.2307/1932409.
    """
    if pair.both_empty:
        return math.nan
    return 2 * pair.num_common / (pair.num_reference + pair.num_prediction)


def iou(pair: MaskPair) -> float:
    """Intersection over union |R and P| / |R or P|, in [0, 1]; also called Jaccard index.

    Both masks empty: NaN. Exactly one empty: 0. Source: Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x.
    """
    if pair.both_empty:
        return math.nan
    return pair.num_common / (pair.num_reference + pair.num_prediction - pair.num_common)


def sensitivity(pair: MaskPair) -> float:
    """Share of the reference's voxels that are predicted, in [0, 1]; also called recall.

    Both masks empty: NaN. Exactly one empty: 0, so a class that is only predicted does not go unseen.
    """
    if pair.both_empty:
        return math.nan
    return pair.num_common / pair.num_reference if pair.num_reference else 0.0


def precision(pair: MaskPair) -> float:
    """Share of the predicted voxels that are in the reference, in [0, 1].

    Both masks empty: NaN. Exactly one empty: 0, so a class that is missed does not go unseen.
    """
    if pair.both_empty:
        return math.nan
    return pair.num_common / pair.num_prediction if pair.num_prediction else 0.0
