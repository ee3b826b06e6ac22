import zlib
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.eulerangles import euler2mat

from voxelseg.errors import DataError
from voxelseg.geometry import Affine, Grid
from voxelseg.io import files_of, read_header, read_volume, write_volume
from voxelseg.volume import Volume

ITK_TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def oriented_affines() -> list[Affine]:
    """All 48 orientations, tilted, with spacing 0.5, 2, 3 mm along i, j, k."""
    affines = []
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = euler2mat(0.2, -0.1, 0.15) @ np.eye(3)[:, list(axes)] * signs * (0.5, 2.0, 3.0)
        affine[:3, 3] = (-12.5, 40.0, 1 / 3)
        affines.append(affine)
    return affines


def random_volume(affine: Affine, *, num_channels: int = 1, dtype: str = "int16") -> Volume:
    grid = Grid(shape_ijk=(4, 5, 6), affine_ijk=affine)
    values = np.random.default_rng(0).integers(0, 100, (num_channels, *grid.shape_dhw))
    return Volume(values.astype(dtype), grid)


def affine_in_simpleitk(image: sitk.Image) -> Affine:
    """Its voxel index to RAS+, asked point by point."""
    corner, *ends = (
        image.TransformIndexToPhysicalPoint(index) for index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    )
    lps = np.column_stack([*(np.subtract(end, corner) for end in ends), corner])
    return np.vstack([np.diag([-1.0, -1.0, 1.0]) @ lps, [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", oriented_affines())
def test_every_orientation_round_trips_and_lies_where_simpleitk_sees_it(tmp_path: Path, affine: Affine):
    volume = random_volume(affine)
    write_volume(tmp_path / "scan.mha", volume)
    again = read_volume(tmp_path / "scan.mha")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.grid.affine_ijk, affine, atol=1e-12)
    image = sitk.ReadImage(str(tmp_path / "scan.mha"))
    np.testing.assert_allclose(affine_in_simpleitk(image), affine, atol=1e-9)
    sitk.WriteImage(image, str(tmp_path / "itk.mha"))
    theirs = read_volume(tmp_path / "itk.mha")
    np.testing.assert_array_equal(theirs.array, volume.array)
    np.testing.assert_allclose(theirs.grid.affine_ijk, affine, atol=1e-9)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ITK_TYPES)
def test_what_simpleitk_writes_is_read_and_the_other_way_round(
    tmp_path: Path, dtype: str, suffix: str, compressed: bool
):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"itk{suffix}"), compressed)
    volume = read_volume(tmp_path / f"itk{suffix}")
    assert volume.array.dtype == ("float32" if dtype == "float64" else dtype)
    np.testing.assert_array_equal(volume.array[0], array[:, ::-1, ::-1])  # LPS
    write_volume(tmp_path / f"ours{suffix}", volume)
    image = sitk.ReadImage(str(tmp_path / f"ours{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_vector_components_are_channels(tmp_path: Path, suffix: str):
    volume = random_volume(oriented_affines()[5], num_channels=3, dtype="float32")
    path = tmp_path / f"scan{suffix}"
    write_volume(path, volume)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == read_header(path).num_channels == 3
    np.testing.assert_array_equal(read_volume(path).array, volume.array)
    sitk.WriteImage(image, str(tmp_path / f"itk{suffix}"))
    np.testing.assert_array_equal(read_volume(tmp_path / f"itk{suffix}").array, volume.array)


def test_fourth_axis_holds_channels_and_a_single_slice_is_a_volume(tmp_path: Path):
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 2.0, 3.0, 9.0))
    sitk.WriteImage(image, str(tmp_path / "four.mha"))
    volume = read_volume(tmp_path / "four.mha")
    np.testing.assert_array_equal(volume.array, array[:, :, ::-1, ::-1])  # LPS
    assert volume.spacing_mm == (3.0, 2.0, 0.5)
    sitk.WriteImage(sitk.GetImageFromArray(array[0, 0]), str(tmp_path / "two.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "two.mha").array[0, 0], array[0, 0, ::-1, ::-1])


def header_of(**changes: str) -> bytes:
    fields = {"ObjectType": "Image", "NDims": "3", "DimSize": "2 3 4", "ElementType": "MET_SHORT"}
    fields |= changes
    fields.setdefault("ElementDataFile", "LOCAL")
    fields["ElementDataFile"] = fields.pop("ElementDataFile")
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode()


def test_big_endian_bytes_four_byte_longs_and_skipped_bytes_agree_with_simpleitk(tmp_path: Path):
    values = np.arange(24, dtype=">i4")
    (tmp_path / "a.mha").write_bytes(
        header_of(ElementType="MET_LONG", BinaryDataByteOrderMSB="True", ElementSize="1 2 3", Position="4 5 6")
        + values.tobytes()
    )
    (tmp_path / "data.bin").write_bytes(b"skip me" + values.astype("<i2").tobytes())
    for size, name in (("7", "b"), ("-1", "c")):
        (tmp_path / f"{name}.mhd").write_bytes(header_of(HeaderSize=size, ElementDataFile="data.bin"))
    for name in ("a.mha", "b.mhd", "c.mhd"):
        volume = read_volume(tmp_path / name)
        image = sitk.ReadImage(str(tmp_path / name))
        np.testing.assert_array_equal(volume.array[0], np.arange(24).reshape(4, 3, 2)[:, ::-1, ::-1])
        np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image)[:, ::-1, ::-1])
        np.testing.assert_allclose(volume.grid.affine_ijk, affine_in_simpleitk(image))


def test_detached_data_are_written_beside_the_header(tmp_path: Path):
    write_volume(tmp_path / "case.1.mhd", random_volume(np.eye(4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.1.mhd", "case.1.zraw"]
    (tmp_path / "case.1.zraw").unlink()
    with pytest.raises(DataError, match=r"case.1.mhd: its data file .*case.1.zraw is missing"):
        read_volume(tmp_path / "case.1.mhd")
    assert read_header(tmp_path / "case.1.mhd").grid.shape_ijk == (4, 5, 6)


def test_sheared_affine_round_trips(tmp_path: Path):
    affine = oriented_affines()[0].copy()
    affine[0, 2] += 0.5
    write_volume(tmp_path / "scan.mha", random_volume(affine))
    np.testing.assert_allclose(read_header(tmp_path / "scan.mha").grid.affine_ijk, affine, atol=1e-12)


def test_damaged_files_are_silent_errors_that_name_file_and_remedy(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    voxels = np.random.default_rng(0).integers(0, 999, 24).astype("<i2").tobytes()
    packed = zlib.compress(voxels)
    whole = header_of(CompressedData="True") + packed
    (tmp_path / "whole.mha").write_bytes(whole)
    assert read_volume(tmp_path / "whole.mha").array.shape == (1, 4, 3, 2)
    flipped = bytearray(whole)
    flipped[-20] ^= 0xFF
    cases = {
        "empty": (b"", "the file is empty"),
        "text": (b"hello world\n" * 9, "not a MetaImage file"),
        "binary": (bytes(range(256)) * 9, "Copy or export the file again"),
        "header": (whole[:50], "ends inside the header"),
        "cut": (header_of() + voxels[:-1], "announces 48 bytes of voxels"),
        "cut_packed": (whole[:-10], "truncated"),
        "checksum": (whole[:-4] + bytes(4), "incorrect data check"),
        "flipped": (bytes(flipped), "damaged"),
        "fewer": (header_of(CompressedData="True") + zlib.compress(voxels[:-2]), "truncated"),
        "axes": (header_of(NDims="2") + voxels, "expected two to four axes"),
        "no_size": (header_of().replace(b"DimSize", b"Size") + voxels, "has no 'DimSize'"),
        "zero": (header_of(DimSize="2 0 4") + voxels, "has no voxels"),
        "number": (header_of(DimSize="2 x 4") + voxels, "header is damaged"),
        "matrix": (header_of(TransformMatrix="1 0 0 1") + voxels, "header is damaged"),
        "affine": (header_of(ElementSpacing="1 0 1") + voxels, "Repair the scan's header"),
        "type": (header_of(ElementType="MET_STRING") + voxels, "of type MET_STRING"),
        "as_text": (header_of(BinaryData="False") + voxels, "written as text"),
        "list": (header_of(ElementDataFile="LIST") + voxels, "spread over several files"),
        "components": (header_of(ElementNumberOfChannels="0") + voxels, "0 components"),
        "five": (header_of(NDims="4", DimSize="1 2 3 2", ElementNumberOfChannels="2") + voxels, "to its own file"),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / f"{name}.mha"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_volume(path)
        assert str(caught.value).startswith(f"{path}: "), name
        assert expected in str(caught.value), (name, str(caught.value))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["M\u00fcller", "list_3", "LIST 2", "50% d 3", "bad\udcff", "NoBreak\u00a0Space"])
def test_any_name_of_a_file_with_detached_data_is_read_again(tmp_path: Path, name: str):
    volume = random_volume(np.eye(4))
    write_volume(tmp_path / f"{name}.mhd", volume)
    np.testing.assert_array_equal(read_volume(tmp_path / f"{name}.mhd").array, volume.array)


@pytest.mark.parametrize("listed", ["LIST", "LIST 2", "slice%03d.raw 1 4 1", "slice%d.raw 1 4"])
def test_voxels_in_several_files_are_refused(tmp_path: Path, listed: str):
    (tmp_path / "scan.mhd").write_bytes(header_of(ElementDataFile=listed))
    with pytest.raises(DataError, match="spread over several files"):
        read_header(tmp_path / "scan.mhd")


def test_message_on_missing_data_of_any_name_can_be_printed(tmp_path: Path):
    (tmp_path / "scan.mhd").write_bytes(header_of(ElementDataFile="b\u00e4d").replace(b"\xc3\xa4", b"\xff"))
    with pytest.raises(DataError, match=r"its data file .*b\?d is missing") as caught:
        read_volume(tmp_path / "scan.mhd")
    str(caught.value).encode()


def test_files_of_a_scan_lie_where_its_header_says(tmp_path: Path):
    for data in ("data.raw", "folder/data.raw", str(tmp_path / "elsewhere" / "data.raw")):
        (tmp_path / "scan.mhd").write_bytes(header_of(ElementDataFile=data))
        assert files_of(tmp_path / "scan.mhd") == (tmp_path / "scan.mhd", tmp_path / data)
    (tmp_path / "scan.mha").write_bytes(header_of())
    assert files_of(tmp_path / "scan.mha") == (tmp_path / "scan.mha",)
