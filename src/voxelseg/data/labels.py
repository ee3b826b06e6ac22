"""What the numbers in a label map mean: names, regions, the ignore label.

Regions and `ignore` follow nnU-Net v2: a region is a set of label values learnt as one target (for BraTS, "whole
tumour" is 1, 2 and 3). Regions may overlap, so the network's outputs are independent (sigmoid) and are painted one
after the other, in order, when a label map is made. Voxels with the ignore label take part in no loss and no metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.errors import DataError

_AT_ONCE = 1 << 22
MAX_VALUE = 65535
"""Largest label value: label maps are written as uint8 or uint16."""


@dataclass(frozen=True)
class LabelClass:
    """One foreground class: a single label value, or a region of several."""

    name: str
    values: tuple[int, ...]
    """Label values that belong to the class."""
    paint: int
    """Value that a predicted voxel of this class gets in the label map."""


@dataclass(frozen=True)
class LabelScheme:
    """Classes of a data set in the order of the network's outputs."""

    classes: tuple[LabelClass, ...]
    """Foreground classes; none for scans without labels, see `NO_LABELS`."""
    ignore: int | None = None
    """Value of voxels that nobody labelled; the highest value of all."""

    def __post_init__(self) -> None:
        names = [label.name for label in self.classes]
        if not names:
            assert self.ignore is None, "nothing is labelled, so nothing is ignored"
            return
        if len(set(names)) != len(names):
            raise DataError(f"class names are not unique: {names}. Rename them under 'labels'.")
        for label in self.classes:
            if not label.values or not all(0 < value <= MAX_VALUE for value in (*label.values, label.paint)):
                raise DataError(
                    f"class {label.name!r} has the label values {list(label.values)} and is written as {label.paint}: "
                    f"expected one or more values from 1 to {MAX_VALUE}, since 0 is background. "
                    "Correct them under 'labels'."
                )
        self._check_ignore()
        if self.has_regions:
            self._check_regions()
        else:
            self._check_values_are_used_once()

    def _check_regions(self) -> None:
        for position, region in enumerate(self.classes):
            if region.paint not in region.values:
                raise DataError(
                    f"region {region.name!r} holds the values {list(region.values)} but would be written as "
                    f"{region.paint}, which belongs to others. Order 'regions_class_order' as the regions are listed."
                )
            for later in self.classes[position + 1 :]:
                if set(region.values) < set(later.values):
                    raise DataError(
                        f"region {later.name!r} would be painted over all of {region.name!r}, which lies inside it. "
                        "List the larger region first, under 'labels' and in 'regions_class_order'."
                    )

    def _check_ignore(self) -> None:
        highest = max(value for label in self.classes for value in (*label.values, label.paint))
        if self.ignore is not None and not highest < self.ignore <= MAX_VALUE:
            raise DataError(
                f"the ignore label is {self.ignore}, but it must be higher than every other label "
                f"(highest: {highest}) and at most {MAX_VALUE}. "
                "Give 'ignore' the highest value under 'labels', and in the label maps."
            )

    def _check_values_are_used_once(self) -> None:
        owner: dict[int, str] = {}
        for label in self.classes:
            for value in label.values:
                if value in owner:
                    raise DataError(
                        f"label value {value} is given to both {owner[value]!r} and {label.name!r}. "
                        "Give every class its own value under 'labels'."
                    )
                owner[value] = label.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the foreground classes."""
        return tuple(label.name for label in self.classes)

    @property
    def has_regions(self) -> bool:
        """Whether some class joins several label values; outputs are then independent (sigmoid)."""
        return any(len(label.values) != 1 for label in self.classes)

    @property
    def num_outputs(self) -> int:
        """Output channels of a network: one per class, plus background unless the classes are regions."""
        return len(self.classes) if self.has_regions else len(self.classes) + 1

    @property
    def known_values(self) -> frozenset[int]:
        """Every value that may occur in a label map, background 0 and ignore included."""
        values = {0} | {value for label in self.classes for value in label.values}
        return frozenset(values if self.ignore is None else values | {self.ignore})

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Smallest unsigned type that holds every value."""
        return np.uint8 if max(self.known_values) < 256 else np.uint16

    def mask(self, label: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
        """Boolean mask of class `name` in a label map of any shape."""
        for one in self.classes:
            if one.name == name:
                mask: npt.NDArray[np.bool_] = label == one.values[0]  # np.isin would take 8 bytes a voxel
                for value in one.values[1:]:
                    mask |= label == value
                return mask
        raise DataError(f"there is no class {name!r}. Known classes: {', '.join(self.names)}.")

    def encode(self, label: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Training target of an integer label map of any shape; unknown values become 0.

        Without regions: index of the class (0 background), -1 for ignore.
        With regions: index into the table of label values, so that `region_table` gives the classes of each voxel.
        """
        unknown = self._lookup.size - 1  # the last entry, 0, stands for every value outside the table
        values = label.reshape(-1)
        target = np.empty(values.shape, dtype=np.int16)
        for start in range(0, values.size, _AT_ONCE):  # an index takes 8 bytes a voxel
            part = slice(start, start + _AT_ONCE)
            index = values[part].astype(np.intp)
            index[(index < 0) | (index > unknown)] = unknown
            target[part] = self._lookup[index]
        return target.reshape(label.shape)

    @cached_property
    def _lookup(self) -> npt.NDArray[np.int16]:
        lookup = np.zeros(max(self.known_values) + 2, dtype=np.int16)
        for index, values in enumerate(self._encoded_values(), start=1):
            lookup[list(values)] = index
        if self.ignore is not None:
            lookup[self.ignore] = -1
        return lookup

    def _encoded_values(self) -> list[tuple[int, ...]]:
        if self.has_regions:
            return [(value,) for value in sorted(self.known_values - {0, self.ignore})]
        return [label.values for label in self.classes]

    @property
    def region_table(self) -> npt.NDArray[np.bool_]:
        """(encoded target values, classes): whether a voxel with that encoded target belongs to the class."""
        rows: list[tuple[int, ...]] = [(), *self._encoded_values()]
        return np.array([[bool(set(row) & set(label.values)) for label in self.classes] for row in rows])

    def decode(self, outputs: npt.NDArray[Any], *, threshold: float = 0.5) -> npt.NDArray[Any]:
        """Label map (D, H, W) from probabilities or logits (K, D, H, W).

        Without regions the largest output wins (first on ties). With regions, classes above `threshold`
        (0.5 for probabilities, 0 for logits) are painted in order, so later classes overwrite earlier ones.
        """
        if outputs.shape[0] != self.num_outputs:
            raise DataError(f"{outputs.shape[0]} outputs for {self.num_outputs} expected by classes {self.names}.")
        label_map = np.zeros(outputs.shape[1:], dtype=self.dtype)
        if not self.has_regions:
            strongest = outputs[0].copy()
            for output, label in zip(outputs[1:], self.classes, strict=True):
                wins = output > strongest
                np.copyto(strongest, output, where=wins)
                label_map[wins] = label.paint
            return label_map
        for output, label in zip(outputs, self.classes, strict=True):
            label_map[output > threshold] = label.paint
        return label_map

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "classes": [{"name": c.name, "values": list(c.values), "paint": c.paint} for c in self.classes],
            "ignore": self.ignore,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "LabelScheme":
        """Scheme from its JSON form."""
        classes = tuple(LabelClass(c["name"], tuple(c["values"]), c["paint"]) for c in value["classes"])
        return cls(classes, value["ignore"])


NO_LABELS = LabelScheme(())
"""Of scans that nobody labelled, or whose labels are not used."""


def parse_labels(labels: Any, *, regions_class_order: Any = None) -> LabelScheme:
    """Scheme from the `labels` of a dataset.json, written in either direction.

    MSD: {"0": "background", "1": "liver"}. nnU-Net v2: {"background": 0, "liver": 1, "ignore": 2}, where a class may be
    a list of values (a region); regions need `regions_class_order`, the value that each class is painted with.
    A class called "ignore" is the ignore label. Classes keep the order of their values; with regions, of the file.
    Raises DataError for what is not integer, not unique, below 0, a background other than 0, or an ignore label that
    is not the highest.
    """
    if not isinstance(labels, Mapping) or not labels:
        raise DataError(
            f'\'labels\' is {labels!r}, but must be an object such as {{"background": 0, "liver": 1}}. Correct it.'
        )
    values_of = _values_of_names(labels)
    for name, values in values_of.items():
        if (name.lower() == "background") != (values == (0,)):
            raise DataError(
                f"'labels' gives {name!r} the value {_shown(values)}: background must be 0, and 0 nothing else. "
                "Number the classes from 1, in the description and in the label maps."
            )
    ignored = values_of.pop("ignore", None)
    if ignored is not None and len(ignored) != 1:
        raise DataError(f"'labels' gives 'ignore' the values {list(ignored)}; it must be one integer. Correct it.")
    foreground = {name: values for name, values in values_of.items() if values != (0,)}
    if not foreground:
        raise DataError("the data set describes no foreground class. Add at least one under 'labels'.")
    if any(len(values) != 1 for values in foreground.values()):
        paints = _paints(regions_class_order, foreground)
    else:
        foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
        paints = [values[0] for values in foreground.values()]
    classes = tuple(
        LabelClass(name, values, paint) for (name, values), paint in zip(foreground.items(), paints, strict=True)
    )
    return LabelScheme(classes, None if ignored is None else ignored[0])


def _values_of_names(labels: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Values of each name, whichever way round the description is written."""
    if all(_is_whole_number(key) for key in labels) and all(isinstance(name, str) for name in labels.values()):
        by_value = {int(key): str(name) for key, name in labels.items()}
        names = list(by_value.values())
        if len(by_value) != len(labels) or len(set(names)) != len(names):
            raise DataError(f"'labels' names a class or a value twice: {dict(labels)}. Make all of them unique.")
        return {name: (value,) for value, name in by_value.items()}
    values_of: dict[str, tuple[int, ...]] = {}
    for name, given in labels.items():
        values = tuple(given) if isinstance(given, list | tuple) else (given,)
        if not values or not all(type(value) is int and value >= 0 for value in values):
            raise DataError(
                f"'labels' gives {name!r} the value {given!r}; expected an integer from 0, or a list of them for a "
                "region. Correct the description."
            )
        values_of[str(name)] = tuple(dict.fromkeys(values))
    return values_of


def _paints(order: Any, foreground: Mapping[str, tuple[int, ...]]) -> list[int]:
    known = {value for values in foreground.values() for value in values}
    if isinstance(order, list) and len(order) == len(foreground) and all(type(v) is int and v in known for v in order):
        return list(order)
    raise DataError(
        f"'regions_class_order' is {order!r}, but regions need it: one label value for each of {list(foreground)}, in "
        f"this order, out of {sorted(known)}. Later regions are painted over earlier ones."
    )


def _is_whole_number(key: Any) -> bool:
    return isinstance(key, str) and key.strip().isdecimal()


def _shown(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(list(values))
