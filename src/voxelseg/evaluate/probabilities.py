"""Probabilities that `voxelseg predict --probabilities` wrote, summed up class by class."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.data.labels import LabelScheme
from voxelseg.data.wording import counted, some
from voxelseg.errors import ConfigError, DataError
from voxelseg.io import channels_in_turn, read_header
from voxelseg.metrics.reliability import Box, Reliability, judged_box, reliability
from voxelseg.volume import Volume

_SUFFIXES = (".nii.gz", ".nii")
_ROUNDING = 1e-3


def probability_files(place: Path, cases: Sequence[str]) -> dict[str, Path]:
    """The file of each case in the folder `place`; `place` itself if it is a file, for a single case.

    DataError naming the cases without one.
    """
    if place.is_file() and len(cases) == 1:
        return {cases[0]: place}
    places = {case: [place / f"{case}{suffix}" for suffix in _SUFFIXES] for case in cases}
    found = {case: next((file for file in files if file.is_file()), None) for case, files in places.items()}
    missing = [case for case, file in found.items() if file is None]
    if missing:
        raise DataError(
            f"{place}: {len(missing)} of {counted(len(cases), 'case')} have no probabilities: {some(missing)}. "
            "Expected are the 4D files <case>.nii.gz that `voxelseg predict --probabilities` writes into its folder "
            "'probabilities'."
        )
    return {case: file for case, file in found.items() if file is not None}


def require_names(labels: LabelScheme | None, place: Path) -> None:
    """ConfigError without `labels`, since only they say which channel of the files in `place` is which class."""
    if labels is None:
        raise ConfigError(
            f"{place}: which channel is which class is not known. Put the data set's dataset.json beside the "
            "references, or leave out --probabilities."
        )


def reliabilities(
    path: Path, reference: Volume, labels: LabelScheme, boxes: Mapping[str, Box]
) -> dict[str, Reliability]:
    """Class -> its probabilities in the file beside the reference; `boxes` hold the reference's voxels of each class.

    Channels are those of a network's output: without regions first the background, then the classes in their order.
    Voxels with the ignore label do not count. Two channels at most are in memory at a time, 8 bytes a voxel.
    DataError if the file cannot be read, lies on another grid, has other channels, or holds no probabilities.
    """
    header = read_header(path)
    differences = reference.grid.differences(header.grid)
    if differences or header.num_channels != labels.num_outputs:
        shape = f"{header.num_channels} channels, expected {labels.num_outputs}: {_channels_in_words(labels)}"
        raise DataError(
            f"{path}: does not fit the reference: {'; '.join(differences) or shape}. Give the probabilities that "
            "`voxelseg predict --probabilities` wrote for this scan."
        )
    label_map = reference.array[0]
    d, h, w = label_map.shape
    found = {}
    for name, channel in zip(labels.names, _of_classes(path, labels), strict=True):
        box = judged_box(boxes[name], (d, h, w), reference.spacing_mm)
        probabilities, of_class = channel[box], labels.mask(label_map[box], name)
        if labels.ignore is not None:
            judged = label_map[box] != labels.ignore
            probabilities, of_class = probabilities[judged], of_class[judged]
        found[name] = reliability(probabilities, of_class)
    return found


def _of_classes(path: Path, labels: LabelScheme) -> Iterator[npt.NDArray[Any]]:
    """Channels of the classes; DataError if they are no probabilities."""
    for number, channel in enumerate(channels_in_turn(path)):
        low, high = float(channel.min()), float(channel.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise DataError(
                f"{path}: channel {number} holds values from {low:g} to {high:g}, expected probabilities from 0 to 1. "
                "Give what `voxelseg predict --probabilities` wrote."
            )
        if labels.has_regions or number > 0:
            yield np.clip(channel, 0, 1, out=channel) if channel.dtype.kind == "f" else channel


def _channels_in_words(labels: LabelScheme) -> str:
    background = () if labels.has_regions else ("background",)
    return ", ".join((*background, *labels.names))
