"""Medical Segmentation Decathlon: dataset.json with `modality`, labels index to name, and a list of training files.

Images with several channels are one file with the channels as its last axis. nnU-Net v1 writes the same dataset.json
but one file per channel, `<case>_0000` onwards; where only those exist they are taken.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Dataset, Problem
from voxelseg.data.layouts.channels import channel_name, group_files
from voxelseg.data.layouts.description import (
    DESCRIPTION_FILE,
    Description,
    file_ending_of,
    read_description,
    visible_files,
    wrong_count,
)
from voxelseg.data.layouts.filelist import Records, dataset_from_records, records_in
from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.io import is_image, strip_suffix

LOOKS_FOR = "MSD (a folder with dataset.json that has a 'training' list)"


def matches(path: Path) -> bool:
    """Whether `path` is a folder whose dataset.json lists training files."""
    file = path / DESCRIPTION_FILE
    return file.is_file() and isinstance(read_description(file).content.get("training"), list)


def read(path: Path, *, labelled: bool = True) -> Dataset:
    """Data set in MSD layout. DataError if dataset.json lacks `modality` or `labels`, unless it is not `labelled`."""
    file = path / DESCRIPTION_FILE
    description = read_description(file)
    if labelled and (not description.channels or description.labels is None):
        absent = "modality" if not description.channels else "labels"
        example = '{"0": "CT"}' if absent == "modality" else '{"0": "background", "1": "liver"}'
        raise DataError(f'{file}: the key {absent!r} is missing. Add it, such as "{absent}": {example}.')
    listed = records_in(description.content, file)
    records = Records(
        [_with_channel_files(record, path, description) for record in listed.training],
        [_with_channel_files(record, path, description) for record in listed.test],
        [
            *listed.problems,
            *wrong_count(description, len(listed.training)),
            *_unlisted(path, [*listed.training, *listed.test]),
        ],
    )
    return dataset_from_records(file, records, description, layout="msd", labelled=labelled)


def _with_channel_files(record: Mapping[str, Any], root: Path, description: Description) -> Mapping[str, Any]:
    image = record.get("image")
    if not isinstance(image, str) or (root / image).is_file():
        return record
    name = Path(image)
    stem, ending = strip_suffix(name), file_ending_of(name)
    channels = range(len(description.channels))
    names = [str(name.with_name(f"{channel_name(stem, index)}{ending}")) for index in channels]
    if not (root / names[0]).is_file():
        return record
    return {"id": stem, **record, "image": names}


def _unlisted(root: Path, records: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """A problem if imagesTr/ and labelsTr/ hold pairs that no record names."""
    named = {(root / name).resolve() for record in records if isinstance(name := record.get("label"), str)}
    labels = {strip_suffix(file): file for file in visible_files(root / "labelsTr") if is_image(file)}
    images = group_files(filter(is_image, visible_files(root / "imagesTr")), known=labels)
    unlisted = [case for case, file in labels.items() if case in images and file.resolve() not in named]
    if not unlisted:
        return []
    return [
        Problem(
            case="",
            severity="warning",
            code="unlisted-case",
            message=f"dataset.json does not list {len(unlisted)} pairs in imagesTr/ and labelsTr/: {some(unlisted)}.",
            remedy="List them under 'training', or take them out of the folders.",
        )
    ]
