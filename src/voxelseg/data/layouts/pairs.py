"""Plain pairs: a folder with images/ and labels/ (or imagesTr/ and labelsTr/) whose files have the same names.

Image `liver_01.nii.gz`, or `liver_01_0000.nii.gz` onwards for one file per channel, belongs to label
`liver_01.nii.gz`; the suffixes may differ. Class names come from dataset.json, labels.json or labels.txt (lines
"1 liver") in the folder, or else from the values in the label maps; channel names from dataset.json.
"""

import re
from collections import defaultdict
from pathlib import Path

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.labels import LabelScheme, parse_labels
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    complete_cases,
    file_ending_of,
    read_description,
    require_cases,
    unknown_patients,
    visible_files,
)
from voxelseg.data.layouts.discover import channels_or_discover, labels_or_discover
from voxelseg.errors import DataError
from voxelseg.files import read_json
from voxelseg.io import is_image, strip_suffix

LOOKS_FOR = "pairs (a folder with images/ and labels/)"

_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_CHANNEL_SUFFIX = re.compile(r"(.+)_(\d{4})")
_LABEL_LINE = re.compile(r"(\d+)\s*[\s:=,]\s*(\S.*)")


def matches(path: Path) -> bool:
    """Whether `path` is a folder with an image and a label folder."""
    return any((path / images).is_dir() and (path / labels).is_dir() for images, labels in _FOLDERS)


def read(path: Path) -> Dataset:
    """Data set of image and label files with the same names."""
    image_folder, label_folder = next(
        (path / images, path / labels) for images, labels in _FOLDERS if (path / images).is_dir()
    )
    description = _description(path)
    labels_of = {strip_suffix(file.name): file for file in visible_files(label_folder) if is_image(file)}
    images_of = _images_by_case(image_folder, set(labels_of))
    candidates = [
        Case(
            id=case_id,
            images=tuple(images_of.get(case_id, [image_folder / labels_of.get(case_id, Path(case_id)).name])),
            label=labels_of.get(case_id),
            patient=description.patients.get(case_id, ""),
        )
        for case_id in sorted(set(images_of) | set(labels_of))
    ]
    cases, problems = complete_cases(candidates, root=path, channels=description.channels)
    problems += [*_same_names(image_folder), *_same_names(label_folder), *unknown_patients(description, candidates)]
    require_cases(path, cases, problems, looked_for=f"files of the same name in {image_folder} and {label_folder}")
    channels, channel_problems = channels_or_discover(description, cases)
    labels, label_problems = labels_or_discover(description, cases)
    return Dataset(
        name=description.name or path.name,
        root=path,
        layout="pairs",
        channels=channels,
        labels=labels,
        cases=cases,
        file_ending=file_ending_of(cases[0].images[0]),
        problems=(*problems, *channel_problems, *label_problems),
    )


def _same_names(folder: Path) -> list[Problem]:
    """A problem for each case that has the same file with two suffixes, such as a.nii and a.nii.gz."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for file in visible_files(folder):
        if is_image(file):
            names_of[strip_suffix(file.name)].append(file.name)
    return [
        Problem(
            case=case_id,
            severity="error",
            code="duplicate-case",
            message=f"{folder.name}/ holds {' and '.join(names)}; only the last is used.",
            remedy="Remove all but one of them.",
        )
        for case_id, names in names_of.items()
        if len(names) > 1
    ]


def _images_by_case(folder: Path, labelled: set[str]) -> dict[str, list[Path]]:
    """Files of each case, one per channel where names end in four digits that the label's name has not."""
    by_case: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in visible_files(folder):
        if not is_image(file):
            continue
        stem = strip_suffix(file.name)
        match = None if stem in labelled else _CHANNEL_SUFFIX.fullmatch(stem)
        case_id, index = (match[1], int(match[2])) if match else (stem, 0)
        by_case[case_id][index] = file
    return {case_id: _without_gaps(files) for case_id, files in by_case.items()}


def _without_gaps(files: dict[int, Path]) -> list[Path]:
    """Files in channel order; a channel that is missing gets the name it should have."""
    last = max(files)
    example = files[last]
    return [files.get(i, example.with_name(example.name.replace(f"_{last:04d}", f"_{i:04d}"))) for i in range(last + 1)]


def _description(path: Path) -> Description:
    described = read_description(path / DESCRIPTION_FILE) if (path / DESCRIPTION_FILE).is_file() else Description()
    if described.labels is not None:
        return described
    labels = _labels_beside(path)
    return Description(described.content, described.name, described.channels, labels, described.patients)


def _labels_beside(path: Path) -> LabelScheme | None:
    json_file, text_file = path / "labels.json", path / "labels.txt"
    try:
        if json_file.is_file():
            return parse_labels(read_json(json_file, remedy='Write it as {"background": 0, "liver": 1}.'))
        if text_file.is_file():
            return parse_labels(_labels_in_text(text_file))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return None


def _labels_in_text(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not text in UTF-8 ({error}). Save it again in UTF-8.") from error
    values: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LABEL_LINE.fullmatch(line.strip())
        if match is None or match[2] in values:
            fault = "a name that was already given" if match else "no value and name"
            raise DataError(
                f'{file}: line {number} has {fault}: {line!r}. Expected one class per line, such as "1 liver".'
            )
        values[match[2]] = int(match[1])
    return values
