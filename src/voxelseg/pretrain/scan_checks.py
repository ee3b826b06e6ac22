"""What is doubtful about scans without labels, judged from their fingerprint: nothing here stops a pre-training.

MR scans have no scale of their own: in one public set of 208, the brightest voxels of a scan range from 91 to 630,000.
So scans are told apart by where 0 lies between their dark and bright ends, which a factor does not change: an MR scan
begins near 0, air in CT lies at -1000, and soft tissue alone reaches below 0, too.
"""

from collections.abc import Mapping
from itertools import pairwise

from voxelseg.data.dataset import Dataset, is_ct
from voxelseg.data.wording import counted, some
from voxelseg.plan.fingerprint import Fingerprint, IntensityStatistics, ScanFingerprint

APART = 0.25
"""Gap in the position of 0 that parts two kinds of scans, in ranges from the 0.5 to the 99.5 percentile. It is 0.02 or
less within public sets of hippocampus, left atrium and cine MR, and 0.7 from any of these to an abdominal CT."""
AIR_HU = (-1200, -500)
"""Between these lies the 0.5 percentile of a CT scan that shows air."""
LABEL_VALUES, LABEL_FLATNESS = 16, 0.75
"""A scan has more values than this, or a smaller share of neighbours that are equal; label maps reach 0.76 to 1."""
MOST_LABEL_VALUES = 255
CONSTANT_SHARE = 0.5
"""Share of constant slices from which on a scan is named."""


def scan_warnings(scans: Dataset, fingerprint: Fingerprint, *, slice_axis: int) -> list[str]:
    """A sentence for each thing that makes a pre-training doubtful; `slice_axis` is one of the fingerprint's axes."""
    measured = {name: case for name, case in fingerprint.cases.items() if isinstance(case, ScanFingerprint)}
    label_maps = {name for name, case in measured.items() if _is_label_map(case)}
    images = {name: case for name, case in measured.items() if name not in label_maps}
    found = [
        _few_patients(scans),
        _sentence(
            label_maps,
            measured,
            "seems to be a label map (few values, in large areas)",
            "seem to be label maps (few values, in large areas)",
            "Take label maps out of the folder, or name a data set that describes them.",
        ),
        *(_of_two_kinds(images, channel, name) for channel, name in enumerate(fingerprint.channels)),
        _constant_slices(images, slice_axis),
    ]
    return [sentence for sentence in found if sentence]


def _few_patients(scans: Dataset) -> str:
    patients = {case.patient for case in scans.cases}
    if len(patients) > 1:
        return ""
    return (
        f"{counted(len(scans.cases), 'scan')} of one patient: none is held out, so nothing shows whether what is "
        "learnt holds for others. Add scans."
    )


def _is_label_map(scan: ScanFingerprint) -> bool:
    few = scan.num_values <= LABEL_VALUES
    return few or (scan.num_values <= MOST_LABEL_VALUES and scan.flat_share > LABEL_FLATNESS)


def _of_two_kinds(scans: Mapping[str, ScanFingerprint], channel: int, name: str) -> str:
    """A sentence if intensities of a channel fall into two kinds, naming the scans of the rarer one."""
    seen = {scan: case.intensities[channel] for scan, case in scans.items()}
    if is_ct(name) and (positive := {scan for scan, values in seen.items() if values.minimum >= 0}):
        return _sentence(
            positive,
            seen,
            "is called CT but has no negative value",
            "are called CT but have no negative value",
            "Convert them with rescale slope and intercept, or take out what is no CT.",
        )
    odd = _rarer({scan for scan, values in seen.items() if _shows_air(values)}, seen) or _beyond_gap(seen)
    if not odd:
        return ""
    usual = min(seen.keys() - odd)
    return _sentence(
        odd,
        seen,
        f"has {name} intensities of another kind than the others",
        f"have {name} intensities of another kind than the others",
        f"{_range(min(odd), seen)}, but {_range(usual, seen)}. They may be of another modality, or rescaled: take them "
        "out, or pre-train on each kind alone.",
    )


def _shows_air(values: IntensityStatistics) -> bool:
    low, high = AIR_HU
    return low < values.percentile_00_5 < high and values.percentile_99_5 > 0


def _rarer(some_scans: set[str], scans: Mapping[str, IntensityStatistics]) -> set[str]:
    """Of these scans and all others the fewer."""
    others = set(scans) - some_scans
    return some_scans if len(some_scans) <= len(others) else others


def _beyond_gap(scans: Mapping[str, IntensityStatistics]) -> set[str]:
    """The fewer scans on one side of the widest gap between positions of 0, if that is wide enough; else none."""
    positions = sorted((_position_of_zero(values), scan) for scan, values in scans.items())
    gaps = [upper[0] - lower[0] for lower, upper in pairwise(positions)]
    if not gaps or max(gaps) < APART:
        return set()
    return _rarer({scan for _, scan in positions[: gaps.index(max(gaps)) + 1]}, scans)


def _position_of_zero(values: IntensityStatistics) -> float:
    """How far the dark end lies above 0, in ranges from dark to bright; within -2 and 2."""
    extent = values.percentile_99_5 - values.percentile_00_5
    return min(max(values.percentile_00_5 / extent, -2.0), 2.0) if extent > 0 else 0.0


def _range(scan: str, scans: Mapping[str, IntensityStatistics]) -> str:
    return f"{scan} reaches from {scans[scan].percentile_00_5:.4g} to {scans[scan].percentile_99_5:.4g}"


def _constant_slices(scans: Mapping[str, ScanFingerprint], slice_axis: int) -> str:
    constant = {scan for scan, case in scans.items() if case.constant_slices[slice_axis] > CONSTANT_SHARE}
    return _sentence(
        constant,
        scans,
        "has a single value in more than half of its slices",
        "have a single value in more than half of their slices",
        "Nothing can be learnt from such slices: crop the scans (plan.crop=positive), take them out, or leave such "
        "slices out of masked-clusters (masked_clusters.skip_constant=true).",
    )


def _sentence(found: set[str], scans: Mapping[str, object], one: str, several: str, remedy: str) -> str:
    """Such as "2 of 9 scans have ...: a, b. Take them out."; empty if none is found."""
    if not found:
        return ""
    verb = one if len(found) == 1 else several
    return f"{len(found)} of {counted(len(scans), 'scan')} {verb}: {some(sorted(found))}. {remedy}"
