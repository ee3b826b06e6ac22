"""What a user may point prediction at: a file, a folder of scans, or a data set."""

import logging
from collections.abc import Sequence
from pathlib import Path

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.layouts import LAYOUTS, read_dataset
from voxelseg.data.layouts.channels import cases_of_files
from voxelseg.errors import DataError
from voxelseg.io import is_image, read_header

_INCOMPLETE = ("missing-image", "missing-channel")
_log = logging.getLogger(__name__)


def find_cases(path: Path, *, channels: Sequence[str]) -> list[Case]:
    """Cases at `path`, sorted by id, for a model that expects `channels`.

    A file: one case. A folder with scans: every file is a case, but files that differ only in `_0000`, `_0001`, ...
    are the channels of one. A data set: its test cases, or its training cases, which is said, if it describes none.
    Raises DataError for nothing to predict, for a data set whose scans are missing or whose channels are named in
    another order, and, listing all of them, for cases with another number of channels. Damaged files are not found out
    here.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: not found. Name a scan, a folder of scans, or a data set.")
    try:
        cases = _cases(path, channels)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its access rights.") from error
    wrong = [f"{case.id}: {fault}" for case in cases if (fault := _channel_fault(case, len(channels)))]
    if wrong:
        raise DataError(
            f"{path}: the model expects {len(channels)} channel(s) ({', '.join(channels)}), but\n  "
            + "\n  ".join(wrong)
            + "\nGive the folder with one file per channel, named <case>_0000, <case>_0001, ..., or files with all "
            "channels. Names of separate scans must not end in _0000."
        )
    return cases


def _cases(path: Path, channels: Sequence[str]) -> list[Case]:
    if path.is_file() and is_image(path):
        return cases_of_files([path])
    if path.is_dir() and not any(layout.matches(path) for layout in LAYOUTS.values()):
        scans = sorted(file for file in path.iterdir() if is_image(file))
        if scans:
            return cases_of_files(scans)
        raise DataError(
            f"{path}: neither scans nor a data set found. Supported are NIfTI, NRRD and MetaImage files and the data "
            "sets that `voxelseg check` reads."
        )
    return _cases_of(read_dataset(path), channels)


def _cases_of(dataset: Dataset, channels: Sequence[str]) -> list[Case]:
    """Test cases of a data set, else its training cases; DataError if some of either are incomplete."""
    _compare_names(dataset, channels)
    lost = [problem for problem in dataset.problems if problem.code in _INCOMPLETE]
    of_test_cases = [problem for problem in lost if problem.severity == "warning"]
    has_test_cases = bool(dataset.test_cases or of_test_cases)
    lost = of_test_cases if has_test_cases else lost
    if lost:
        listed = "\n  ".join(f"{problem.case}: {problem.message}" for problem in lost)
        raise DataError(
            f"{dataset.source}: scans of the data set are not there:\n  {listed}\nAdd them, or name a folder of scans."
        )
    if not has_test_cases:
        _log.warning("%s: describes no test cases; its training cases are predicted.", dataset.source)
    return sorted(dataset.test_cases or dataset.cases, key=lambda case: case.id)


def _compare_names(dataset: Dataset, channels: Sequence[str]) -> None:
    """DataError if the data set has the model's channels in another order; a remark if it calls them otherwise."""
    ours, theirs = ([name.strip().casefold() for name in names] for names in (channels, dataset.channels))
    unnamed = any(problem.code == "unnamed-channels" for problem in dataset.problems)
    if ours == theirs or unnamed or len(ours) != len(theirs):
        return
    words = (
        f"{dataset.source}: the channels are {', '.join(dataset.channels)}, those of the model {', '.join(channels)}"
    )
    if sorted(ours) == sorted(theirs):
        raise DataError(f"{words}. Give the files in the model's order.")
    _log.warning("%s; they are taken in this order.", words)


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
