"""File lists: a JSON or CSV file that names the image and label of every case, wherever they lie.

CSV has the columns `image` (one file with all channels) or `image_0`, `image_1`, ... (one file per channel) and
`label`, and may have `id`, `patient` and `fold`. A JSON file holds a list of records with the same keys, where `image`
may also be a list of files, or an object with that list under `training` or `cases` and, optionally, `test`,
`channel_names`, `labels`, `patients` and `name`. Paths are relative to the list's folder. What the list itself does not
say of channels, classes, patients and name is taken from `<its name>.json` or `dataset.json` beside it; where no class
is named, the label maps are read to find the values.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.labels import NO_LABELS
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    check_case_id,
    complete_cases,
    file_ending_of,
    folder_name,
    parse_description,
    read_description,
    require_cases,
    unknown_patients,
    without_labels,
)
from voxelseg.data.layouts.discover import channels_or_discover, labels_or_discover
from voxelseg.errors import DataError
from voxelseg.files import read_json
from voxelseg.io import is_image, strip_suffix

LOOKS_FOR = "a JSON or CSV file list (a file with columns image, label)"

_CHANNEL_COLUMN = re.compile(r"image_([0-9]+)")
_KEYS = {"id", "image", "label", "patient", "fold"}
_TRAINING_KEYS = ("training", "cases")
_JSON_REMEDY = "Correct the file; 'python -m json.tool FILE' shows the place of a fault."


class Records(NamedTuple):
    """What a list says of its cases, one mapping each."""

    training: list[Mapping[str, Any]]
    test: list[Mapping[str, Any]]
    problems: list[Problem]
    """Lists that are not used."""


def matches(path: Path) -> bool:
    """Whether `path` is a file whose name ends in .json or .csv."""
    return path.is_file() and path.suffix.lower() in {".json", ".csv"}


def read(path: Path, *, labelled: bool = True) -> Dataset:
    """Data set that a JSON or CSV file lists."""
    if path.suffix.lower() == ".csv":
        records = Records(_read_csv(path, labelled=labelled), [], [])
        return dataset_from_records(path, records, _description_beside(path), layout="filelist", labelled=labelled)
    content = read_json(path, remedy=_JSON_REMEDY)
    if isinstance(content, list):
        records = Records(_records(content, path), [], [])
        return dataset_from_records(path, records, _description_beside(path), layout="filelist", labelled=labelled)
    if not isinstance(content, dict) or not any(key in content for key in _TRAINING_KEYS):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path}: not a file list. Found {found}; expected a list of records with 'image' and 'label', or an "
            "object with such a list under 'training'."
        )
    description = parse_description(content, path).completed_by(_description_beside(path))
    return dataset_from_records(path, records_in(content, path), description, layout="filelist", labelled=labelled)


def dataset_from_records(
    path: Path, records: Records, description: Description, *, layout: str, labelled: bool = True
) -> Dataset:
    """Data set from records that were read from the file `path`; their paths are relative to its folder."""
    root = path.parent
    num_channels = _num_channel_columns([*records.training, *records.test], path)
    candidates = [_case(record, path, description, num_channels) for record in records.training]
    test_candidates = [_case(record, path, description, num_channels) for record in records.test]
    if not labelled:
        candidates, test_candidates = without_labels(candidates), without_labels(test_candidates)
    cases, problems = complete_cases(candidates, root=root, channels=description.channels, labelled=labelled)
    test_cases, test_problems = complete_cases(
        test_candidates, root=root, channels=description.channels, labelled=False
    )
    problems += [
        *test_problems,
        *records.problems,
        *_unused_keys([*records.training, *records.test]),
        *unknown_patients(description, [*candidates, *test_candidates]),
    ]
    require_cases(path, cases, problems, looked_for="the files of its training records")
    channels, channel_problems = channels_or_discover(description, cases)
    labels, label_problems = labels_or_discover(description, cases) if labelled else (NO_LABELS, [])
    is_list = layout == "filelist"
    return Dataset(
        name=description.name or (path.stem if is_list else folder_name(root)),
        root=root,
        layout=layout,
        channels=channels,
        labels=labels,
        cases=cases,
        test_cases=test_cases,
        file_ending=file_ending_of(cases[0].images[0]),
        problems=(*problems, *channel_problems, *label_problems),
        source=path if is_list else root,
    )


def _read_csv(path: Path, *, labelled: bool) -> list[Mapping[str, Any]]:
    records: list[Mapping[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)  # spreadsheets of many countries write semicolons
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="", skipinitialspace=True)
        columns = _columns(reader.fieldnames or (), path, labelled=labelled)
        for row in reader:
            if None in row:
                raise DataError(
                    f"{path}: line {reader.line_num} has more fields than the {len(columns)} columns. Correct the line."
                )
            records.append({name.strip(): value.strip() for name, value in row.items() if value.strip()})
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Save it as CSV in UTF-8.") from error
    return [record for record in records if record]


def _columns(given: Sequence[str], path: Path, *, labelled: bool) -> list[str]:
    columns = [name.strip() for name in given]
    has_images = any(name == "image" or _CHANNEL_COLUMN.fullmatch(name) for name in columns)
    if not has_images or (labelled and "label" not in columns):
        needed = "'image' (or 'image_0', 'image_1', ...)" + (" and 'label'" if labelled else "")
        raise DataError(
            f"{path}: columns {columns} found, expected {needed}, and optionally 'id', 'patient', 'fold'. Rename the "
            "columns in the first line."
        )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(f"{path}: several columns are called {', '.join(twice)}. Keep one of each in the first line.")
    return columns


def _records(given: Any, path: Path) -> list[Mapping[str, Any]]:
    """Records as dictionaries; MSD writes test cases as bare file names."""
    if not isinstance(given, list):
        raise DataError(f"{path}: expected a list of records with 'image' and 'label', found {type(given).__name__}.")
    records = [{"image": one} if isinstance(one, str) else one for one in given]
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{path}: record {number} is {record!r}, expected an object with 'image' and 'label'.")
    return records


def records_in(content: Mapping[str, Any], path: Path) -> Records:
    """Training and test records of a JSON object read from `path`, and a problem for every other list of records."""
    training_key = next(key for key in _TRAINING_KEYS if key in content)
    unused = [
        Problem(
            case="",
            severity="warning",
            code="unused-list",
            message=f"{path.name}: the {len(value)} records under {key!r} are not used.",
            remedy="Move them to 'training', with a 'fold' if they are to be held out together, or to 'test'.",
        )
        for key, value in content.items()
        if key not in (training_key, "test") and isinstance(value, list) and any(map(_names_case, value))
    ]
    return Records(_records(content[training_key], path), _records(content.get("test", []), path), unused)


def _names_case(given: Any) -> bool:
    return isinstance(given, dict) or (isinstance(given, str) and is_image(given))


def _description_beside(path: Path) -> Description:
    """Description in <name of the list>.json, if that is one, or in dataset.json; empty if there is neither."""
    named_alike = path.with_suffix(".json")
    if named_alike != path and named_alike.is_file():
        content = read_json(named_alike, remedy=_JSON_REMEDY)
        if isinstance(content, dict) and not content.keys().isdisjoint(Description.KEYS):
            return parse_description(content, named_alike)
    described = path.parent / DESCRIPTION_FILE
    return read_description(described) if described != path and described.is_file() else Description()


def _case(record: Mapping[str, Any], path: Path, description: Description, num_channels: int) -> Case:
    names = _image_names(record, path, num_channels)
    case_id = _text(record, "id", path) or strip_suffix(Path(next(filter(None, names))).name)
    check_case_id(case_id, path)
    label = record.get("label")
    if label is not None and not isinstance(label, str):
        raise DataError(f"{path}: case {case_id}: 'label' is {label!r}, expected one file name.")
    return Case(
        id=case_id,
        # a gap stays as a name that no file has, so that it is reported as a missing channel
        images=tuple(path.parent / (name or f"image_{index}_not_named") for index, name in enumerate(names)),
        label=path.parent / label if label else None,
        patient=_text(record, "patient", path) or description.patients.get(case_id, ""),
        fold=_fold(record.get("fold"), f"{path}: case {case_id}"),
    )


def _text(record: Mapping[str, Any], key: str, path: Path) -> str:
    """Value of a key that holds a name or a number, such as 0; empty if it is absent or null."""
    given = record.get(key)
    if isinstance(given, bool) or not isinstance(given, str | int | float | None):
        raise DataError(f"{path}: {key!r} is {given!r} in the record {dict(record)!r}, expected a name or a number.")
    return "" if given is None else str(given).strip()


def _image_names(record: Mapping[str, Any], path: Path, num_channels: int) -> list[str]:
    """Names of a record's image files; one that is not given among `image_0`, `image_1`, ... is empty."""
    given = record.get("image")
    if given is None:
        by_number = {int(match[1]): record[key] for key in record if (match := _CHANNEL_COLUMN.fullmatch(key))}
        given = [by_number.get(number) or "" for number in range(num_channels)]
    names: Any = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not any(names) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path}: the record {dict(record)!r} names no image. Give 'image', a file name or a list of them."
        )
    return names


def _num_channel_columns(records: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Number of columns `image_0`, `image_1`, ...; DataError if they are not counted from 0 without gaps."""
    columns = {key for record in records for key in record if _CHANNEL_COLUMN.fullmatch(key)}
    numbers = sorted(int(column.removeprefix("image_")) for column in columns)
    if numbers != list(range(len(columns))):
        raise DataError(
            f"{path}: the channels are in the columns {', '.join(sorted(columns))}, expected image_0, image_1, ... "
            "without gaps. Rename the columns; call the only one 'image'."
        )
    return len(columns)


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
