"""Metrics that count voxels."""

import math

import numpy as np

from voxelseg.metrics.pair import MaskPair


def dice(pair: MaskPair) -> float:
    """Dice coefficient 2 |R and P| / (|R| + |P|), in [0, 1].

    Both masks empty: NaN. Exactly one empty: 0. Source: Dice 1945, doi:10.2307/1932409.
    """
    if pair.both_empty:
        return math.nan
    common = int(np.count_nonzero(pair.reference & pair.prediction))
    return 2 * common / (pair.num_reference + pair.num_prediction)
