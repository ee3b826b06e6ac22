"""Whether probabilities of a class are what they say: of the voxels with 70 %, are 70 % of the class?

Each class is judged against all others (one-versus-rest), over the voxels around its reference (`judged_box`): over a
whole scan, nearly every voxel is background that any network is sure of, and all errors would look small alike.
"""

import math

import numpy as np

from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.reliability import Reliability


def ece(pair: MaskPair) -> float:
    """Expected calibration error of a class against all others, in [0, 1].

    Mean over the voxels of the difference, in their bin of probability, of the mean probability from the share of
    voxels that are of the class. Both masks empty: NaN. Exactly one empty: as always, from the probabilities.
    Source: Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602; one class against the others as in Kull et al. 2019,
    arXiv:1910.12656.
    """
    if pair.both_empty:
        return math.nan
    found = _judged(pair)
    return float(np.abs(found.probabilities - found.positives).sum() / found.counts.sum())


def brier(pair: MaskPair) -> float:
    """Brier score of a class against all others, in [0, 1]: mean squared error of the probabilities.

    Both masks empty: NaN. Exactly one empty: as always, from the probabilities.
    Source: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    if pair.both_empty:
        return math.nan
    found = _judged(pair)
    return found.squared_errors / int(found.counts.sum())


def _judged(pair: MaskPair) -> Reliability:
    assert pair.reliability is not None, "columns of probabilities are there only where these are"
    return pair.reliability
