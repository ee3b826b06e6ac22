"""What a user may point prediction at: a file, a folder of scans, or a data set."""

import re
from collections import defaultdict
from pathlib import Path

from voxelseg.data.dataset import Case
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import DataError
from voxelseg.io import is_image, strip_suffix

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


def find_cases(path: Path, *, num_channels: int) -> list[Case]:
    """Cases at `path`, sorted by id.

    A data set: its test cases, or its training cases if it has none. A folder: every image file is a case, and files
    that differ only in `_0000`, `_0001`, ... are the channels of one. A file: one case. Raises DataError for nothing to
    predict, or listing the cases whose number of channel files is neither 1 nor `num_channels`.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: not found. Name a scan, a folder of scans, or a data set.")
    if (path.is_dir() and (path / "dataset.json").is_file()) or (path.is_file() and not is_image(path)):
        dataset = read_dataset(path)
        return sorted(dataset.test_cases or dataset.cases, key=lambda case: case.id)
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if is_image(file))
    if not files:
        raise DataError(f"{path}: no scans found. Supported are NIfTI, NRRD and MetaImage files.")
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        stem = strip_suffix(file)
        match = _CHANNEL.match(stem)
        grouped[match["case"] if match else stem].append(file)
    wrong = [
        f"{case} has {len(group)} file(s): {', '.join(file.name for file in group)}"
        for case, group in grouped.items()
        if len(group) not in (1, num_channels)
    ]
    if wrong:
        raise DataError(
            f"{path}: the model expects {num_channels} channel(s) for each case, but\n  " + "\n  ".join(wrong) + "\n"
            "Give one file per channel, named <case>_0000, <case>_0001, ..., or one file with all channels."
        )
    return [Case(id=case, images=tuple(group)) for case, group in sorted(grouped.items())]
