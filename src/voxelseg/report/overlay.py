"""Pictures of a predicted case: scan with both contours, and a map of the errors, in three views."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.image import imsave

from voxelseg.data.dataset import is_ct
from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.held_out import CaseFiles
from voxelseg.geometry import Spacing
from voxelseg.io import read_label, read_volume
from voxelseg.metrics.pair import bounding_box

REFERENCE, PREDICTION, CONFUSED = "#56B4E9", "#E69F00", "#CC79A7"
"""Okabe and Ito's sky blue, orange and purple."""
_CT_WINDOW = (-160.0, 240.0)
"""Soft tissue, in HU."""
_LEAST_MARGIN_MM = 8.0
_BRIGHTEST = 210
"""Grey of the brightest voxels; a little below white, so that both contours stand out on them."""

# Radiological convention: anterior and superior up, the patient's right on the left; side views look to the left.
_VIEWS = (
    ("axial", 0, ("R", "L", "A", "P")),
    ("coronal", 1, ("R", "L", "S", "I")),
    ("sagittal", 2, ("A", "P", "S", "I")),
)


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice, rows downwards and columns to the right as on the page."""

    name: str
    letters: tuple[str, str, str, str]
    """What lies left, right, up and down."""
    step_mm: tuple[float, float]
    """Distance of rows and of columns."""
    grey: npt.NDArray[np.uint8]
    reference: npt.NDArray[Any]
    prediction: npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """One plane of a case."""

    name: str
    caption: str
    contours: Markup
    """SVG: scan with the contours of reference and prediction."""
    errors: Markup
    """SVG: dimmed scan with the voxels that are wrong."""


def case_views(files: CaseFiles, labels: LabelScheme, *, channel: str) -> tuple[View, ...]:
    """Axial, coronal and sagittal view of a case, each at the slice with most errors (most foreground if none).

    Shows the first channel, named `channel`, around everything that either label map marks.
    Raises DataError if a file is gone, cannot be read, or does not fit the others.
    """
    return compared_case_views({"": files}, labels, channel=channel)[""]


def compared_case_views(
    files: Mapping[str, CaseFiles], labels: LabelScheme, *, channel: str
) -> dict[str, tuple[View, ...]]:
    """Views of several predictions of one case by name, all of the same slices; see `case_views`.

    The reference and the scan are those of the first one; on black if nobody said where the scan is.
    """
    first = next(iter(files.values()))
    reference = read_label(first.label)
    predictions = {name: read_label(one.prediction) for name, one in files.items()}
    others = [(one.prediction, predictions[name]) for name, one in files.items()]
    scan = read_volume(first.images[0]) if first.images else None
    if scan is not None:
        others.append((first.images[0], scan))
    for path, volume in others:
        differences = reference.grid.differences(volume.grid)
        if differences:
            raise DataError(f"{path}: not on the grid of {first.label}: {'; '.join(differences)}.")
    return compared_views(
        np.zeros_like(reference.array[0]) if scan is None else scan.array[0],
        reference.array[0],
        {name: volume.array[0] for name, volume in predictions.items()},
        labels,
        spacing_mm=reference.spacing_mm,
        window=_CT_WINDOW if is_ct(channel) and scan is not None else None,
    )


def label_map_views(
    scan: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    labels: LabelScheme,
    *,
    spacing_mm: Spacing,
    window: tuple[float, float] | None = None,
) -> tuple[View, ...]:
    """Views of arrays (D, H, W) on one grid; `window` maps intensities to black and white, None takes percentiles.

    With regions a voxel is wrong if it lies in other regions than it should, whichever value says so.
    """
    return compared_views(scan, reference, {"": prediction}, labels, spacing_mm=spacing_mm, window=window)[""]


def compared_views(
    scan: npt.NDArray[Any],
    reference: npt.NDArray[Any],
    predictions: Mapping[str, npt.NDArray[Any]],
    labels: LabelScheme,
    *,
    spacing_mm: Spacing,
    window: tuple[float, float] | None = None,
) -> dict[str, tuple[View, ...]]:
    """Views of several predictions by name, all of the slices with most errors of all together."""
    if labels.ignore is not None:
        judged = reference != labels.ignore
        reference = np.where(judged, reference, 0)
        predictions = {name: np.where(judged, one, 0) for name, one in predictions.items()}
    foreground = np.logical_or.reduce([reference != 0, *(one != 0 for one in predictions.values())])
    box = _box_of_interest(foreground, spacing_mm)
    reference = reference[box]
    predictions = {name: one[box] for name, one in predictions.items()}
    if labels.has_regions:
        reference = _by_meaning(reference, labels)
        predictions = {name: _by_meaning(one, labels) for name, one in predictions.items()}
    grey = _grey(scan[box], window)
    errors = np.sum([reference != one for one in predictions.values()], axis=0)
    counted = errors if errors.any() else reference != 0
    starts = [part.start for part in box]
    views: dict[str, tuple[View, ...]] = dict.fromkeys(predictions, ())
    for view, normal, letters in _VIEWS:
        others = tuple(axis for axis in range(3) if axis != normal)
        index = int(counted.sum(axis=others).argmax())
        place = f"slice {starts[normal] + index + 1} of {scan.shape[normal]}"
        step_mm = (spacing_mm[others[0]], spacing_mm[others[1]])
        for name, prediction in predictions.items():
            cuts = (_cut(array, normal, index) for array in (grey, reference, prediction))
            plane = Plane(f"{view} view", letters, step_mm, *cuts)
            views[name] += (_view(view, place, plane, labels),)
    return views


def _view(name: str, place: str, plane: Plane, labels: LabelScheme) -> View:
    wrong = int(np.count_nonzero(plane.reference != plane.prediction))
    return View(
        name=name,
        caption=f"{place}, {wrong} wrong voxel{'s' if wrong != 1 else ''}",
        contours=_contour_picture(plane, labels),
        errors=_error_picture(plane),
    )


def _by_meaning(label_map: npt.NDArray[Any], labels: LabelScheme) -> npt.NDArray[Any]:
    """`label_map` with one value for all values of the same regions, 0 for those of none: they are equally right."""
    stands_for: dict[tuple[str, ...], int] = {(): 0}
    result = label_map.copy()
    for value in sorted(labels.known_values):
        regions = tuple(one.name for one in labels.classes if value in one.values)
        result[label_map == value] = stands_for.setdefault(regions, value)
    return result


def _box_of_interest(foreground: npt.NDArray[np.bool_], spacing_mm: Spacing) -> tuple[slice, ...]:
    if not foreground.any():
        return tuple(slice(0, size) for size in foreground.shape)
    box = bounding_box(foreground)
    reach = max((part.stop - part.start) * step for part, step in zip(box, spacing_mm, strict=True))
    margin_mm = max(_LEAST_MARGIN_MM, 0.12 * reach)
    return tuple(
        slice(max(part.start - round(margin_mm / step), 0), min(part.stop + round(margin_mm / step), size))
        for part, step, size in zip(box, spacing_mm, foreground.shape, strict=True)
    )


def _grey(scan: npt.NDArray[Any], window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    values = np.nan_to_num(scan.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = window or (float(np.percentile(values, 0.5)), float(np.percentile(values, 99.5)))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * _BRIGHTEST
    grey: npt.NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return grey


def _cut(array: npt.NDArray[Any], normal: int, index: int) -> npt.NDArray[Any]:
    """Slice with both axes flipped: D, H, W run upwards, forwards and to the right, pictures the other way round."""
    cut: npt.NDArray[Any] = array.take(index, axis=normal)[::-1, ::-1]
    return cut


def _contour_picture(plane: Plane, labels: LabelScheme) -> Markup:
    lines = "".join(
        f'<path class="{role}" d="{"".join(outline(labels.mask(label, one)) for one in labels.names)}"/>'
        for role, label in (("reference", plane.reference), ("prediction", plane.prediction))
    )
    height, width = plane.step_mm
    contours = f'<g transform="scale({width:g} {height:g})">{lines}</g>'
    return _picture(plane, embedded(plane.grey, plane.step_mm) + contours, f"{plane.name} with contours")


def _error_picture(plane: Plane) -> Markup:
    reference, prediction = plane.reference, plane.prediction
    colours = np.zeros((*reference.shape, 4), np.uint8)
    colours[(reference == prediction) & (reference != 0)] = (255, 255, 255, 70)
    colours[(reference != 0) & (prediction == 0)] = _rgba(REFERENCE)
    colours[(reference == 0) & (prediction != 0)] = _rgba(PREDICTION)
    colours[(reference != 0) & (prediction != 0) & (reference != prediction)] = _rgba(CONFUSED)
    content = embedded(plane.grey // 2, plane.step_mm) + embedded(colours, plane.step_mm, crisp=True)
    return _picture(plane, content, f"{plane.name} of the errors")


def _rgba(colour: str) -> tuple[int, int, int, int]:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return red, green, blue, 255


def _picture(plane: Plane, content: str, title: str) -> Markup:
    """SVG whose unit is a millimetre, on a square of its longer side so that pictures line up in a row."""
    height, width = plane.grey.shape[0] * plane.step_mm[0], plane.grey.shape[1] * plane.step_mm[1]
    side = max(height, width)
    x, y = (width - side) / 2, (height - side) / 2
    size, inset = side * 0.05, side * 0.02
    left, right, top, bottom = plane.letters
    marks = "".join(
        f'<text x="{at_x:.2f}" y="{at_y:.2f}" text-anchor="{anchor}" dominant-baseline="{baseline}">{letter}</text>'
        for letter, at_x, at_y, anchor, baseline in (
            (left, x + inset, height / 2, "start", "central"),
            (right, x + side - inset, height / 2, "end", "central"),
            (top, width / 2, y + inset, "middle", "hanging"),
            (bottom, width / 2, y + side - inset, "middle", "text-after-edge"),
        )
    )
    return Markup(
        f'<svg class="picture" viewBox="{x:.2f} {y:.2f} {side:.2f} {side:.2f}" role="img" aria-label="{title}">'
        f'{content}<g class="marks" font-size="{size:.2f}">{marks}</g></svg>'
    )


def embedded(pixels: npt.NDArray[np.uint8], step_mm: tuple[float, float], *, crisp: bool = False) -> str:
    """SVG image of grey values (rows, columns) or RGBA (rows, columns, 4), one pixel per voxel."""
    file = io.BytesIO()
    rgba = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3 + [np.full_like(pixels, 255)])
    imsave(file, rgba, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    width, height = pixels.shape[1] * step_mm[1], pixels.shape[0] * step_mm[0]
    rendering = ' class="crisp"' if crisp else ""
    return (
        f'<image{rendering} width="{width:.4f}" height="{height:.4f}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    )


def outline(mask: npt.NDArray[np.bool_]) -> str:
    """SVG path along the voxel edges between mask and background, in voxels from the corner; empty for an empty mask.

    `mask` is (rows, columns); x runs along columns. The edge of the picture counts as background.
    """
    padded = np.pad(mask, 1)
    rows = "".join(f"M{start} {line}h{length}" for line, start, length in _runs(padded[1:, 1:-1] != padded[:-1, 1:-1]))
    turned = padded.T
    columns = "".join(
        f"M{line} {start}v{length}" for line, start, length in _runs(turned[1:, 1:-1] != turned[:-1, 1:-1])
    )
    return rows + columns


def _runs(lines: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(line, start, length) of every unbroken run of true values along the rows of `lines`."""
    changes = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(changes == 1)
    _, stop = np.nonzero(changes == -1)
    return [(int(a), int(b), int(c - b)) for a, b, c in zip(line, start, stop, strict=True)]
