"""File lists: a JSON or CSV file that names the image and label of every case, wherever they lie.

CSV has the columns `image` (one file with all channels) or `image_0`, `image_1`, ... (one file per channel) and
`label`, and may have `id`, `patient` and `fold`. A JSON file holds a list of records with the same keys, where `image`
may also be a list of files, or an object with that list under `training` or `cases` and, optionally, `test`,
`channel_names`, `labels` and `name`. Paths are relative to the list's folder. A CSV file finds its channel and class
names in `<its name>.json` or `dataset.json` beside it; without them, the label maps are read to find the values.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    complete_cases,
    file_ending_of,
    parse_description,
    read_description,
    require_cases,
    unknown_patients,
)
from voxelseg.data.layouts.discover import channels_or_discover, labels_or_discover
from voxelseg.errors import DataError
from voxelseg.files import read_json
from voxelseg.io import strip_suffix

LOOKS_FOR = "a JSON or CSV file list (a file with columns image, label)"

_CHANNEL_COLUMN = re.compile(r"image_(\d+)")
_KEYS = {"id", "image", "label", "patient", "fold"}
_ID_REMEDY = "Ids become file names: use letters, digits, '-', '_' and '.'."


def matches(path: Path) -> bool:
    """Whether `path` is a file whose name ends in .json or .csv."""
    return path.is_file() and path.suffix.lower() in {".json", ".csv"}


def read(path: Path) -> Dataset:
    """Data set that a JSON or CSV file lists."""
    if path.suffix.lower() == ".csv":
        return dataset_from_records(path, _read_csv(path), [], _description_beside(path), layout="filelist")
    training, test, description = _read_json_list(path)
    return dataset_from_records(path, training, test, description, layout="filelist")


def dataset_from_records(
    path: Path,
    training: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    description: Description,
    *,
    layout: str,
) -> Dataset:
    """Data set from records that were read from the file `path`; their paths are relative to its folder."""
    root = path.parent
    candidates = [_case(record, path, description) for record in training]
    test_candidates = [_case(record, path, description) for record in test]
    cases, problems = complete_cases(candidates, root=root, channels=description.channels)
    test_cases, test_problems = complete_cases(
        test_candidates, root=root, channels=description.channels, labelled=False
    )
    problems += [*test_problems, *_unused_keys([*training, *test]), *unknown_patients(description, candidates)]
    require_cases(path, cases, problems, looked_for="the files of its training records")
    channels, channel_problems = channels_or_discover(description, cases)
    labels, label_problems = labels_or_discover(description, cases)
    return Dataset(
        name=description.name or path.stem if layout == "filelist" else description.name or root.name,
        root=root,
        layout=layout,
        channels=channels,
        labels=labels,
        cases=cases,
        test_cases=test_cases,
        file_ending=file_ending_of(cases[0].images[0]),
        problems=(*problems, *channel_problems, *label_problems),
    )


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)  # spreadsheets of many countries write semicolons
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="", skipinitialspace=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Save it as CSV in UTF-8.") from error
    columns = [name.strip() for name in reader.fieldnames or ()]
    if "label" not in columns or not any(name == "image" or _CHANNEL_COLUMN.fullmatch(name) for name in columns):
        raise DataError(
            f"{path}: columns {columns} found, expected 'image' (or 'image_0', 'image_1', ...) and 'label', and "
            "optionally 'id', 'patient', 'fold'. Rename the columns in the first line."
        )
    records: list[dict[str, Any]] = []
    for line, row in enumerate(rows, start=2):
        if None in row:
            raise DataError(f"{path}: line {line} has more fields than the {len(columns)} columns. Correct the line.")
        records.append({name.strip(): value.strip() for name, value in row.items() if value.strip()})
    return [record for record in records if record]


def _read_json_list(path: Path) -> tuple[list[Any], list[Any], Description]:
    content = read_json(path, remedy="Correct the file; 'python -m json.tool FILE' shows the place of a fault.")
    if isinstance(content, list):
        return _records(content, path), [], _description_beside(path)
    key = next((key for key in ("training", "cases") if isinstance(content, dict) and key in content), None)
    if key is None:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path}: not a file list. Found {found}; expected a list of records with 'image' and 'label', or an "
            "object with such a list under 'training'."
        )
    training, test = _records(content[key], path), _records(content.get("test", []), path)
    if "labels" in content:
        return training, test, parse_description(content, path)
    return training, test, _description_beside(path)


def _records(given: Any, path: Path) -> list[Any]:
    """Records as dictionaries; MSD writes test cases as bare file names."""
    if not isinstance(given, list):
        raise DataError(f"{path}: expected a list of records with 'image' and 'label', found {type(given).__name__}.")
    records = [{"image": one} if isinstance(one, str) else one for one in given]
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{path}: record {number} is {record!r}, expected an object with 'image' and 'label'.")
    return records


def read_records(description: Description, path: Path) -> tuple[list[Any], list[Any]]:
    """Training and test records of a description read from `path`."""
    return _records(description.content["training"], path), _records(description.content.get("test", []), path)


def _description_beside(path: Path) -> Description:
    for beside in (path.with_suffix(".json"), path.parent / DESCRIPTION_FILE):
        if beside != path and beside.is_file():
            return read_description(beside)
    return Description()


def _case(record: Mapping[str, Any], path: Path, description: Description) -> Case:
    names = _image_names(record, path)
    case_id = str(record.get("id") or strip_suffix(Path(names[0]).name))
    if not case_id or case_id in {".", ".."} or "/" in case_id or "\\" in case_id:
        raise DataError(f"{path}: the id {case_id!r} cannot be a file name. {_ID_REMEDY}")
    label = record.get("label") or None
    if label is not None and not isinstance(label, str):
        raise DataError(f"{path}: case {case_id}: 'label' is {label!r}, expected one file name.")
    return Case(
        id=case_id,
        images=tuple(path.parent / name for name in names),
        label=None if label is None else path.parent / label,
        patient=str(record.get("patient") or description.patients.get(case_id, "")),
        fold=_fold(record.get("fold"), f"{path}: case {case_id}"),
    )


def _image_names(record: Mapping[str, Any], path: Path) -> list[str]:
    given = record.get("image")
    if given is None:
        by_index = {int(match[1]): record[key] for key in record if (match := _CHANNEL_COLUMN.fullmatch(key))}
        # a gap stays in the list as a name that no file has, so that it is reported as a missing channel
        given = [by_index.get(index, f"image_{index}_not_named") for index in range(max(by_index, default=-1) + 1)]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(
            f"{path}: the record {dict(record)!r} names no image. Give 'image', a file name or a list of them."
        )
    return names


def _fold(given: Any, where: str) -> int | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not str(given).isdecimal():
        raise DataError(f"{where}: 'fold' is {given!r}, expected a whole number counted from 0, or nothing.")
    return int(given)


def _unused_keys(records: Iterable[Mapping[str, Any]]) -> list[Problem]:
    unused = sorted({key for record in records for key in record if not _CHANNEL_COLUMN.fullmatch(key)} - _KEYS)
    if not unused:
        return []
    return [
        Problem(
            case="",
            severity="info",
            code="unused-column",
            message=f"these columns have no meaning here and are not used: {', '.join(unused)}.",
            remedy=f"Nothing, unless one is a misspelt name of {', '.join(sorted(_KEYS))}.",
        )
    ]
