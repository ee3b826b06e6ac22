"""Plain pairs: a folder with images/ and labels/ (or imagesTr/ and labelsTr/) whose files have the same names.

Image `liver_01.nii.gz`, or `liver_01_0000.nii.gz` onwards for one file per channel, belongs to label
`liver_01.nii.gz`; the suffixes may differ. Class names come from dataset.json, labels.json or labels.txt (lines
"1 liver") in the folder, or else from the values in the label maps; channel names from dataset.json.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.labels import NO_LABELS, LabelScheme, parse_labels
from voxelseg.data.layouts.channels import channel_name, channel_of, group_files
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    complete_cases,
    file_ending_of,
    folder_name,
    read_description,
    require_cases,
    unknown_patients,
    visible_files,
    without_labels,
)
from voxelseg.data.layouts.discover import channels_or_discover, labels_or_discover
from voxelseg.errors import DataError
from voxelseg.files import read_json
from voxelseg.io import is_image, strip_suffix

LOOKS_FOR = "pairs (a folder with images/ and labels/)"

_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_LABEL_LINE = re.compile(r"(\d+)\s*[\s:=,]\s*(\S.*)")


def matches(path: Path) -> bool:
    """Whether `path` is a folder with an image and a label folder."""
    return _folders(path) is not None


def _folders(path: Path) -> tuple[Path, Path] | None:
    """Image and label folder, if there are both."""
    both = ((path / images, path / labels) for images, labels in _FOLDERS)
    return next((pair for pair in both if all(folder.is_dir() for folder in pair)), None)


def read(path: Path, *, labelled: bool = True) -> Dataset:
    """Data set of image and label files with the same names."""
    folders = _folders(path)
    assert folders is not None, path
    image_folder, label_folder = folders
    description = _description(path)
    labels_of = {strip_suffix(file.name): file for file in visible_files(label_folder) if is_image(file)}
    groups = group_files(filter(is_image, visible_files(image_folder)), known=labels_of)
    images_of = _images_by_case(groups)
    candidates = [
        Case(
            id=case_id,
            images=tuple(images_of.get(case_id, [image_folder / labels_of.get(case_id, Path(case_id)).name])),
            label=labels_of.get(case_id),
            patient=description.patients.get(case_id, ""),
        )
        for case_id in sorted(set(images_of) | set(labels_of))
    ]
    if not labelled:
        candidates = without_labels(candidates)
    cases, problems = complete_cases(candidates, root=path, channels=description.channels, labelled=labelled)
    problems += [*_same_names(image_folder), *_same_names(label_folder), *_whole_and_in_channels(groups)]
    problems += unknown_patients(description, candidates)
    require_cases(path, cases, problems, looked_for=f"files of the same name in {image_folder} and {label_folder}")
    channels, channel_problems = channels_or_discover(description, cases)
    labels, label_problems = labels_or_discover(description, cases) if labelled else (NO_LABELS, [])
    return Dataset(
        name=description.name or folder_name(path),
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


def _whole_and_in_channels(groups: Mapping[str, Sequence[Path]]) -> list[Problem]:
    """A problem for each case that has a file without a channel number beside files with one."""
    return [
        Problem(
            case=case_id,
            severity="error",
            code="duplicate-case",
            message=f"{' and '.join(file.name for file in files)} are files of one case; only those with the number of "
            "a channel are used.",
            remedy="Keep one file per scan, or one per channel.",
        )
        for case_id, files in groups.items()
        if len({strip_suffix(file) == case_id for file in files}) > 1
    ]


def _images_by_case(groups: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Path, ...]]:
    """Files of each case in the order of its channels; a channel that is missing gets the name it should have."""
    channels_of = {case_id: _by_channel(case_id, files) for case_id, files in groups.items()}
    usual = max((len(channels) for channels in channels_of.values()), default=0)
    images: dict[str, tuple[Path, ...]] = {}
    for case_id, channels in channels_of.items():
        files = groups[case_id]
        if not channels:
            images[case_id] = (files[-1],)
            continue
        folder, ending = files[0].parent, file_ending_of(files[0])
        expected = {index: folder / f"{channel_name(case_id, index)}{ending}" for index in range(usual)}
        images[case_id] = tuple(path for _, path in sorted({**expected, **channels}.items()))
    return images


def _by_channel(case_id: str, files: Sequence[Path]) -> dict[int, Path]:
    """Files with a channel number, by this number."""
    numbered = {file: channel_of(strip_suffix(file)) for file in files if strip_suffix(file) != case_id}
    return {named[1]: file for file, named in numbered.items() if named}


def _description(path: Path) -> Description:
    described = read_description(path / DESCRIPTION_FILE) if (path / DESCRIPTION_FILE).is_file() else Description()
    if described.labels is not None:
        return described
    labels = labels_beside(path)
    return replace(described, labels=labels)


def labels_beside(path: Path) -> LabelScheme | None:
    """Classes in labels.json or labels.txt in the folder `path`; None if it has neither, DataError for a wrong one."""
    json_file, text_file = path / "labels.json", path / "labels.txt"
    if json_file.is_file():
        file, names = json_file, read_json(json_file, remedy='Write it as {"background": 0, "liver": 1}.')
    elif text_file.is_file():
        file, names = text_file, _labels_in_text(text_file)
    else:
        return None
    try:
        return parse_labels(names)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


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
