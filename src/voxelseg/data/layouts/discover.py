"""Channel and class names of data sets that describe none: read from the files themselves."""

from collections.abc import Sequence

from voxelseg.data.dataset import Case, Problem
from voxelseg.data.labels import LabelScheme, parse_labels
from voxelseg.data.layouts.description import Description
from voxelseg.errors import DataError
from voxelseg.io import read_header, read_label
from voxelseg.io.labels import values_of

MAX_CLASSES = 255
"""More distinct values than this are taken for a scan in the place of a label map."""
_DESCRIBE = "Give the label maps, or add dataset.json with 'labels'."


def channels_or_discover(description: Description, cases: Sequence[Case]) -> tuple[tuple[str, ...], list[Problem]]:
    """Channel names of the description, or "channel_0", ... for as many channels as the first readable case has."""
    if description.channels:
        return description.channels, []
    names = tuple(f"channel_{index}" for index in range(_num_channels(cases)))
    problem = Problem(
        case="",
        severity="info",
        code="unnamed-channels",
        message=f"no channel names are given; the channels are called {', '.join(names)} and not taken for CT.",
        remedy='Name them in dataset.json, such as "channel_names": {"0": "CT"}: CT is normalised differently.',
    )
    return names, [problem]


def _num_channels(cases: Sequence[Case]) -> int:
    if len(cases[0].images) > 1:
        return len(cases[0].images)
    for case in cases:
        try:
            return read_header(case.images[0]).num_channels
        except DataError:
            continue  # `check` names the unreadable file
    raise DataError(
        f"{cases[0].images[0]}: neither this nor any other image of the data set can be read. Replace them."
    )


def labels_or_discover(description: Description, cases: Sequence[Case]) -> tuple[LabelScheme, list[Problem]]:
    """Classes of the description, or one class "label_v" for every value v > 0 in the label maps of `cases`.

    Without a description every label map is read; unreadable ones are passed over here and reported by `check`.
    """
    if description.labels is not None:
        return description.labels, []
    values: set[int] = set()
    for case in cases:
        if case.label is None:
            continue
        try:
            found = values_of(read_label(case.label).array)
        except DataError:
            continue  # `check` names the unreadable file
        if found[0] < 0 or len(found) > MAX_CLASSES:
            raise DataError(
                f"{case.label}: {len(found)} different values from {found[0]} to {found[-1]}; expected a label map "
                f"with at most {MAX_CLASSES} values from 0. {_DESCRIBE}"
            )
        values.update(found)
    foreground = sorted(values - {0})
    if len(foreground) > MAX_CLASSES:
        raise DataError(
            f"{cases[0].label}: this and the other label maps hold {len(foreground)} different values in all, expected "
            f"at most {MAX_CLASSES}. {_DESCRIBE}"
        )
    if not foreground:
        raise DataError(
            f"{cases[0].label}: neither this nor any other label map has a foreground value, and no description names "
            'the classes. Add dataset.json with "labels": {"background": 0, "liver": 1}.'
        )
    problem = Problem(
        case="",
        severity="info",
        code="undescribed-labels",
        message=f"no class names are given; the label maps hold the values {', '.join(map(str, foreground))}.",
        remedy='Name them in dataset.json, such as "labels": {"background": 0, "liver": 1}, so that stray values show.',
    )
    return parse_labels({"background": 0, **{f"label_{value}": value for value in foreground}}), [problem]
