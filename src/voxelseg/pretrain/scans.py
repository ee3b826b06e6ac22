"""Scans to learn from without labels: a data set of any layout, or any folder with scans in it."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import NO_LABELS
from voxelseg.data.layouts import is_dataset, read_dataset
from voxelseg.data.layouts.channels import cases_of_files
from voxelseg.data.layouts.description import folder_name
from voxelseg.data.wording import counted, some
from voxelseg.errors import ConfigError, DataError
from voxelseg.io import FORMATS, is_image, read_header

_LEFT_OUT = ("missing-image", "missing-channel", "duplicate-case", "surplus-channel", "unexpected-file")
_NO_SUFFIX = "without a suffix"
LEAST_PATIENT_FOLDERS = 3
"""Folders of several scans from which on each may be a patient; two are often two collections of scans."""
_LIKE_DICOM = {".dcm", ".ima", _NO_SUFFIX}
_CONVERT = "Convert DICOM series to NIfTI first, for example with dcm2niix."
_log = logging.getLogger(__name__)


def read_scans(path: Path | str, *, channel: str | None = None) -> Dataset:
    """Scans at `path` as cases without labels, sorted by id.

    Of a data set, label maps are neither needed nor read, and its test cases are among the scans, which is said. In any
    other folder every scan counts, in the folders below it too, and a data set among these is read as one. Files that
    differ in `_0000`, `_0001`, ... only are channels of one scan; hidden files are passed over. An id is the relative
    path, with "_" between the folders, and patients are read from it; a warning names folders that look like patients
    whom it does not tell.

    `channel` names what the scans show, such as "CT", with a comma between several; without it the layout's names
    hold, or "channel_0", ... where there are none.

    Only headers are read. Raises DataError if there is no scan, and listing all files that cannot be read, ids that
    occur twice, and scans with another number of channels than most; ConfigError for a wrong number of names.
    """
    path = Path(path)
    if path.is_file() and is_image(path):
        raise DataError(f"{path}: is one scan, expected many. Name a folder of scans or a data set.")
    try:
        found = _read_set(path) if not path.is_dir() or is_dataset(path) else _read_folder(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}). Check its access rights."
        ) from error
    _check_ids(path, found.cases)
    count = _num_channels(path, found)
    names = found.channels or tuple(f"channel_{index}" for index in range(count))
    if channel is not None:
        names = tuple(name.strip() for name in channel.split(","))
        if len(names) != count or not all(names):
            raise ConfigError(
                f"pretrain.channel names {counted(len(names), 'channel')} ({channel!r}), but the scans have {count}. "
                'Name each, with a comma in between, such as "CT,PET".'
            )
    return replace(found, channels=names, cases=tuple(sorted(found.cases, key=lambda case: case.id)))


def _read_set(path: Path) -> Dataset:
    """A data set's training and test cases together."""
    dataset = read_dataset(path, labelled=False)
    left_out = [problem for problem in dataset.problems if problem.code in _LEFT_OUT]
    if left_out:
        _log.warning(
            "%s: %s: %s",
            path,
            counted(len(left_out), "scan or file is left out", "scans or files are left out"),
            some([f"{problem.case or 'file'} ({problem.message})" for problem in left_out]),
        )
    if dataset.test_cases:
        _log.warning(
            "%s: %s among the scans, since no labels are needed.",
            path,
            counted(len(dataset.test_cases), "test case is", "test cases are"),
        )
    return replace(dataset, cases=(*dataset.cases, *dataset.test_cases), test_cases=())


def _read_folder(path: Path) -> Dataset:
    """All scans in `path` and below; the channels are named if they all come from data sets that agree on that."""
    loose: list[Case] = []
    inside: list[Dataset] = []
    faults: list[str] = []
    endings: Counter[str] = Counter()
    for folder in _folders(path):
        if is_dataset(folder):
            found = _read_set(folder)
            inside.append(replace(found, cases=tuple(_prefixed(found.cases, folder, path))))
            continue
        # Links that lead nowhere count as files, so that they are named among those that cannot be read.
        files = sorted(file for file in folder.iterdir() if not file.is_dir() and not file.name.startswith("."))
        endings.update(file.suffix.lower() or _NO_SUFFIX for file in files if not is_image(file))
        try:
            loose += _prefixed(cases_of_files([file for file in files if is_image(file)]), folder, path)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    if not loose and not inside:
        others = f" Other files found: {some([f'{count} {ending}' for ending, count in endings.most_common()])}."
        raise DataError(
            f"{path}: no scan in this folder or below it, expected {', '.join(FORMATS)}.{others if endings else ''} "
            f"Name the folder that holds the scans. {_CONVERT}"
        )
    if endings:
        _log.warning(
            "%s: passed over what is no scan in a known format: %s.%s",
            path,
            some([f"{count} {ending}" for ending, count in endings.most_common()]),
            f" {_CONVERT}" if endings.keys() & _LIKE_DICOM else "",
        )
    _warn_of_unknown_patients(path, loose)
    named = {dataset.channels for dataset in inside}
    return Dataset(
        name=folder_name(path),
        root=path,
        layout="scans",
        channels=named.pop() if len(named) == 1 and not loose else (),
        labels=NO_LABELS,
        cases=(*loose, *(case for dataset in inside for case in dataset.cases)),
    )


def _folders(root: Path) -> Iterator[Path]:
    """`root` and all folders in it, sorted, but hidden ones and those inside a data set; links are followed once."""
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        yield folder
        if not is_dataset(folder):
            below = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
            waiting += sorted(below, reverse=True)


def _prefixed(cases: Sequence[Case], folder: Path, root: Path) -> list[Case]:
    """The same cases, their ids led by the way from `root` to `folder`."""
    prefix = "".join(f"{part}_" for part in folder.relative_to(root).parts)
    return [
        Case(id=f"{prefix}{case.id}", images=case.images, patient=case.patient if case.patient != case.id else "")
        for case in cases
    ]


def _warn_of_unknown_patients(root: Path, cases: Sequence[Case]) -> None:
    """Say it if scans count as a patient each although their folders may be patients: at least three of them."""
    unknown = [case.images[0].relative_to(root).parents for case in cases if case.patient == case.id]
    sizes = Counter(folder for folders in unknown for folder in folders)
    nearest = {next(folder for folder in folders if sizes[folder] > 1 or folder == Path()) for folders in unknown}
    shared = sorted(str(folder) for folder in nearest - {Path()})
    if len(shared) >= LEAST_PATIENT_FOLDERS:
        _log.warning(
            "%s: %s of several scans (%s), each of which counts as a patient of its own, so scans of one folder may be "
            "learnt from and held out. If each holds one patient, name them sub-1, sub-2, ... directly in this folder, "
            "or name all scans in a CSV file with the columns image and patient.",
            root,
            counted(len(shared), "folder"),
            some(shared),
        )


def _check_ids(path: Path, cases: Sequence[Case]) -> None:
    files_of: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        files_of[case.id].append(str(case.images[0]))
    twice = [f"{case}: {' and '.join(files)}" for case, files in sorted(files_of.items()) if len(files) > 1]
    if twice:
        listed = "\n  ".join(twice)
        raise DataError(
            f"{path}: {counted(len(twice), 'id stands', 'ids stand')} for several scans:\n  {listed}\nAn id is the "
            "path without its suffix, with '_' for '/'. Rename the files, or keep one of each."
        )


def _num_channels(path: Path, scans: Dataset) -> int:
    """Channels of each scan: as many as are named, else as most headers say.

    DataError listing the files that cannot be read and the scans with more or fewer.
    """
    counts: dict[str, int] = {}
    faults: list[str] = []
    for case in scans.cases:
        try:
            counts[str(case.images[0])] = sum(read_header(file).num_channels for file in case.images)
        except DataError as error:
            faults.append(str(error))
    usual = len(scans.channels) or max(counts.values(), key=Counter(counts.values()).__getitem__, default=0)
    faults += [f"{name}: {counted(count, 'channel')}, not {usual}" for name, count in counts.items() if count != usual]
    if faults:
        listed = "\n  ".join(faults)
        raise DataError(
            f"{path}: {len(faults)} of {counted(len(scans.cases), 'scan')} cannot be used:\n  {listed}\nMend them, or "
            "take them out of the folder."
        )
    return usual
