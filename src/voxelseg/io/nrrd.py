"""NRRD, .nrrd and .nhdr with its data in another file (https://teem.sourceforge.net/nrrd/format.html).

Read through SimpleITK, which knows all encodings. World coordinates are LPS in the file, RAS in a `Grid`.
"""

import gzip
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name that its own documentation uses

from voxelseg.errors import DataError
from voxelseg.files import atomic_path, write_bytes
from voxelseg.geometry import Affine, Grid, from_canonical
from voxelseg.io.format import DAMAGED, NUM_AXES, Format, Header, copy_voxels, result_dtype
from voxelseg.io.lps import affine_from_lps, affine_to_lps, num_axes_of
from voxelseg.volume import Volume

_TYPE_OF = {"float32": "float", "float64": "double"}
_SPACES = {
    *("rightanteriorsuperior", "ras", "leftanteriorsuperior", "las"),
    *("leftposteriorsuperior", "lps", "leftposteriorsuperiortime", "lpst"),
}
"""Spaces that SimpleITK turns into left-posterior-superior, as it says; others it takes for that in silence."""
_NAME_ENCODING = ("utf-8", "surrogateescape")  # file names of any encoding survive
_LONGEST_LINE = 2**16
_MOST_FILES = 2**16
_LIST = re.compile(r"LIST(\s+\d+)?(\n|$)")
_NUMBERED = re.compile(
    r"(?P<name>[^%]*%0?\d{0,2}d[^%]*?)\s+(?P<low>-?\d{1,9})\s+(?P<high>-?\d{1,9})\s+(?P<step>-?\d{1,9})(\s+\d+)?"
)


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
    num_axes = num_axes_of(grid)
    several = num_channels > 1
    directions = " ".join(_vector(column) for column in lps[:num_axes, :num_axes].T)
    lines = [
        "NRRD0004",
        f"type: {_TYPE_OF.get(dtype.name, dtype.name)}",
        f"dimension: {num_axes + several}",
        "space: left-posterior-superior" if num_axes == 3 else "space dimension: 2",
        f"sizes: {f'{num_channels} ' if several else ''}{' '.join(map(str, grid.shape_ijk[:num_axes]))}",
        f"space directions: {'none ' if several else ''}{directions}",
        f"kinds: {'vector ' if several else ''}{' '.join(['domain'] * num_axes)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:num_axes, 3])}",
    ]
    array_kjic = from_canonical(volume.array, grid.orientation).transpose(3, 2, 1, 0)
    voxels = np.ascontiguousarray(array_kjic, dtype=dtype.newbyteorder("<"))
    packed = gzip.compress(voxels.data, compresslevel=1, mtime=0)
    if path.suffix.lower() == ".nhdr":
        data_path = path.with_suffix(".raw.gz")
        header = "\n".join([*lines, f"data file: {data_path.name}"]) + "\n"
        with atomic_path(path) as temporary:  # the header appears last, when its data are complete
            temporary.write_bytes(header.encode(*_NAME_ENCODING))
            write_bytes(data_path, packed)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        file.write(packed)


def files(path: Path) -> tuple[Path, ...]:
    """The file, and those that hold its voxels if they are others."""
    named = _read_fields(path).get("datafile")
    return (path,) if named is None else (path, *(path.parent / name for name in _data_names(named)))


NRRD = Format(name="NRRD", read_header=read_header, read=read, write=write, files=files)


def _vector(values: Affine) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _read_fields(path: Path) -> dict[str, str]:
    """Fields of the text header, by name in lower case without spaces; a list of data files has a line for each."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:  # a missing or forbidden file is reported by the system's own error
        start = file.readline(_LONGEST_LINE)
        if not start:
            raise DataError(f"the file is empty. {DAMAGED}")
        if not start.startswith(b"NRRD"):
            raise DataError(f"not an NRRD file: it does not start with 'NRRD'. {DAMAGED}")
        while line := file.readline(_LONGEST_LINE).strip():
            if _LIST.match(fields.get("datafile", "")):
                fields["datafile"] += "\n" + line.decode(*_NAME_ENCODING)
                continue
            name, colon, value = line.partition(b":")
            key = name.decode("latin-1").lower().replace(" ", "")
            if not line.startswith(b"#") and not value.startswith(b"="):  # neither a comment nor a key of the user's
                if not colon:
                    break
                fields[key] = value.strip().decode(*(_NAME_ENCODING if key == "datafile" else ["latin-1"]))
    return fields


def _data_names(given: str) -> list[str]:
    """Names in the field `data file`: one, a list, or numbered ones. DataError if they cannot be names of files."""
    first, *listed = given.split("\n")
    numbered = _NUMBERED.fullmatch(first)
    if _LIST.match(first):
        names = listed
    elif numbered:
        low, high, step = (int(numbered[key]) for key in ("low", "high", "step"))
        numbers = range(low, high + (1 if step > 0 else -1), step or 1)
        names = [numbered["name"] % number for number in numbers[:_MOST_FILES]]
    else:
        names = [first]
    if not all(names) or "\0" in given:
        raise DataError(f"the NRRD header names no data file. {DAMAGED}")
    return names


def _check_supported(fields: dict[str, str]) -> None:
    """DataError for a sound header that says what is not read, or read wrongly."""
    space = fields.get("space", "")
    if space and re.sub("[- ]", "", space.lower()) not in _SPACES:
        raise DataError(
            f"the coordinates are in the space {space!r}, expected left-posterior-superior or another in which it is "
            "known where the patient's left and front are. Save the image with 3D Slicer, or convert it to .nii.gz."
        )
    if fields.get("dimension") == "1":
        raise DataError("one axis, expected two or three, or four with one for channels. Save the image as a volume.")
    if fields.get("encoding", "").lower() in ("bzip2", "bz2"):
        raise DataError("the voxels are compressed with bzip2, which is not read. Save the image with gzip.")


def _reader(path: Path) -> sitk.ImageFileReader:
    fields = _read_fields(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "match dimension of space" in str(error):
            raise DataError(
                "more axes than its space has, and no 'kinds' that say which of them holds channels. Add a line such "
                "as 'kinds: vector domain domain domain' to the header, or save each channel to its own file."
            ) from error
        raise _failure(error) from error
    _check_supported(fields)
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
            extra={NUM_AXES: 2} if len(shape) == 2 else {},
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
