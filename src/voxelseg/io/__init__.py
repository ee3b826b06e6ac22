"""Reading and writing scans and label maps in any format of `FORMATS`.

Arrays are canonical, (C, D, H, W), whatever the file's orientation, and go back to it on writing. Reading raises
DataError that names the file, never an error of a library.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.errors import DataError
from voxelseg.io.format import WRITABLE, Format, Header, naming
from voxelseg.io.labels import NEAR_INTEGER, rounding_of, to_integers
from voxelseg.io.metaimage import METAIMAGE
from voxelseg.io.nifti import NIFTI, read_in_turn
from voxelseg.io.nrrd import NRRD
from voxelseg.volume import Volume

__all__ = [
    "FORMATS",
    "NEAR_INTEGER",
    "Format",
    "Header",
    "channels_in_turn",
    "files_of",
    "is_image",
    "read_channels",
    "read_header",
    "read_label",
    "read_volume",
    "strip_suffix",
    "write_volume",
]

FORMATS = {
    ".nii.gz": NIFTI,
    ".nii": NIFTI,
    ".nrrd": NRRD,
    ".nhdr": NRRD,
    ".mha": METAIMAGE,
    ".mhd": METAIMAGE,
}
"""File suffix, in lower case, to the format that reads and writes it."""


def is_image(path: Path | str) -> bool:
    """Whether the name ends with a known suffix; hidden files, such as macOS leaves in archives, do not count."""
    name = Path(path).name.lower()
    return not name.startswith(".") and any(name.endswith(suffix) for suffix in FORMATS)


def strip_suffix(path: Path | str) -> str:
    """File name without folder and image suffix, "case_1" for "a/case_1.nii.gz"; DataError for unknown suffixes."""
    return Path(path).name[: -len(_suffix(path))]


def files_of(path: Path | str) -> tuple[Path, ...]:
    """The files that a scan consists of: `path`, and those that its header names for the voxels, such as a .raw file.

    They need not exist. `path` alone if it is missing, damaged or no scan.
    """
    path = Path(path)
    try:
        return FORMATS[_suffix(path)].files(path)
    except (DataError, OSError):
        return (path,)


def read_header(path: Path | str) -> Header:
    """Grid, number of channels and voxel type of an image file, without reading its voxels."""
    path = Path(path)
    image_format = FORMATS[_suffix(path)]
    with naming(path):
        return image_format.read_header(path)


def read_volume(path: Path | str) -> Volume:
    """Image of one file: array (C, D, H, W), C-contiguous, on the file's grid.

    Integers keep their type; scaled and float64 values become float32. Channels are the fourth axis of a NIfTI file and
    the vector components of the other formats. DataError if the file is missing, damaged or no scan.
    """
    path = Path(path)
    image_format = FORMATS[_suffix(path)]
    with naming(path):
        return image_format.read(path)


def channels_in_turn(path: Path | str) -> Iterator[npt.NDArray[Any]]:
    """Channels (D, H, W) of a NIfTI file, one after the other, so that not all need be in memory at a time.

    Otherwise as `read_volume`. DataError for other formats, whose channels lie together in each voxel.
    """
    path = Path(path)
    if FORMATS[_suffix(path)] is not NIFTI:
        raise DataError(f"{path}: expected a NIfTI file, whose channels can be read one by one. Convert it to .nii.gz.")
    with naming(path):
        yield from read_in_turn(path)


def read_channels(paths: Sequence[Path | str]) -> Volume:
    """Image whose channels are spread over files, in the order given, on the first file's grid.

    DataError lists every file that cannot be read or whose grid differs from the first one's.
    """
    if not paths:
        raise DataError("no image file given, expected one per channel.")
    if len(paths) == 1:
        return read_volume(paths[0])
    headers: list[Header] = []
    problems: list[str] = []
    for path in paths:
        try:
            headers.append(read_header(path))
        except DataError as error:
            problems.append(str(error))
            continue
        differences = headers[0].grid.differences(headers[-1].grid)
        if differences:
            problems.append(
                f"{path}: does not lie on the grid of {paths[0]}: {'; '.join(differences)}. "
                "Resample the channels of a case onto one grid."
            )
    if problems:
        raise DataError("\n".join(problems))
    dtype = np.result_type(*(header.dtype for header in headers))
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    grid = headers[0].grid
    array = np.empty((sum(header.num_channels for header in headers), *grid.shape_dhw), dtype=dtype)
    start = 0
    for path, header in zip(paths, headers, strict=True):
        array[start : start + header.num_channels] = read_volume(path).array
        start += header.num_channels
    return Volume(array, grid)


def read_label(path: Path | str) -> Volume:
    """Label map of one file: array (1, D, H, W) of the smallest of uint8, uint16, int16, int32, int64 that holds it.

    Real values within `NEAR_INTEGER` of an integer are rounded to it. DataError for others, and for several channels.
    """
    volume = read_volume(path)
    array = volume.array
    if array.shape[0] != 1:
        raise DataError(
            f"{path}: {array.shape[0]} channels, expected a label map with one. Merge them into one map of integers."
        )
    rounding = rounding_of(array)
    if num_bad := rounding.num_non_finite + rounding.num_off:
        examples = rounding.examples or "NaN or infinity"
        raise DataError(
            f"{path}: {num_bad} voxels are no integers (such as {examples}), expected label values. "
            "Use nearest-neighbour interpolation when label maps are resampled, or name the right file."
        )
    integers = to_integers(array)
    if integers is not None:
        return Volume(integers, volume.grid)
    low, high = array.min(), array.max()
    raise DataError(f"{path}: label values from {low} to {high}, expected at most {2**63 - 1}. Correct the label map.")


def write_volume(path: Path | str, volume: Volume) -> None:
    """Write an image or label map in the format of the path's suffix and in the orientation of the volume's grid.

    Atomic; creates parent folders. Booleans are written as uint8, float16 as float32, everything else as it is.
    DataError for an unknown suffix or type, VoxelsegError if the file cannot be written.
    """
    path = Path(path)
    array = volume.array
    substitute = {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name)
    if substitute is not None:
        array = array.astype(substitute)
    if array.dtype.newbyteorder("=") not in WRITABLE:
        raise DataError(f"{path}: arrays of type {array.dtype} cannot be written. Convert the array to float32.")
    FORMATS[_suffix(path)].write(path, Volume(array, volume.grid))


def _suffix(path: Path | str) -> str:
    """Suffix as it is written in `FORMATS`."""
    name = Path(path).name.lower()
    for suffix in FORMATS:
        if name.endswith(suffix):
            return suffix
    raise DataError(f"{path}: no known image suffix, expected one of {', '.join(FORMATS)}. Convert the image.")
