"""Pictures of a pre-training's crop: what the network saw, and what it made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from voxelseg.errors import DataError
from voxelseg.report.overlay import embedded

PICTURES_FILE = "pictures.npz"
_NORMALS = (("D", 0), ("H", 1))
"""Slices across these axes are shown: one as it was scanned, mostly, and one along the slices."""


@dataclass(frozen=True)
class CropView:
    """Pictures that belong side by side."""

    title: str
    pictures: tuple[tuple[str, Markup], ...]
    """Titles and drawings."""


def read_pictures(folder: Path) -> Mapping[str, npt.NDArray[Any]]:
    """Pictures in the folder of a pre-training, by title, in order; DataError for a damaged file."""
    path = folder / PICTURES_FILE
    if not path.is_file():
        return {}
    try:
        with np.load(path) as file:
            return {title: file[title].astype(np.float32) for title in file.files}
    except Exception as error:  # NumPy and zipfile meet damage with many kinds of exception
        raise DataError(f"{path}: damaged ({error}). Delete it to get the report without pictures.") from error


def crop_views(arrays: Mapping[str, npt.NDArray[Any]], *, spacing_mm: tuple[float, ...]) -> tuple[CropView, ...]:
    """Slices (rows, columns) of the volumes (D, H, W) side by side, then the pictures that are flat themselves.

    Of the volumes, which share one range of grey, the slice is shown in which the second differs most from the first.
    """
    volumes = {title: array for title, array in arrays.items() if array.ndim == 3}
    flat = {title: array for title, array in arrays.items() if array.ndim == 2}
    views = [_volume_view(volumes, letter, normal, spacing_mm) for letter, normal in _NORMALS] if volumes else []
    if flat:
        drawn = tuple((title, _drawing(_grey(array, 0.0, 1.0), (1.0, 1.0), title)) for title, array in flat.items())
        views.append(CropView("", drawn))
    return tuple(views)


def _volume_view(
    volumes: Mapping[str, npt.NDArray[Any]], letter: str, normal: int, spacing_mm: tuple[float, ...]
) -> CropView:
    first, *others = volumes.values()
    low, high = np.percentile(first, [0.5, 99.5]).tolist()
    across = tuple(axis for axis in range(3) if axis != normal)
    change = (np.abs(others[0] - first) if others else np.abs(first - first.mean())).sum(axis=across)
    blank = np.ptp(others[0] if others else first, axis=across) == 0
    if not blank.all():
        change[blank] = 0  # a slice that is hidden as a whole shows less than one that is hidden in parts
    index = int(change.argmax())
    step_mm = (spacing_mm[across[0]], spacing_mm[across[1]])
    pictures = tuple(
        # D, H, W run upwards, forwards and to the right, pictures the other way round.
        (title, _drawing(_grey(array.take(index, axis=normal)[::-1, ::-1], low, high), step_mm, title))
        for title, array in volumes.items()
    )
    return CropView(f"Across {letter}, slice {index + 1} of {first.shape[normal]}", pictures)


def _grey(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-6), 0, 1) * 255
    grey: npt.NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return grey


def _drawing(grey: npt.NDArray[np.uint8], step_mm: tuple[float, float], title: str) -> Markup:
    """SVG whose unit is a millimetre."""
    height, width = grey.shape[0] * step_mm[0], grey.shape[1] * step_mm[1]
    return Markup(
        f'<svg class="picture" viewBox="0 0 {width:.3f} {height:.3f}" role="img" aria-label="{escape(title)}">'
        f"{embedded(grey, step_mm, crisp=True)}</svg>"
    )
