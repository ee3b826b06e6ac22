"""NRRD, .nrrd and .nhdr with its data in another file (https://teem.sourceforge.net/nrrd/format.html).

Read through SimpleITK, which knows all encodings. World coordinates are LPS in the file, RAS in a `Grid`.
"""

import gzip
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name that its own documentation uses

from voxelseg.errors import DataError
from voxelseg.files import atomic_path, write_bytes
from voxelseg.geometry import Affine, Grid, from_canonical
from voxelseg.io.format import DAMAGED, Format, Header, copy_voxels, result_dtype
from voxelseg.io.lps import affine_from_lps, affine_to_lps
from voxelseg.volume import Volume

_TYPE_OF = {"float32": "float", "float64": "double"}


def read_header(path: Path) -> Header:
    """Grid, number of channels and voxel type of an NRRD file."""
    return _header(_reader(path))


def read(path: Path) -> Volume:
    """Volume of an NRRD file; vector components, or a fourth axis, are channels."""
    reader = _reader(path)
    header = _header(reader)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _failure(error) from error
    stored = sitk.GetArrayViewFromImage(image)  # (k, j, i), (k, j, i, c) or (c, k, j, i)
    if image.GetNumberOfComponentsPerPixel() > 1:
        stored = stored.transpose(stored.ndim - 1, *range(stored.ndim - 1))
    stored = stored.reshape(header.num_channels, *reversed(header.grid.shape_ijk))
    array = np.empty((header.num_channels, *header.grid.shape_dhw), dtype=header.dtype)
    copy_voxels(from_canonical(array, header.grid.orientation), stored.transpose(0, 3, 2, 1))
    return Volume(array, header.grid)


def write(path: Path, volume: Volume) -> None:
    """Write an NRRD file, compressed; for .nhdr the voxels go to a file of the same name ending with .raw.gz."""
    grid, dtype, num_channels = volume.grid, volume.array.dtype, volume.array.shape[0]
    lps = affine_to_lps(grid.affine_ijk)
    several = num_channels > 1
    directions = " ".join(_vector(column) for column in lps[:3, :3].T)
    lines = [
        "NRRD0004",
        f"type: {_TYPE_OF.get(dtype.name, dtype.name)}",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{num_channels} ' if several else ''}{' '.join(map(str, grid.shape_ijk))}",
        f"space directions: {'none ' if several else ''}{directions}",
        f"kinds: {'vector ' if several else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    array_kjic = from_canonical(volume.array, grid.orientation).transpose(3, 2, 1, 0)
    voxels = np.ascontiguousarray(array_kjic, dtype=dtype.newbyteorder("<"))
    packed = gzip.compress(voxels.data, compresslevel=1, mtime=0)
    if path.suffix.lower() == ".nhdr":
        data_path = path.with_suffix(".raw.gz")
        header = "\n".join([*lines, f"data file: {data_path.name}"]) + "\n"
        with atomic_path(path) as temporary:  # the header appears last, when its data are complete
            temporary.write_text(header)
            write_bytes(data_path, packed)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        file.write(packed)


NRRD = Format(name="NRRD", read_header=read_header, read=read, write=write)


def _vector(values: Affine) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _reader(path: Path) -> sitk.ImageFileReader:
    with path.open("rb") as file:  # a missing or forbidden file is reported by the system's own error
        start = file.read(4)
    if not start:
        raise DataError(f"the file is empty. {DAMAGED}")
    if start != b"NRRD":
        raise DataError(f"not an NRRD file: it does not start with 'NRRD'. {DAMAGED}")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _failure(error) from error
    return reader


def _failure(error: RuntimeError) -> DataError:
    reason = str(error).strip().splitlines()[-1].strip()
    return DataError(
        f"damaged, truncated, or its data file is missing ({reason}). {DAMAGED} "
        "An .nhdr file needs its data file beside it."
    )


def _header(reader: sitk.ImageFileReader) -> Header:
    shape = list(reader.GetSize())
    num_components = reader.GetNumberOfComponents()
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4 or (len(shape) == 4 and num_components > 1):
        raise DataError(
            f"shape {tuple(shape)} with {num_components} components, expected three axes, or four with channels last. "
            "Save each volume to its own file."
        )
    num_channels = shape[3] if len(shape) == 4 else num_components
    stored = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return Header(
        grid=Grid(
            shape_ijk=(shape[0], shape[1], shape[2] if len(shape) > 2 else 1),
            affine_ijk=affine_from_lps(
                np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1),
                reader.GetSpacing(),
                reader.GetOrigin(),
            ),
        ),
        num_channels=num_channels,
        dtype=result_dtype(_dtype_of(stored)),
    )


def _dtype_of(pixel_type: str) -> np.dtype[np.generic]:
    """NumPy type of SimpleITK's description, such as "vector of 16-bit signed integer"."""
    words = pixel_type.removeprefix("vector of ").split()
    bits = words[0].removesuffix("-bit")
    if words[1:] in (["signed", "integer"], ["unsigned", "integer"]):
        return np.dtype(f"{'u' if words[1] == 'unsigned' else ''}int{bits}")
    if words[1:] == ["float"]:
        return np.dtype(f"float{bits}")
    return np.dtype("complex64")
