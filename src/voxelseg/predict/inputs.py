"""What a user may point prediction at: a file, a folder of scans, or a data set."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from voxelseg.data.dataset import Case
from voxelseg.data.layouts import LAYOUTS, read_dataset
from voxelseg.errors import DataError
from voxelseg.io import is_image, read_header, strip_suffix

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def find_cases(path: Path, *, channels: Sequence[str]) -> list[Case]:
    """Cases at `path`, sorted by id, for a model that expects `channels`.

    A file: one case. A folder with scans: every file is a case, but files that differ only in `_0000`, `_0001`, ...
    are the channels of one. A data set: its test cases, or its training cases if it has none.
    Raises DataError for nothing to predict, and, listing all of them, for cases with another number of channels.
    Damaged files are not found out here.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: not found. Name a scan, a folder of scans, or a data set.")
    try:
        cases = _cases(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its access rights.") from error
    wrong = [f"{case.id}: {fault}" for case in cases if (fault := _channel_fault(case, len(channels)))]
    if wrong:
        raise DataError(
            f"{path}: the model expects {len(channels)} channel(s) ({', '.join(channels)}), but\n  "
            + "\n  ".join(wrong)
            + "\nGive one file per channel, named <case>_0000, <case>_0001, ..., or one file with all channels."
        )
    return cases


def _cases(path: Path) -> list[Case]:
    if path.is_file() and is_image(path):
        return _grouped([path])
    scans = sorted(file for file in path.iterdir() if is_image(file)) if path.is_dir() else []
    if scans:
        return _grouped(scans)
    if path.is_dir() and not any(layout.matches(path) for layout in LAYOUTS.values()):
        raise DataError(
            f"{path}: neither scans nor a data set found. Supported are NIfTI, NRRD and MetaImage files and the data "
            "sets that `voxelseg check` reads."
        )
    dataset = read_dataset(path)
    return sorted(dataset.test_cases or dataset.cases, key=lambda case: case.id)


def _grouped(files: Sequence[Path]) -> list[Case]:
    """One case per file; files named <case>_0000, <case>_0001, ... from _0000 on are channels of one case."""
    matches = [_CHANNEL.fullmatch(strip_suffix(file)) for file in files]
    with_channels = {match["case"] for match in matches if match and match["channel"] == "0000"}
    groups: dict[str, list[Path]] = defaultdict(list)
    for file, match in zip(files, matches, strict=True):
        # Other numbers, as in scan_2023, count scans and not channels.
        is_channel = match is not None and match["case"] in with_channels
        groups[match["case"] if match and is_channel else strip_suffix(file)].append(file)
    unclear = []
    for case, group in groups.items():
        stems = [strip_suffix(file) for file in sorted(group)]
        if stems not in ([case], [f"{case}_{channel:04d}" for channel in range(len(group))]):
            unclear.append(", ".join(file.name for file in group))
    if unclear:
        raise DataError(
            f"{files[0].parent}: cannot tell which files make a scan: {'; '.join(unclear)}. Keep one file per scan, or "
            "one per channel, named <case>_0000, <case>_0001, ... without gaps."
        )
    return [Case(id=case, images=tuple(sorted(group))) for case, group in sorted(groups.items())]


def _channel_fault(case: Case, num_channels: int) -> str:
    """How the number of channels in the files of `case` differs from `num_channels`; empty if it does not."""
    found = 0
    for file in case.images:
        try:
            found += read_header(file).num_channels
        except DataError:
            return ""  # prediction reports what is unreadable, and goes on with the others
    if found == num_channels:
        return ""
    return f"{found} in {', '.join(file.name for file in case.images)}"
