"""nnU-Net v2 raw data: imagesTr/<case>_<channel>, labelsTr/<case>, and dataset.json with `channel_names`.

Channels are numbered with four digits from 0000. `labels` is name to value, to a list of values for a region, which
needs `regions_class_order`. A `dataset` key, {case: {"images": [...], "label": ...}}, replaces the two folders.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.labels import NO_LABELS
from voxelseg.data.layouts.channels import channel_name, channel_of
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    check_case_id,
    complete_cases,
    folder_name,
    read_description,
    require_cases,
    unknown_patients,
    visible_files,
    without_labels,
    wrong_count,
)
from voxelseg.errors import DataError
from voxelseg.io import is_image

LOOKS_FOR = "nnU-Net v2 raw (a folder with dataset.json that has 'channel_names', imagesTr/ and labelsTr/)"


def matches(path: Path) -> bool:
    """Whether `path` is a folder whose dataset.json has `channel_names`, with imagesTr/ or a `dataset` key."""
    file = path / DESCRIPTION_FILE
    if not file.is_file():
        return False
    content = read_description(file).content
    return "channel_names" in content and ("dataset" in content or (path / "imagesTr").is_dir())


def read(path: Path, *, labelled: bool = True) -> Dataset:
    """Data set in nnU-Net v2 raw layout. DataError if dataset.json lacks `file_ending`, or needed `labels`."""
    file = path / DESCRIPTION_FILE
    description = read_description(file)
    if labelled and description.labels is None:
        raise DataError(f'{file}: the key \'labels\' is missing. Add it, such as {{"background": 0, "liver": 1}}.')
    ending = description.content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataError(f"{file}: 'file_ending' is {ending!r}. Give the suffix of the files, such as \".nii.gz\".")
    problems: list[Problem]
    if "dataset" in description.content:
        candidates, problems = _listed(description, path, file), []
        looked_for = "the files under 'dataset'"
    else:
        candidates, problems = _in_folders(path, description, ending, "Tr")
        looked_for = f"imagesTr/<case>_0000{ending} and labelsTr/<case>{ending}"
    test_candidates, test_problems = _in_folders(path, description, ending, "Ts")
    if not labelled:
        candidates, test_candidates = without_labels(candidates), without_labels(test_candidates)
    cases, incomplete = complete_cases(candidates, root=path, channels=description.channels, labelled=labelled)
    test_cases, test_incomplete = complete_cases(
        test_candidates, root=path, channels=description.channels, labelled=False
    )
    problems += [*test_problems, *incomplete, *test_incomplete]
    problems += unknown_patients(description, [*candidates, *test_candidates])
    problems += wrong_count(description, len(candidates))
    require_cases(path, cases, problems, looked_for=looked_for)
    return Dataset(
        name=description.name or folder_name(path),
        root=path,
        layout="nnunet",
        channels=description.channels,
        labels=description.labels if labelled and description.labels else NO_LABELS,
        cases=cases,
        test_cases=test_cases,
        file_ending=ending,
        problems=tuple(problems),
    )


def _in_folders(root: Path, description: Description, ending: str, part: str) -> tuple[list[Case], list[Problem]]:
    """Cases of the training (`part` "Tr") or test folders ("Ts"), whether or not their files exist."""
    images, labels, is_training = root / f"images{part}", root / f"labels{part}", part == "Tr"
    channels_of, problems = _group_channels(visible_files(images), ending)
    labelled = {path.name.removesuffix(ending) for path in visible_files(labels) if path.name.endswith(ending)}
    cases = []
    for case_id in sorted(labelled | set(channels_of)):
        label = labels / f"{case_id}{ending}"
        cases.append(
            Case(
                id=case_id,
                images=tuple(images / f"{channel_name(case_id, i)}{ending}" for i in range(len(description.channels))),
                label=label if case_id in labelled or is_training else None,
                patient=description.patients.get(case_id, ""),
            )
        )
        surplus = sorted(index for index in channels_of.get(case_id, ()) if index >= len(description.channels))
        if surplus:
            problems.append(
                Problem(
                    case=case_id,
                    severity="error" if is_training else "warning",
                    code="surplus-channel",
                    message=f"files of channel {', '.join(map(str, surplus))} exist, but dataset.json names only "
                    f"{len(description.channels)} channels: {', '.join(description.channels)}.",
                    remedy="Name the channels under 'channel_names', or remove the files.",
                )
            )
    return cases, problems


def _group_channels(files: Iterable[Path], ending: str) -> tuple[dict[str, set[int]], list[Problem]]:
    """Channel numbers of each case among files `<case>_<four digits><ending>`, and a problem for other images."""
    channels_of: dict[str, set[int]] = defaultdict(set)
    problems = []
    for path in files:
        named = channel_of(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if named:
            case_id, channel = named
            channels_of[case_id].add(channel)
        elif is_image(path):
            problems.append(
                Problem(
                    case="",
                    severity="warning",
                    code="unexpected-file",
                    message=f"{path.parent.name}/{path.name}: not named <case>_<four-digit channel>{ending}, so it "
                    "belongs to no case.",
                    remedy="Rename or remove the file, or correct 'file_ending' in dataset.json.",
                )
            )
    return dict(channels_of), problems


def _listed(description: Description, root: Path, file: Path) -> list[Case]:
    listed = description.content["dataset"]
    if not isinstance(listed, dict):
        raise DataError(f"{file}: 'dataset' is {type(listed).__name__}, expected an object of cases.")
    return [_listed_case(case_id, entry, description, root, file) for case_id, entry in listed.items()]


def _listed_case(case_id: str, entry: Any, description: Description, root: Path, file: Path) -> Case:
    check_case_id(case_id, file)
    images = entry.get("images") if isinstance(entry, Mapping) else None
    label = entry.get("label") if isinstance(entry, Mapping) else None
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images) or not isinstance(label, str):
        raise DataError(
            f'{file}: \'dataset\' gives {entry!r} for {case_id}; expected {{"images": [...], "label": ...}}.'
        )
    return Case(case_id, tuple(root / name for name in images), root / label, description.patients.get(case_id, ""))
