"""Which files make one scan: four digits at the end of a name may count channels, as nnU-Net writes them."""

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from voxelseg.data.dataset import Case
from voxelseg.errors import DataError
from voxelseg.io import strip_suffix

_CHANNEL = re.compile(r"(.+)_([0-9]{4})")


def channel_name(case_id: str, channel: int) -> str:
    """Name, without suffix, of the file that holds one channel of a case: "liver_01_0000"."""
    return f"{case_id}_{channel:04d}"


def channel_of(stem: str) -> tuple[str, int] | None:
    """Case and number of the channel in a name without suffix; None if it does not end in four digits."""
    match = _CHANNEL.fullmatch(stem)
    return (match[1], int(match[2])) if match else None


def group_files(files: Iterable[Path], *, known: Container[str] = ()) -> dict[str, list[Path]]:
    """Files of each case, in the order given.

    Files whose names end in four digits are channels of one case if that case is `known` or has a channel 0000, unless
    the whole name is a known case. Other numbers, as in scan_2023, count scans and not channels.
    """
    stems = {file: strip_suffix(file) for file in files}
    first_channels = {stem for stem in stems.values() if stem.endswith("_0000")}
    groups: dict[str, list[Path]] = defaultdict(list)
    for file, stem in stems.items():
        named = None if stem in known else channel_of(stem)
        is_channel = named is not None and (named[0] in known or channel_name(named[0], 0) in first_channels)
        groups[named[0] if named and is_channel else stem].append(file)
    return dict(groups)


def cases_of_files(files: Sequence[Path]) -> list[Case]:
    """One case per file of a folder, sorted; <case>_0000, <case>_0001, ... from _0000 on are channels of one case.

    DataError if names leave open which files make a scan.
    """
    groups = group_files(files)
    unclear = []
    for case, group in groups.items():
        stems = [strip_suffix(file) for file in sorted(group)]
        if stems not in ([case], [channel_name(case, channel) for channel in range(len(group))]):
            unclear.append(", ".join(file.name for file in group))
    if unclear:
        raise DataError(
            f"{files[0].parent}: cannot tell which files make a scan: {'; '.join(unclear)}. Keep one file per scan, or "
            "one per channel, named <case>_0000, <case>_0001, ... without gaps."
        )
    return [Case(id=case, images=tuple(sorted(group))) for case, group in sorted(groups.items())]
