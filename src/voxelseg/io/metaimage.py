"""MetaImage, .mha and .mhd with its data in another file (https://itk.org/Wiki/ITK/MetaIO/Documentation).

Read here rather than through SimpleITK, which returns wrong voxels from damaged compressed data and writes to stderr.
World coordinates are LPS in the file, RAS in a `Grid`.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxelseg.errors import DataError
from voxelseg.files import atomic_path, write_bytes
from voxelseg.geometry import Affine, Grid, from_canonical
from voxelseg.io.format import DAMAGED, NUM_AXES, Format, Header, check_size, copy_voxels, result_dtype
from voxelseg.io.lps import affine_from_lps, affine_to_lps, num_axes_of
from voxelseg.volume import Volume

_DTYPE_OF = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes in every MetaIO, whatever the platform's long
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_TYPE_OF = {dtype: name for name, dtype in reversed(_DTYPE_OF.items())}
_LAST_KEY = "ElementDataFile"
_NAME_ENCODING = ("utf-8", "surrogateescape")  # file names of any encoding survive
_LONGEST_LINE = 2**16
_SEVERAL_FILES = re.compile(r"LIST(\s+\d+)?|\S*%\d*d\S*(\s+\d+)+")  # a list of names follows, or a numbered name


@dataclass(frozen=True, eq=False, kw_only=True)
class _Stored:
    """How the voxels lie in the file."""

    header: Header
    dtype: np.dtype[Any]
    interleaved: bool
    """Whether the channels of a voxel lie side by side; else each channel is a volume of its own."""
    compressed: bool
    data_path: Path
    offset: int
    """First byte of the voxels in `data_path`; -1 if they are the file's last bytes."""

    @property
    def num_bytes(self) -> int:
        i, j, k = self.header.grid.shape_ijk
        return self.header.num_channels * i * j * k * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """Grid, number of channels and voxel type of a MetaImage file."""
    return _read_header(path).header


def read(path: Path) -> Volume:
    """Volume of a MetaImage file; vector components, or a fourth axis, are channels."""
    stored = _read_header(path)
    grid, num_channels = stored.header.grid, stored.header.num_channels
    voxels = np.frombuffer(_read_bytes(stored), dtype=stored.dtype)
    kji = grid.shape_ijk[::-1]
    if stored.interleaved:
        voxels_ckji = voxels.reshape(*kji, num_channels).transpose(3, 0, 1, 2)
    else:
        voxels_ckji = voxels.reshape(num_channels, *kji)
    array = np.empty((num_channels, *grid.shape_dhw), dtype=stored.header.dtype)
    copy_voxels(from_canonical(array, grid.orientation), voxels_ckji.transpose(0, 3, 2, 1))
    return Volume(array, stored.header.grid)


def write(path: Path, volume: Volume) -> None:
    """Write a MetaImage file, compressed; for .mhd the voxels go to a file of the same name ending with .zraw."""
    grid, dtype, num_channels = volume.grid, volume.array.dtype, volume.array.shape[0]
    num_axes = num_axes_of(grid)
    lps = affine_to_lps(grid.affine_ijk)
    steps = lps[:num_axes, :num_axes]
    spacing = np.linalg.norm(steps, axis=0)
    array_kjic = from_canonical(volume.array, grid.orientation).transpose(3, 2, 1, 0)
    voxels = np.ascontiguousarray(array_kjic, dtype=dtype.newbyteorder("<"))
    packed = zlib.compress(voxels.data, level=1)
    detached = path.suffix.lower() == ".mhd"
    data_path = path.with_suffix(".zraw")
    fields = {
        "ObjectType": "Image",
        "NDims": str(num_axes),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(packed)),
        "TransformMatrix": _text((steps / spacing).T.ravel()),
        "Offset": _text(lps[:num_axes, 3]),
        "ElementSpacing": _text(spacing),
        "DimSize": " ".join(map(str, grid.shape_ijk[:num_axes])),
        **({"ElementNumberOfChannels": str(num_channels)} if num_channels > 1 else {}),
        "ElementType": _TYPE_OF[dtype.str[1:]],
        _LAST_KEY: data_path.name if detached else "LOCAL",
    }
    header = "".join(f"{key} = {value}\n" for key, value in fields.items()).encode(*_NAME_ENCODING)
    with atomic_path(path) as temporary:
        if detached:  # the header appears last, when its data are complete
            temporary.write_bytes(header)
            write_bytes(data_path, packed)
        else:
            with temporary.open("wb") as file:
                file.write(header)
                file.write(packed)


def files(path: Path) -> tuple[Path, ...]:
    """The file, and the one that holds its voxels if that is another."""
    fields, _ = _read_fields(path)
    data_path = _data_path(path, fields)
    return (path,) if data_path == path else (path, data_path)


METAIMAGE = Format(name="MetaImage", read_header=read_header, read=read, write=write, files=files)


def _text(values: Sequence[float] | Affine) -> str:
    return " ".join(repr(float(value)) for value in values)


def _read_fields(path: Path) -> tuple[dict[str, str], int]:
    """Fields of the text header, and the number of bytes it takes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while _LAST_KEY not in fields:
            line = file.readline(_LONGEST_LINE)
            start, equals, rest = line.partition(b"=")
            key = start.decode("latin-1").strip()
            if not line and not fields:
                raise DataError(f"the file is empty. {DAMAGED}")
            if not equals and not line.endswith(b"\n") and fields:
                raise DataError(f"truncated: ends inside the header, before '{_LAST_KEY}'. {DAMAGED}")
            if not equals and line.strip():
                raise DataError(f"not a MetaImage file: its header has a line that is not 'Key = Value'. {DAMAGED}")
            fields[key] = rest.decode(*(_NAME_ENCODING if key == _LAST_KEY else ["latin-1"])).strip()
        return fields, file.tell()


def _read_header(path: Path) -> _Stored:
    fields, header_size = _read_fields(path)
    try:
        shape = [int(value) for value in _field(fields, "DimSize").split()]
        num_components = int(_field(fields, "ElementNumberOfChannels", "1"))
        grid, num_volumes = _grid(fields, shape)
        header_bytes = int(_field(fields, "HeaderSize", "0"))
    except ValueError as error:
        raise DataError(f"the MetaImage header is damaged ({error}). {DAMAGED}") from error
    if num_volumes > 1 and num_components > 1:
        raise DataError(
            f"shape {tuple(shape)} with {num_components} components, expected three axes, or four with channels last. "
            "Save each volume to its own file."
        )
    if num_components < 1:
        raise DataError(f"the MetaImage header announces {num_components} components, expected 1 or more. {DAMAGED}")
    dtype = _dtype(fields)
    data_path = _data_path(path, fields)
    return _Stored(
        header=Header(grid=grid, num_channels=num_volumes * num_components, dtype=result_dtype(dtype)),
        dtype=dtype,
        interleaved=num_components > 1,
        compressed=_is_true(fields, "CompressedData"),
        data_path=data_path,
        offset=header_size if data_path == path else header_bytes,
    )


def _data_path(path: Path, fields: dict[str, str]) -> Path:
    """The file that holds the voxels: `path` itself or another one. DataError if there is none, or several."""
    name = fields[_LAST_KEY]
    if _SEVERAL_FILES.fullmatch(name):
        raise DataError("the voxels are spread over several files, expected one. Convert the image to .mha or .nii.gz.")
    if not name or "\0" in name:
        raise DataError(f"the MetaImage header names no data file. {DAMAGED}")
    return path if name.upper() == "LOCAL" else path.parent / name


def _field(fields: dict[str, str], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if value is None:
        raise DataError(f"the MetaImage header has no '{key}'. {DAMAGED}")
    return value


def _is_true(fields: dict[str, str], key: str) -> bool:
    return _field(fields, key, "False").lower() in ("true", "1", "t")


def _numbers(fields: dict[str, str], keys: Sequence[str], default: Affine) -> Affine:
    """Values of the first key that is present, in the default's shape; ValueError if they are too few or too many."""
    for key in keys:
        if key in fields:
            return np.array([float(value) for value in fields[key].split()]).reshape(default.shape)
    return default


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    name = _field(fields, "ElementType")
    if name not in _DTYPE_OF:
        raise DataError(f"voxels are of type {name}, expected one of {', '.join(_DTYPE_OF)}. Convert the image.")
    if not _is_true(fields | {"BinaryData": fields.get("BinaryData", "True")}, "BinaryData"):
        raise DataError("the voxels are written as text, expected binary data. Convert the image to .mha or .nii.gz.")
    big_endian = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    return np.dtype(_DTYPE_OF[name]).newbyteorder(">" if big_endian else "<")


def _grid(fields: dict[str, str], shape: list[int]) -> tuple[Grid, int]:
    """Grid, and the number of volumes along the fourth axis."""
    num_axes = len(shape)
    if min(shape, default=0) < 1:
        raise DataError(f"shape {tuple(shape)} has no voxels, expected sizes of at least 1. {DAMAGED}")
    if not 2 <= num_axes <= 4 or int(_field(fields, "NDims")) != num_axes:
        raise DataError(f"{num_axes} sizes for NDims = {fields['NDims']}, expected two to four axes. {DAMAGED}")
    direction = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(num_axes)).T
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), np.ones(num_axes))
    origin = _numbers(fields, ("Offset", "Position", "Origin"), np.zeros(num_axes))
    i, j, k, num_volumes = (*shape, *[1] * (4 - num_axes))
    affine = affine_from_lps(direction, [*spacing], [*origin])
    extra = {NUM_AXES: num_axes} if num_axes < 3 else {}
    return Grid(shape_ijk=(i, j, k), affine_ijk=affine, extra=extra), num_volumes


def _read_bytes(stored: _Stored) -> bytes:
    """The voxels' bytes, decompressed; DataError if there are too few."""
    try:
        available = stored.data_path.stat().st_size - max(stored.offset, 0)
        check_size(stored.num_bytes, available, compressed=stored.compressed)
        with stored.data_path.open("rb") as file:
            file.seek(stored.offset if stored.offset >= 0 else max(available - stored.num_bytes, 0))
            if not stored.compressed:
                return file.read(stored.num_bytes)
            unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip, told apart by their first bytes
            content = unpacker.decompress(file.read(), stored.num_bytes)
    except FileNotFoundError as error:
        shown = str(stored.data_path).encode(errors="replace").decode()
        raise DataError(f"its data file {shown} is missing. Keep header and data together.") from error
    if not unpacker.eof:
        unpacker.decompress(unpacker.unconsumed_tail, 1)  # reads on to the checksum
    if len(content) < stored.num_bytes or not unpacker.eof:
        raise DataError(f"the compressed voxels are truncated, or their number is not the header's. {DAMAGED}")
    return content
