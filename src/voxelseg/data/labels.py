"""What the numbers in a label map mean: names, regions, the ignore label.

Regions and `ignore` follow nnU-Net v2: a region is a set of label values learnt as one target (for BraTS, "whole tumour"
is 1, 2 and 3); regions may overlap, so the network's outputs are independent (sigmoid) and are painted one after the
other, in order, when a label map is made. Voxels with the ignore label take part in no loss and no metric.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.errors import DataError


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
    """Foreground classes."""
    ignore: int | None = None

    def __post_init__(self) -> None:
        names = [label.name for label in self.classes]
        if not names:
            raise DataError("the data set describes no foreground class. Add at least one under 'labels'.")
        if len(set(names)) != len(names):
            raise DataError(f"class names are not unique: {names}. Rename them under 'labels'.")

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
        (found,) = (one for one in self.classes if one.name == name)
        return np.isin(label, found.values)

    def encode(self, label: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Training target (D, H, W) of a label map (D, H, W): see `targets_of_values`; unknown values become 0.

        Without regions: index of the class (0 background), -1 for ignore.
        With regions: index into the table of label values, so that `region_table` gives the classes of each voxel.
        """
        target = np.zeros(label.shape, dtype=np.int16)
        for index, values in enumerate(self._encoded_values(), start=1):
            target[np.isin(label, values)] = index
        if self.ignore is not None:
            target[label == self.ignore] = -1
        return target

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
        if not self.has_regions:
            values = np.array([0, *(label.paint for label in self.classes)], dtype=self.dtype)
            return values[outputs.argmax(axis=0)]
        label_map = np.zeros(outputs.shape[1:], dtype=self.dtype)
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
