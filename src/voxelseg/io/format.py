"""What every file format provides, and how its failures become messages that a user can act on."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.errors import DataError
from voxelseg.geometry import Grid
from voxelseg.volume import Volume

DAMAGED = "Copy or export the file again."
NUM_AXES = "num_axes"
"""Key of `Grid.extra` that holds a file's number of axes if it is below three."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Header:
    """What is known of a scan without reading its voxels."""

    grid: Grid
    num_channels: int
    dtype: np.dtype[Any]
    """Voxel type that reading gives: the stored one, or float32 if the values are scaled or float64."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """Functions that read and write one file format."""

    name: str
    read_header: Callable[[Path], Header]
    read: Callable[[Path], Volume]
    write: Callable[[Path, Volume], None]
    """Writes atomically; the volume has one of the types of `WRITABLE`."""
    files: Callable[[Path], tuple[Path, ...]]
    """The file and those that its header names for the voxels; DataError or OSError if it has no sound header."""


WRITABLE = tuple(
    np.dtype(name)
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
)
"""Voxel types that every format can store."""


def result_dtype(stored: np.dtype[Any], *, scaled: bool = False) -> np.dtype[Any]:
    """Type that voxels stored as `stored` have in memory: unscaled integers keep theirs, all else becomes float32.

    DataError for colours and complex numbers.
    """
    if stored.kind in "iu":
        return np.dtype(np.float32) if scaled else stored.newbyteorder("=")
    if stored.kind == "f":
        return np.dtype(np.float32)
    what = "colours (RGB)" if stored.fields else f"values of type {stored.name}"
    raise DataError(f"voxels are {what}, expected integers or real numbers. Convert the image to grey values.")


def copy_voxels(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Write `source` into `target`, converting its type; float64 beyond the range of float32 becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        target[...] = source


def check_size(num_bytes: int, available: int, *, compressed: bool) -> None:
    """DataError if `available` bytes of a file cannot hold `num_bytes` of voxels, before memory is claimed for them."""
    most = available * 1032 if compressed else available  # deflate never packs tighter than 1032 to 1
    if num_bytes > most:
        raise DataError(
            f"the header announces {num_bytes} bytes of voxels, but the file has room for {max(most, 0)} at most: "
            f"it is truncated or its header is damaged. {DAMAGED}"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn failures to read `path` into a DataError that names it and says what to do."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: file not found. Check the path, or restore the file.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder, expected an image file. Name a file inside it.") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read the file. Change its access rights.") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: the compressed data are truncated or damaged ({error}). {DAMAGED}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {DAMAGED}") from error
