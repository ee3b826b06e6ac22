"""Cases that look mirrored left to right, judged by where the centroids of their classes lie.

Two rules. Names: the centroid of "left_x" lies further left than that of "right_x". Agreement: where two classes lie in
the same order, well apart, in nearly all cases of a data set, the few cases with the opposite order are suspected. If
no two classes do so, as in a data set with one class, the scan's centre takes the place of one.
Structures that lie on either side of the body by nature give no agreement, so nothing is suspected from them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MIN_CASES = 10
"""Agreement of fewer cases may be chance: one odd case among 10 has a chance of 2 % when sides are random."""
MAX_ODD_SHARE = 0.1
"""At most this share of the cases (but one in any data set) may lie the other way round."""
MIN_DISTANCE_VOXELS = 4.0
"""Centroids that are closer than this may change their order by nature."""
MIN_SHARE_OF_WIDTH = 0.1
"""A class closer to the scan's centre may come to lie on its other side when the view is shifted or cropped."""
SCAN_CENTRE = ""
"""Stands for the centre of the scan among the names of classes."""

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])")


@dataclass(frozen=True)
class Flip:
    """Suspicion that one case, or the whole data set, is mirrored left to right."""

    case: str
    """Empty if the class names themselves contradict most cases."""
    classes: tuple[str, str]
    """Two classes that lie the other way round, or `SCAN_CENTRE` and a class."""
    num_odd: int
    """Cases in which they do."""
    num_cases: int
    """Cases that have both."""


def suspected_flips(
    positions_mm: Mapping[str, Mapping[str, float]], classes: Sequence[str], *, spacing_mm: float, width_mm: float
) -> list[Flip]:
    """Cases that seem mirrored, in the order of `positions_mm`; first a contradiction of the names, if there is one.

    `positions_mm` gives, for each case and class in it, the class centroid on the axis from left to right, and the
    scan's centre on it as `SCAN_CENTRE`; `spacing_mm` is the usual voxel size along this axis, `width_mm` the usual
    size of a scan.
    """
    ids, columns = list(positions_mm), [*classes, SCAN_CENTRE]
    positions = np.array([[positions_mm[case].get(name, np.nan) for name in columns] for case in ids])
    positions = positions.reshape(len(ids), len(columns))
    named, contradiction = _by_name(ids, positions, classes, spacing_mm)
    near = MIN_DISTANCE_VOXELS * spacing_mm
    agreed = _by_agreement(ids, positions, list(combinations(range(len(classes)), 2)), columns, near)
    if agreed is None:
        pairs = [(len(classes), index) for index in range(len(classes))]
        agreed = _by_agreement(ids, positions, pairs, columns, max(near, MIN_SHARE_OF_WIDTH * width_mm))
    by_case = {**(agreed or {}), **named}
    return [*contradiction, *(by_case[case] for case in ids if case in by_case)]


def other_side(name: str) -> str:
    """Name of the same structure on the other side, in lower case; the name itself if it names no side."""
    return _SIDE.sub(lambda side: _SIDES[side[0]], name.lower())


def _by_name(
    ids: Sequence[str], positions: Array, classes: Sequence[str], spacing_mm: float
) -> tuple[dict[str, Flip], list[Flip]]:
    index_of = {name.lower(): index for index, name in enumerate(classes)}
    flips: dict[str, Flip] = {}
    contradictions: list[Flip] = []
    for name, left in index_of.items():
        right = index_of.get(other_side(name))
        side = _SIDE.search(name)
        if right is None or side is None or side[0] not in ("left", "l"):
            continue
        to_the_right = positions[:, right] - positions[:, left]
        present = np.isfinite(to_the_right)
        odd = present & (to_the_right < -MIN_DISTANCE_VOXELS * spacing_mm)
        pair = (classes[left], classes[right])
        if 2 * odd.sum() > present.sum():
            contradictions.append(Flip("", pair, int(odd.sum()), int(present.sum())))
            continue
        for index in np.flatnonzero(odd).tolist():
            flips.setdefault(ids[index], Flip(ids[index], pair, int(odd.sum()), int(present.sum())))
    return flips, contradictions


def _by_agreement(
    ids: Sequence[str],
    positions: Array,
    pairs: Sequence[tuple[int, int]],
    columns: Sequence[str],
    min_distance_mm: float,
) -> dict[str, Flip] | None:
    """Suspected cases by the `pairs` of columns that lie in the same order in nearly all; None if no pair does."""
    votes, ballots = np.zeros(len(ids), int), np.zeros(len(ids), int)
    widest: dict[int, tuple[float, Flip]] = {}
    for first, second in pairs:
        offset = positions[:, second] - positions[:, first]
        present = np.isfinite(offset)
        if present.sum() < MIN_CASES:
            continue
        offset = offset * np.sign(np.median(offset[present]))
        odd = present & (offset < 0)
        if odd.sum() > max(1, int(MAX_ODD_SHARE * present.sum())):
            continue
        usual = offset[present & ~odd]
        distance = float(np.median(usual))
        if distance < min_distance_mm or np.percentile(usual, 10) < distance / 2:
            continue
        ballots += present
        mirrored = odd & (offset < -distance / 2)
        votes += mirrored
        for index in np.flatnonzero(mirrored).tolist():
            flip = Flip(ids[index], (columns[first], columns[second]), int(odd.sum()), int(present.sum()))
            if distance > widest.get(index, (0.0, flip))[0]:
                widest[index] = (distance, flip)
    if not ballots.any():
        return None
    return {ids[index]: flip for index, (_, flip) in widest.items() if 2 * votes[index] > ballots[index]}
