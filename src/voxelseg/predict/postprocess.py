"""Removing what was predicted apart from the rest: of some classes only the largest connected component is kept.

Which ones is chosen after a cross-validation (`voxelseg.evaluate.components`) and stored in the model files. Voxels are
connected if they share a face, an edge or a corner. Source: Isensee et al., Nature Methods 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from voxelseg.data.labels import LabelScheme

NEIGHBOURS = 26
"""Voxels that a voxel is connected to, if they are of the same mask."""
_STRUCTURE = np.ones((3, 3, 3), np.bool_)
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """What is kept of a label map; nothing is removed by default."""

    foreground: bool = False
    """Keep only the largest component of all classes together."""
    classes: tuple[str, ...] = ()
    """Then keep only the largest component of each of these. They exclude each other: regions may not be named."""

    def __bool__(self) -> bool:
        return self.foreground or bool(self.classes)

    def apply(self, label_map: Array, labels: LabelScheme) -> Array:
        """`label_map` (D, H, W) with background in place of what is removed; `label_map` itself if nothing is.

        Beside both it takes 7 bytes for each voxel of the foreground's bounding box.
        """
        assert not (self.classes and labels.has_regions), "what would become of a removed part of an inner region?"
        values: list[int | None] = [None] if self.foreground else []
        values += [label.paint for label in labels.classes if label.name in self.classes]
        kept = label_map
        for value in values:
            box = _box(kept, value)
            if box is None:
                continue
            inside = kept[box]
            fragments = outside_largest(inside > 0 if value is None else inside == value)
            if fragments.any():
                kept = label_map.copy() if kept is label_map else kept
                kept[box][fragments] = 0
        return kept

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"foreground": self.foreground, "classes": list(self.classes), "neighbours": NEIGHBOURS}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], labels: LabelScheme) -> "Postprocessing":
        """From its JSON form; ValueError if it does not fit `labels`, or says what this version does not know."""
        if set(value) != {"foreground", "classes", "neighbours"} or value["neighbours"] != NEIGHBOURS:
            raise ValueError(f"{dict(value)} is not known")
        unknown = set(value["classes"]) - set(() if labels.has_regions else labels.names)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} cannot be postprocessed")
        return cls(foreground=bool(value["foreground"]), classes=tuple(value["classes"]))


def _box(label_map: Array, value: int | None) -> tuple[slice, ...] | None:
    """The smallest part that holds all voxels of `value`, None: of all values but 0; None if there is none."""
    boxes = ndimage.find_objects(label_map, max_label=value or 0)
    if value is not None:
        found: tuple[slice, ...] | None = boxes[value - 1]
        return found
    held = [box for box in boxes if box is not None]
    if not held:
        return None
    return tuple(
        slice(min(box[axis].start for box in held), max(box[axis].stop for box in held))
        for axis in range(label_map.ndim)
    )


def outside_largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Voxels of `mask` (D, H, W) that are not in its largest connected component.

    Of equally large ones the first along D, then H, then W is kept. An empty mask gives an empty one.
    """
    components, count = ndimage.label(mask, structure=_STRUCTURE)
    if count < 2:
        return np.zeros_like(mask)
    sizes = np.zeros(count + 1, np.int64)
    for plane in components:  # counting a whole scan at once would copy it as 8-byte numbers
        voxels = np.bincount(plane.ravel())
        sizes[: voxels.size] += voxels
    sizes[0] = 0
    outside: npt.NDArray[np.bool_] = components != sizes.argmax()
    outside &= mask
    return outside
