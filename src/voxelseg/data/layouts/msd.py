"""Medical Segmentation Decathlon: dataset.json with `modality`, labels index to name, and a list of training files.

Images with several channels are one file with the channels as its last axis. nnU-Net v1 writes the same dataset.json
but one file per channel, `<case>_0000` onwards; where only those exist they are taken.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts.description import DESCRIPTION_FILE, Description, read_description
from voxelseg.data.layouts.filelist import dataset_from_records, read_records
from voxelseg.errors import DataError
from voxelseg.io import strip_suffix

LOOKS_FOR = "MSD (a folder with dataset.json that has a 'training' list)"


def matches(path: Path) -> bool:
    """Whether `path` is a folder whose dataset.json lists training files."""
    file = path / DESCRIPTION_FILE
    return file.is_file() and isinstance(read_description(file).content.get("training"), list)


def read(path: Path) -> Dataset:
    """Data set in MSD layout. DataError if dataset.json lacks `modality` or `labels`."""
    file = path / DESCRIPTION_FILE
    description = read_description(file)
    if not description.channels or description.labels is None:
        absent = "modality" if not description.channels else "labels"
        example = '{"0": "CT"}' if absent == "modality" else '{"0": "background", "1": "liver"}'
        raise DataError(f"{file}: the key {absent!r} is missing. Add it, such as {absent!r}: {example}.")
    training, test = read_records(description, file)
    return dataset_from_records(
        file,
        [_with_channel_files(record, path, description) for record in training],
        [_with_channel_files(record, path, description) for record in test],
        description,
        layout="msd",
    )


def _with_channel_files(record: Mapping[str, Any], root: Path, description: Description) -> Mapping[str, Any]:
    image = record.get("image")
    if not isinstance(image, str) or (root / image).is_file():
        return record
    stem = strip_suffix(Path(image).name)
    ending = Path(image).name.removeprefix(stem)
    names = [str(Path(image).with_name(f"{stem}_{index:04d}{ending}")) for index in range(len(description.channels))]
    if not (root / names[0]).is_file():
        return record
    return {"id": stem, **record, "image": names}
