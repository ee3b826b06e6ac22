"""Which lesions were found, whatever the size and outline of what was found."""

import math

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxelseg.metrics.nearest import Places
from voxelseg.metrics.padded import Padded
from voxelseg.metrics.pair import MaskPair


def lesion_f1(pair: MaskPair) -> float:
    """F1 of the detection of lesions, in [0, 1]: 2 TP / (2 TP + FP + FN).

    A lesion is a connected component, of voxels that share a face, an edge or a corner (26 neighbours). TP counts the
    reference's lesions of which at least one voxel is predicted, FN the others, and FP the predicted lesions without a
    voxel in the reference. A predicted lesion that touches several of the reference's finds all of them.
    Both masks empty: NaN. Exactly one empty: 0.
    Source: Hernandez Petzsche et al. 2022, doi:10.1038/s41597-022-01875-5 (ISLES'22), and its evaluation code.
    """
    if pair.both_empty:
        return math.nan
    if pair.one_empty:
        return 0.0
    reference, prediction = pair.padded
    lesions = lesions_found(reference, prediction)
    right = lesions_found(prediction, reference)
    found = int(np.count_nonzero(lesions))
    return 2 * found / (found + lesions.size + int(np.count_nonzero(~right)))


def lesions_found(mask: Padded, other: Padded) -> npt.NDArray[np.bool_]:
    """For each connected component (26 neighbours) of `mask`, whether it has a voxel in `other`, on the same grid.

    Components are joined from runs of voxels along W, of which there are few: on a liver of 2.3 million voxels it takes
    a tenth of the time of labelling every voxel.
    """
    starts, ends = mask.runs
    plane, row, _ = mask.steps
    edges = [_touching(ends + ahead, starts + ahead, starts, ends) for ahead in (row, plane - row, plane, plane + row)]
    here, there = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_array((np.ones(here.size, np.bool_), (here, there)), shape=(starts.size, starts.size))
    count, component = connected_components(graph, directed=False)
    found = np.zeros(count, np.bool_)
    other_starts, other_ends = other.runs
    hit = np.searchsorted(other_starts, ends) > np.searchsorted(other_ends, starts, side="right")
    found[component[hit]] = True
    return found


def _touching(last: Places, first: Places, starts: Places, ends: Places) -> tuple[Places, Places]:
    """Pairs (run, other run) of runs first to last, exclusive, and of others that they share a side or corner with.

    The runs were moved onto the row of the others, so they touch if they overlap or one ends where the other begins.
    """
    from_run, to_run = np.searchsorted(ends, first), np.searchsorted(starts, last, side="right")
    counts = to_run - from_run
    runs = np.repeat(np.arange(counts.size), counts)
    steps = np.arange(runs.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return runs, np.repeat(from_run, counts) + steps
