"""NIfTI-1 and NIfTI-2 in single files, .nii and .nii.gz (https://nifti.nimh.nih.gov).

NiBabel interprets and builds the header. Voxels are read slab by slab straight into the canonical array, so that a
compressed scan needs no second copy in memory, and to the end of the compressed stream, so that its checksum is
verified. A file's sform, qform, codes, pixdim and units are kept in its `Grid` and written back as they were.
"""

import gzip
import logging
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from voxelseg.errors import DataError
from voxelseg.files import atomic_path
from voxelseg.geometry import Affine, Grid, from_canonical
from voxelseg.io.format import DAMAGED, NUM_AXES, Format, Header, check_size, copy_voxels, result_dtype
from voxelseg.volume import Volume

_SLAB_BYTES = 2**20
_HEADER_OF_SIZE: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
_UNITS = {0: "unknown", 1: "m", 2: "mm", 3: "um"}
_MM_PER_UNIT = {"unknown": 1.0, "m": 1000.0, "mm": 1.0, "um": 0.001}
_LONGEST_AXIS_OF_NIFTI1 = 2**15 - 1
_SILENT = logging.Logger("voxelseg.io.nifti", level=logging.CRITICAL + 1)  # NiBabel's remarks on headers it mends


@dataclass(frozen=True, eq=False, kw_only=True)
class _Stored:
    """How the voxels lie in the file."""

    header: Header
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def num_bytes(self) -> int:
        i, j, k = self.header.grid.shape_ijk
        return self.header.num_channels * i * j * k * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """Grid, number of channels and voxel type of a NIfTI file."""
    with _open(path) as stream:
        return _read_header(stream).header


def read(path: Path) -> Volume:
    """Volume of a NIfTI file; the fourth axis, if there is one, holds channels."""
    with _voxels(path) as (stream, stored):
        grid = stored.header.grid
        array = np.empty((stored.header.num_channels, *grid.shape_dhw), dtype=stored.header.dtype)
        for channel in array:
            _read_channel(stream, stored, channel)
    return Volume(array, grid)


def read_in_turn(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Channels (D, H, W) of a NIfTI file one after the other, so that not all need be in memory at a time."""
    with _voxels(path) as (stream, stored):
        for _ in range(stored.header.num_channels):
            channel = np.empty(stored.header.grid.shape_dhw, dtype=stored.header.dtype)
            _read_channel(stream, stored, channel)
            yield channel


def write(path: Path, volume: Volume) -> None:
    """Write a NIfTI file in the grid's own orientation, with the forms, codes and units that the grid carries.

    Values are stored as they are, never scaled; equal volumes give equal bytes. Channels become the fourth axis.
    Becomes NIfTI-2 if the grid came from one or an axis is too long for NIfTI-1.
    """
    header = _header_to_write(volume)
    array_ijk = from_canonical(volume.array, volume.grid.orientation)
    with atomic_path(path) as temporary, ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(temporary.open("wb"))
        if _is_compressed(path):
            zipped = gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=1, mtime=0)
            stream = cast(BinaryIO, stack.enter_context(zipped))
        stream.write(header.binaryblock)
        stream.write(bytes(int(header["vox_offset"]) - len(header.binaryblock)))
        little_endian = volume.array.dtype.newbyteorder("<")
        for channel in array_ijk:
            for slab in _slabs(channel.shape, volume.array.dtype.itemsize):
                stream.write(np.ascontiguousarray(channel[..., slab].transpose(2, 1, 0), dtype=little_endian).data)


def files(path: Path) -> tuple[Path, ...]:
    """The file alone: headers whose voxels are in another file are not read."""
    return (path,)


NIFTI = Format(name="NIfTI", read_header=read_header, read=read, write=write, files=files)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        if not start:
            raise DataError(f"the file is empty. {DAMAGED}")
        if not _is_compressed(path):
            if start == b"\x1f\x8b":
                raise DataError("the file is compressed with gzip. Rename it to end with .nii.gz.")
            yield file
            return
        if start != b"\x1f\x8b":
            raise DataError("the file is not compressed with gzip. Rename it to end with .nii, or copy it again.")
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            yield cast(BinaryIO, stream)


def _read_header(stream: BinaryIO) -> _Stored:
    block = stream.read(4)
    for endianness in "<>":
        size = struct.unpack(f"{endianness}i", block)[0] if len(block) == 4 else 0
        if size in _HEADER_OF_SIZE:
            break
    else:
        raise DataError(f"not a NIfTI file: it does not start with a NIfTI header. {DAMAGED}")
    block += stream.read(size - 4)
    if len(block) < size:
        raise DataError(f"truncated: ends inside the header, after {len(block)} of {size} bytes. {DAMAGED}")
    raw = _HEADER_OF_SIZE[size](block, endianness, check=False)
    magic = bytes(raw["magic"])[:3]
    if magic not in (b"n+1", b"n+2"):
        what = "a header whose voxels are in another file" if magic in (b"ni1", b"ni2") else "ANALYZE, not NIfTI"
        raise DataError(f"the file is {what}, expected NIfTI in a single file. Convert it to .nii.gz.")
    try:
        raw.check_fix(logger=_SILENT, error_level=40)
        return _interpret(raw, version=int(magic[2:]))
    except HeaderDataError as error:
        raise DataError(f"the NIfTI header is damaged ({error}). {DAMAGED}") from error


def _interpret(raw: Any, *, version: int) -> _Stored:
    shape = _shape_ijkc(raw)
    dtype = raw.get_data_dtype()
    offset = float(raw["vox_offset"])
    if not (offset.is_integer() and offset >= raw.single_vox_offset):
        raise DataError(f"the NIfTI header puts the voxels at byte {offset}. {DAMAGED}")
    slope, inter = raw.get_slope_inter()
    slope, inter = (1.0, 0.0) if slope is None else (slope, inter)
    header = Header(
        grid=_grid(raw, (shape[0], shape[1], shape[2]), version),
        num_channels=shape[3],
        dtype=result_dtype(dtype, scaled=(slope, inter) != (1.0, 0.0)),
    )
    return _Stored(header=header, dtype=dtype, offset=int(offset), slope=slope, inter=inter)


def _shape_ijkc(raw: Any) -> tuple[int, int, int, int]:
    """Sizes (i, j, k, channels), missing axes filled with 1 and trailing ones dropped."""
    num_axes = int(raw["dim"][0])
    if not 1 <= num_axes <= 7:
        raise DataError(f"the NIfTI header announces {num_axes} axes, expected 1 to 7. {DAMAGED}")
    shape = list(raw.get_data_shape())
    if min(shape) < 1:
        raise DataError(f"shape {tuple(shape)} has no voxels, expected sizes of at least 1. {DAMAGED}")
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4:
        raise DataError(
            f"shape {tuple(shape)} has {len(shape)} axes, expected three, or four with channels last. "
            "Save each volume to its own file."
        )
    shape += [1] * (4 - len(shape))
    return (shape[0], shape[1], shape[2], shape[3])


def _grid(raw: Any, shape_ijk: tuple[int, int, int], version: int) -> Grid:
    sform, sform_code = raw.get_sform(coded=True)
    qform_code = int(raw["qform_code"])
    qform = _qform(raw)
    if qform is None and qform_code and not sform_code:
        raise DataError("the qform is damaged and there is no sform. Repair the header.")
    num_axes = int(raw["dim"][0])
    units = _UNITS.get(int(raw["xyzt_units"]) & 7, "unknown")
    best = sform if sform_code else qform if qform_code else raw.get_base_affine()
    return Grid(
        shape_ijk=shape_ijk,
        affine_ijk=np.diag([_MM_PER_UNIT[units]] * 3 + [1.0]) @ np.asarray(best, dtype=np.float64),
        sform=None if sform is None else np.asarray(sform, dtype=np.float64),
        sform_code=int(sform_code),
        qform=qform,
        qform_code=qform_code,
        units=units,
        extra={
            "nifti": {
                "version": version,
                "xyzt_units": int(raw["xyzt_units"]),
                "pixdim": [float(value) for value in raw["pixdim"]],
                "quaternion": [float(raw[name]) for name in _QUATERNION],
            },
            **({NUM_AXES: num_axes} if num_axes < 3 else {}),
        },
    )


def _qform(raw: Any) -> Affine | None:
    """The qform; None if there is none, its quaternion is longer than 1, or its numbers are not finite."""
    try:
        qform = raw.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return None
    return np.asarray(qform, dtype=np.float64) if qform is not None and np.isfinite(qform).all() else None


_QUATERNION = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


def _slabs(shape_ijk: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Ranges of k that together cover a volume, about `_SLAB_BYTES` each."""
    i, j, num_planes = shape_ijk
    step = max(1, _SLAB_BYTES // (i * j * itemsize))
    for start in range(0, num_planes, step):
        yield slice(start, min(start + step, num_planes))


@contextmanager
def _voxels(path: Path) -> Iterator[tuple[BinaryIO, _Stored]]:
    """The file at its first voxel; read to its end afterwards."""
    with _open(path) as stream:
        stored = _read_header(stream)
        compressed = _is_compressed(path)
        available = path.stat().st_size - (0 if compressed else stored.offset)
        check_size(stored.num_bytes, available, compressed=compressed)
        stream.seek(stored.offset)
        yield stream, stored
        if compressed:
            while stream.read(_SLAB_BYTES):  # the checksum is only compared at the end of the stream
                pass


def _read_channel(stream: BinaryIO, stored: _Stored, channel: npt.NDArray[Any]) -> None:
    """Fill a channel (D, H, W) with the next values."""
    grid = stored.header.grid
    i, j, _ = grid.shape_ijk
    channel_ijk = from_canonical(channel, grid.orientation)
    for slab in _slabs(grid.shape_ijk, stored.dtype.itemsize):
        values: npt.NDArray[Any] = np.empty((slab.stop - slab.start, j, i), dtype=stored.dtype)
        _fill(stream, values.data.cast("B"))
        if stored.scaled:
            values = values.astype(np.float64) * stored.slope + stored.inter
        copy_voxels(channel_ijk[..., slab], values.transpose(2, 1, 0))


def _fill(stream: BinaryIO, buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled:])  # type: ignore[attr-defined]  # BinaryIO lacks what its classes have
        if not count:
            raise DataError(f"truncated: the voxels end early. {DAMAGED}")
        filled += count


def _header_to_write(volume: Volume) -> Any:
    grid, num_channels = volume.grid, volume.array.shape[0]
    shape: tuple[int, ...] = (*grid.shape_ijk, num_channels)
    if num_channels == 1:
        shape = grid.shape_ijk[: grid.extra.get(NUM_AXES, 3)]
    stored = grid.extra.get("nifti", {})
    is_nifti2 = stored.get("version") == 2 or max(shape) > _LONGEST_AXIS_OF_NIFTI1
    header = _HEADER_OF_SIZE[540 if is_nifti2 else 348](endianness="<")
    header.set_data_dtype(volume.array.dtype)
    header.set_data_shape(shape)
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    if not _restore_forms(header, grid):
        _make_forms(header, grid.affine_ijk)
    return header


def _restore_forms(header: Any, grid: Grid) -> bool:
    """Set the forms, codes and units that the grid carries; False if they do not give the grid's affine."""
    stored = grid.extra.get("nifti")
    if stored is None and grid.sform is None and grid.qform is None:
        return False
    unit_codes = {name: code for code, name in _UNITS.items()}
    header["xyzt_units"] = unit_codes[grid.units]
    _set_zooms(header, _lengths(grid.affine_ijk) / _MM_PER_UNIT[grid.units])
    if grid.sform is not None:
        header.set_sform(grid.sform, code=1)
    if stored is None and grid.qform is not None:
        header.set_qform(grid.qform, code=1)
    if stored is not None:  # these fields are the qform, sound or not
        header["xyzt_units"] = stored["xyzt_units"]
        header["pixdim"] = np.array(stored["pixdim"], dtype=np.float64)  # JSON has null for NaN
        for name, value in zip(_QUATERNION, np.array(stored["quaternion"], dtype=np.float64), strict=True):
            header[name] = value
    header["sform_code"], header["qform_code"] = grid.sform_code, grid.qform_code
    affine = np.diag([_MM_PER_UNIT[grid.units]] * 3 + [1.0]) @ header.get_best_affine()
    return bool(np.allclose(affine, grid.affine_ijk, rtol=1e-5, atol=1e-4 * _lengths(grid.affine_ijk).min()))


def _make_forms(header: Any, affine_mm: Affine) -> None:
    """Set sform and, unless the axes are sheared, qform to the affine, both with code 1 (scanner coordinates)."""
    header["xyzt_units"] = 2
    header.set_sform(affine_mm, code=1)
    try:
        header.set_qform(affine_mm, code=1, strip_shears=False)
    except HeaderDataError:
        header["qform_code"] = 0
        _set_zooms(header, _lengths(affine_mm))


def _set_zooms(header: Any, lengths: Affine) -> None:
    num_axes = len(header.get_zooms())
    header.set_zooms([*lengths, *header.get_zooms()[3:]][:num_axes])


def _lengths(affine: Affine) -> Affine:
    lengths: Affine = np.linalg.norm(affine[:3, :3], axis=0)
    return lengths
