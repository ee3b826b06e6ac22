"""From the folder that the makers of a public data set hand out to one that voxelseg reads.

Files are linked or copied, never changed: the orientation and the label values stay those of the makers. The folder is
built beside its place and renamed when it is complete.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.data.convert.folds import NNUNET_FOLDS, fixed_split, nnunet_folds
from voxelseg.data.convert.native import MISNAMED, Native, read_native
from voxelseg.data.convert.public import PublicDataset, label_table
from voxelseg.data.dataset import Case, Problem
from voxelseg.data.layouts.channels import channel_name
from voxelseg.data.layouts.description import DESCRIPTION_FILE
from voxelseg.data.splits import SPLIT_FILES, write_splits
from voxelseg.errors import ConfigError, DataError, VoxelsegError
from voxelseg.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    locked,
    read_json,
    remove_leftovers,
    sha256_of_json,
    write_error,
    write_json,
)
from voxelseg.version import __version__

HOW = ("link", "copy")
FOLDS_FILE = SPLIT_FILES[1]
"""nnU-Net's folds; read by default."""
_MOST_ERRORS = 40
_GB = 1e9


@dataclass(frozen=True)
class Conversion:
    """What `convert_public_data` did."""

    dataset: PublicDataset
    source: Path
    """Folder that was read: the given one, or one below it."""
    out: Path
    num_training: int
    num_test: int
    left_out: int
    """Cases in the folder that are not of this data set."""
    num_linked: int
    """Files that are hard links to those in `source`."""
    num_copied: int
    warnings: tuple[Problem, ...]
    splits: dict[str, str]
    """What each file with folds holds."""


@dataclass(frozen=True)
class _Transfer:
    """A file and where it goes."""

    source: Path
    target: str
    """Path below the converted folder."""
    is_label: bool


def convert_public_data(
    dataset: PublicDataset,
    source: Path | str,
    out: Path | str,
    *,
    how: str = "link",
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Make the folder `out` from the data set's own folder at or below `source`.

    With `how` "link" images become hard links, which need no space and stay when `source` is deleted; where the file
    system has none, they are copied. Label maps, which are small and are what people correct, are always copied, so
    that no correction reaches into `source`. With "copy" everything is copied. `progress` is called with the numbers of
    files done and in all. The same call continues after an interruption.

    Raises DataError, which names everything that is wrong with the files, before anything is written, ConfigError for
    another `how`, and VoxelsegError if `out` is not empty, cannot be written, or the disk is too small.
    """
    if how not in HOW:
        raise ConfigError(f"how {how!r}: expected {' or '.join(HOW)}.")
    source, out = Path(source), Path(out)
    _refuse_if_filled(out)
    native = read_native(dataset, source)
    _raise_errors(native, dataset)
    transfers = list(_transfers(native, dataset))
    place = Path(os.path.realpath(out))  # where a link leads to, which may lie on another disk
    staging = place.with_name(f"{TEMPORARY_PREFIX}{place.name}")
    with locked(staging):
        built = _prepare(staging, dataset, transfers, how)
        num_linked = _transfer(transfers, built, how, progress)
        splits, remarks = _write_splits(built, native, dataset)
        write_json(built / DESCRIPTION_FILE, _description(native, dataset))
        _put_in_place(built, place)
    shutil.rmtree(staging, ignore_errors=True)
    return Conversion(
        dataset=dataset,
        source=native.root,
        out=out,
        num_training=len(native.training),
        num_test=len(native.test),
        left_out=native.left_out,
        num_linked=num_linked,
        num_copied=len(transfers) - num_linked,
        warnings=(*native.problems, *remarks),
        splits=splits,
    )


def _refuse_if_filled(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise VoxelsegError(f"{out}: is a file, expected a folder to make. Choose another output folder.")
    if out.is_dir() and any(out.iterdir()):
        raise VoxelsegError(
            f"{out}: is not empty, and nothing in it is overwritten. If it is the converted data set, go on with "
            f"`voxelseg check {out}`; otherwise choose another output folder."
        )
    if os.path.ismount(out):  # it cannot be replaced by the finished folder
        raise VoxelsegError(f"{out}: is where a disk is mounted. Choose a folder in it, such as {out / 'data'}.")


def _raise_errors(native: Native, dataset: PublicDataset) -> None:
    """DataError that lists all errors, if there are any, and then files with other names, which may be missing ones."""
    errors = [problem for problem in native.problems if problem.severity == "error"]
    if not errors:
        return
    misnamed = [problem for problem in native.problems if problem.severity == "warning" and problem.code == MISNAMED]
    listing = [*errors, *misnamed]
    lines = [f"  {f'{one.case}: ' if one.case else ''}{one.message} {one.remedy}" for one in listing]
    more = [f"  and {len(lines) - _MOST_ERRORS} more"] if len(lines) > _MOST_ERRORS else []
    listed = "\n".join([*lines[:_MOST_ERRORS], *more])
    raise DataError(f"{native.root}: {dataset.name} cannot be converted, nothing was written:\n{listed}")


# -------------------------------------------------------------------------------------------- what goes where


def _transfers(native: Native, dataset: PublicDataset) -> Iterator[_Transfer]:
    """Every file of the converted data set but its description."""
    for cases, ending in ((native.training, "Tr"), (native.test, "Ts")):
        for case in cases:
            for name, image in zip(_image_names(case, dataset), case.images, strict=True):
                yield _Transfer(image, f"images{ending}/{name}{native.ending}", is_label=False)
            if case.label is not None:
                yield _Transfer(case.label, f"labels{ending}/{case.id}{native.ending}", is_label=True)


def _image_names(case: Case, dataset: PublicDataset) -> list[str]:
    if dataset.layout == "msd":
        return [case.id]
    return [channel_name(case.id, index) for index in range(len(case.images))]


def _description(native: Native, dataset: PublicDataset) -> dict[str, Any]:
    """The dataset.json of the converted folder."""
    about = {
        "name": dataset.name,
        "description": dataset.title,
        "reference": dataset.citation,
        "licence": dataset.licence,
        "converted_by": f"voxelseg {__version__}",
        "numTraining": len(native.training),
    }
    channels = {str(index): name for index, name in enumerate(dataset.channels)}
    if dataset.layout == "nnunet":
        order = [one.paint for one in dataset.labels.classes]
        return {
            **about,
            "channel_names": channels,
            "labels": label_table(dataset.labels),
            **({"regions_class_order": order} if dataset.labels.has_regions else {}),
            "file_ending": native.ending,
        }
    return {
        **about,
        "modality": channels,
        "labels": {"0": "background", **{str(one.values[0]): one.name for one in dataset.labels.classes}},
        "numTest": len(native.test),
        "training": [
            {
                "image": f"./imagesTr/{case.id}{native.ending}",
                "label": f"./labelsTr/{case.id}{native.ending}",
            }
            for case in native.training
        ],
        "test": [f"./imagesTs/{case.id}{native.ending}" for case in native.test],
    }


def _write_splits(built: Path, native: Native, dataset: PublicDataset) -> tuple[dict[str, str], list[Problem]]:
    """Write nnU-Net's folds and those of papers; what each file holds, and a problem for each that is not complete."""
    ids = [case.id for case in native.training]
    written: dict[str, str] = {}
    problems = []
    if len(ids) >= NNUNET_FOLDS:
        write_splits(built / FOLDS_FILE, nnunet_folds(ids))
        written[FOLDS_FILE] = "nnU-Net's five folds, read by default."
    for division in dataset.held_out:
        name = f"splits_{division.name}.json"
        split = fixed_split(ids, division)
        if split is not None:
            write_splits(built / name, [split])
            written[name] = division.about
        absent = sorted(set(division.validation) - set(ids))
        if absent:
            message = f"{name}: {len(absent)} of {len(division.validation)} held-out cases are not there"
            effect = "." if split else ", so it is not written."
            remedy = "Complete the download to compare scores with those of the paper."
            problems.append(Problem("", "warning", "case-count", f"{message}{effect}", remedy))
    return written, problems


# ------------------------------------------------------------------------------------------------- doing it


def _prepare(staging: Path, dataset: PublicDataset, transfers: Sequence[_Transfer], how: str) -> Path:
    """Folder to build the data set in, with what an interrupted call for the same files left there."""
    built, plan_file = staging / "data", staging / "plan.json"
    states = [(one.source, one.source.stat()) for one in transfers]
    files = [[str(path.resolve()), state.st_size, state.st_mtime_ns] for path, state in states]
    plan = {"dataset": dataset.name, "how": how, "files": sha256_of_json(files)}
    if not plan_file.is_file() or read_json(plan_file) != plan:
        shutil.rmtree(built, ignore_errors=True)
        write_json(plan_file, plan)
    for folder in {(built / one.target).parent for one in transfers}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    return built


def _transfer(
    transfers: Sequence[_Transfer], built: Path, how: str, progress: Callable[[int, int], None] | None
) -> int:
    """Link or copy what is not there yet; the number of links."""
    links = how == "link" and _can_link(transfers[0].source, built)
    waiting = [one for one in transfers if not (built / one.target).exists()]
    _check_space([one for one in waiting if one.is_label or not links], built)
    done = len(transfers) - len(waiting)
    for one in waiting:
        target = built / one.target
        if one.is_label or not links or not _link(one.source, target):
            with atomic_path(target) as temporary:
                shutil.copyfile(one.source, temporary)
        done += 1
        if progress is not None:
            progress(done, len(transfers))
    return sum(not one.is_label and (built / one.target).samefile(one.source) for one in transfers)


def _can_link(file: Path, folder: Path) -> bool:
    """Whether hard links to `file` can be made in `folder`."""
    probe = folder / f"{TEMPORARY_PREFIX}link"
    with suppress(OSError):
        probe.unlink()
    if not _link(file, probe):
        return False
    probe.unlink()
    return True


def _link(source: Path, target: Path) -> bool:
    """Make `target` a hard link; False where the file system has none, or none more for this file."""
    try:
        os.link(os.path.realpath(source), target)  # of the file itself: a link to a symbolic link dies with its target
    except OSError:
        return False
    return True


def _check_space(copied: Sequence[_Transfer], folder: Path) -> None:
    needed = sum(one.source.stat().st_size for one in copied)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise VoxelsegError(
            f"{folder.parent.parent}: {needed / _GB:.1f} GB are to be copied, {free / _GB:.1f} GB are free. "
            "Choose an output folder on a larger disk, or on the disk of the data with --how link."
        )


def _put_in_place(built: Path, out: Path) -> None:
    try:
        if out.is_dir():
            out.rmdir()  # empty, see _refuse_if_filled
        built.rename(out)
    except OSError as error:
        raise write_error(out, error) from error
