"""Data set layouts: how folders and lists of files are told apart and read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import filelist, msd, nnunet, pairs
from voxelseg.data.layouts.description import DESCRIPTION_FILE, visible_files
from voxelseg.data.wording import some
from voxelseg.errors import DataError


class Reader(Protocol):
    """Reads a data set of one layout."""

    def __call__(self, path: Path, *, labelled: bool = True) -> Dataset:
        """The data set; without `labelled`, label maps need not be there and no case has one."""
        ...


@dataclass(frozen=True)
class Layout:
    """One way of laying out a data set on disk."""

    matches: Callable[[Path], bool]
    """Whether the path looks like this layout."""
    read: Reader
    looks_for: str
    """What identifies the layout, in words."""


LAYOUTS = {
    "nnunet": Layout(nnunet.matches, nnunet.read, nnunet.LOOKS_FOR),
    "msd": Layout(msd.matches, msd.read, msd.LOOKS_FOR),
    "pairs": Layout(pairs.matches, pairs.read, pairs.LOOKS_FOR),
    "filelist": Layout(filelist.matches, filelist.read, filelist.LOOKS_FOR),
}
"""Layouts in the order in which they are tried."""


def read_dataset(path: Path | str, *, labelled: bool = True) -> Dataset:
    """Cases, channels and labels of the data set at `path`, a folder or a JSON or CSV file list.

    Only lists files and reads descriptions; without described labels it also reads the label maps. Missing files and
    repeated ids are collected in `Dataset.problems`, and those cases left out. Without `labelled`, labels are neither
    needed nor read, and no case has one. Raises DataError if `path` is no data set, its description is invalid, or no
    complete case is left.
    """
    try:
        return _read(Path(path), labelled=labelled)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}). Check the path and its access rights."
        ) from error


def is_dataset(path: Path) -> bool:
    """Whether `path` looks like a data set of some layout."""
    return _layout_of(path) is not None


def _read(path: Path, *, labelled: bool) -> Dataset:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give the folder of a data set, or a JSON or CSV file list.")
    if path.name == DESCRIPTION_FILE and _layout_of(path.parent) is not None:
        path = path.parent
    layout = _layout_of(path)
    if layout is None:
        raise DataError(_not_a_dataset(path))
    return layout.read(path, labelled=labelled)


def _layout_of(path: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS.values() if layout.matches(path)), None)


def _not_a_dataset(path: Path) -> str:
    looked_for = "".join(f"\n  - {layout.looks_for}" for layout in LAYOUTS.values())
    if not path.is_dir():
        return f"{path}: not a data set. Looked for:{looked_for}\nGive the folder of a data set, or a file list."
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = visible_files(path)
    found = " and ".join(
        f"{len(names)} {kind if len(names) > 1 else kind[:-1]} ({some(names)})" if names else f"no {kind}"
        for kind, names in (("folders", [f"{folder.name}/" for folder in folders]), ("files", [f.name for f in files]))
    )
    inside = [str(folder) for folder in folders if _layout_of(folder) is not None]
    remedy = "Arrange the files in one of these ways."
    if inside:
        remedy = f"Give the data set inside it: {' or '.join(inside[:4])}."
    return f"{path}: not a data set. Found {found}. Looked for:{looked_for}\n{remedy}"
