import bz2
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat

from voxelseg.errors import DataError
from voxelseg.geometry import Affine, Grid
from voxelseg.io import files_of, read_header, read_volume, write_volume
from voxelseg.volume import Volume


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


@pytest.mark.parametrize("affine", oriented_affines())
def test_every_orientation_round_trips_and_lies_where_simpleitk_sees_it(tmp_path: Path, affine: Affine):
    volume = random_volume(affine)
    write_volume(tmp_path / "scan.nrrd", volume)
    again = read_volume(tmp_path / "scan.nrrd")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.grid.affine_ijk, affine, atol=1e-12)
    image = sitk.ReadImage(str(tmp_path / "scan.nrrd"))
    marked = np.argwhere(volume.array[0] == volume.array[0].max())[0]
    x, y, z = apply_affine(volume.grid.affine_dhw, marked)
    index = image.TransformPhysicalPointToIndex((-x, -y, z))
    assert image[index] == volume.array[0].max()


def test_file_written_by_simpleitk_is_read_with_its_coordinates(tmp_path: Path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.uint16).reshape(2, 3, 4))
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    volume = read_volume(tmp_path / "scan.nrrd")
    # LPS axes: H and W run against the file; voxel (0, 0, 0) of the file is the last one in H and W
    assert volume.array.dtype == np.uint16
    assert volume.array[0, 0, 2, 3] == 0
    np.testing.assert_allclose(apply_affine(volume.grid.affine_dhw, (0, 2, 3)), (-10.0, -20.0, 30.0))


def test_space_that_a_file_states_is_respected(tmp_path: Path):
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: {}\nsizes: 2 2 2\n"
        "space directions: (1,0,0) (0,2,0) (0,0,3)\nencoding: raw\nspace origin: (5,6,7)\n\n"
    )
    for space, x, y in (("right-anterior-superior", 5, 6), ("left-posterior-superior", -5, -6)):
        (tmp_path / "scan.nrrd").write_bytes(header.format(space).encode() + bytes(8))
        np.testing.assert_allclose(read_header(tmp_path / "scan.nrrd").grid.affine_ijk[:3, 3], (x, y, 7))


def test_detached_data_are_written_beside_the_header_and_read_back(tmp_path: Path):
    volume = random_volume(oriented_affines()[21])
    write_volume(tmp_path / "case.1.nhdr", volume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.1.nhdr", "case.1.raw.gz"]
    np.testing.assert_array_equal(read_volume(tmp_path / "case.1.nhdr").array, volume.array)
    (tmp_path / "case.1.raw.gz").unlink()
    with pytest.raises(DataError, match=r"case.1.nhdr: .*needs its data file beside it"):
        read_volume(tmp_path / "case.1.nhdr")


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_vector_components_are_channels(tmp_path: Path, suffix: str):
    volume = random_volume(oriented_affines()[5], num_channels=3, dtype="float32")
    write_volume(tmp_path / f"scan{suffix}", volume)
    assert sitk.ReadImage(str(tmp_path / f"scan{suffix}")).GetNumberOfComponentsPerPixel() == 3
    again = read_volume(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(again.array, volume.array)
    assert read_header(tmp_path / f"scan{suffix}").num_channels == 3
    assert again.array.flags.c_contiguous


def test_fourth_axis_holds_channels_and_a_single_slice_is_a_volume(tmp_path: Path):
    array = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "four.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "four.nrrd").array, array[:, :, ::-1, ::-1])  # LPS
    sitk.WriteImage(sitk.GetImageFromArray(array[0, 0]), str(tmp_path / "two.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nrrd").array[0, 0], array[0, 0, ::-1, ::-1])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"])
def test_every_type_keeps_its_values(tmp_path: Path, dtype: str):
    volume = random_volume(np.eye(4), dtype=dtype)
    write_volume(tmp_path / "scan.nrrd", volume)
    again = read_volume(tmp_path / "scan.nrrd").array
    assert again.dtype == read_header(tmp_path / "scan.nrrd").dtype == dtype
    np.testing.assert_array_equal(again, volume.array)


def test_sheared_affine_round_trips(tmp_path: Path):
    affine = oriented_affines()[0].copy()
    affine[0, 2] += 0.5
    write_volume(tmp_path / "scan.nrrd", random_volume(affine))
    np.testing.assert_allclose(read_header(tmp_path / "scan.nrrd").grid.affine_ijk, affine, atol=1e-12)


def test_equal_volumes_give_equal_bytes(tmp_path: Path):
    for name in ("a.nrrd", "b.nrrd"):
        write_volume(tmp_path / name, random_volume(np.eye(4)))
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()


def test_damaged_files_are_silent_errors_that_name_file_and_remedy(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    write_volume(tmp_path / "good.nrrd", random_volume(np.eye(4)))
    good = (tmp_path / "good.nrrd").read_bytes()
    cases = {
        "empty": (b"", "the file is empty"),
        "text": (b"hello world", "does not start with 'NRRD'"),
        "header": (good[:60], "truncated"),
        "cut": (good[:-30], "truncated"),
        "checksum": (good[:-8] + bytes(8), "damaged"),
        "size": (good.replace(b"sizes: 4 5 6", b"sizes: 4 5 0"), "Copy or export the file again"),
        "complex": (good.replace(b"encoding: gzip", b"encoding: zipp"), "Copy or export the file again"),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / f"{name}.nrrd"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_volume(path)
        assert str(caught.value).startswith(f"{path}: "), name
        assert expected in str(caught.value), name
    assert capfd.readouterr() == ("", "")


def test_complex_and_five_axes_are_errors(tmp_path: Path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((2, 3, 4, 2, 2), np.float32), isVector=False), str(tmp_path / "5.nrrd")
    )
    with pytest.raises(DataError, match="Save each volume to its own file"):
        read_header(tmp_path / "5.nrrd")


def test_real_image_and_mask_lie_on_one_grid_and_round_trip(tmp_path: Path, shared_data: Path):
    folder = shared_data / "nrrd_pyradiomics"
    for case in ("breast1_image", "prostate_phantom_subvolume"):
        image = read_volume(folder / f"{case}.nrrd")
        mask = case.replace("_image", "_label") if "_image" in case else f"{case}-label"
        assert image.grid.differences(read_header(folder / f"{mask}.nrrd").grid) == []
        write_volume(tmp_path / "out.nrrd", image)
        again = sitk.ReadImage(str(tmp_path / "out.nrrd"))
        original = sitk.ReadImage(str(folder / f"{case}.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(original))
        np.testing.assert_allclose(again.GetOrigin(), original.GetOrigin(), atol=1e-9)
        np.testing.assert_allclose(again.GetDirection(), original.GetDirection(), atol=1e-12)
        np.testing.assert_allclose(again.GetSpacing(), original.GetSpacing(), rtol=1e-12)


def header_of(*, encoding: str = "raw", dimension: int = 3, **changes: str) -> bytes:
    """A header of bytes 2 x 2 x 2 (x 2 ...) with 1, 2, 3 mm from (5, 6, 7); `changes` by name without spaces."""
    fields = {
        "type": "uchar",
        "dimension": str(dimension),
        "space": "left-posterior-superior",
        "sizes": " ".join(["2"] * dimension),
        "space directions": "(1,0,0) (0,2,0) (0,0,3)",
        "encoding": encoding,
        "space origin": "(5,6,7)",
        **{name.replace("_", " "): value for name, value in changes.items()},
    }
    return ("NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in fields.items() if value) + "\n").encode()


def write_in_space(path: Path, space: str) -> None:
    if space.lower().endswith(("time", "t")):
        axes = {"space_directions": "(1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)", "space_origin": "(5,6,7,0)"}
        path.write_bytes(header_of(dimension=4, space=space, kinds="space space space time", **axes) + bytes(16))
    else:
        path.write_bytes(header_of(space=space) + bytes(8))


@pytest.mark.parametrize(
    ("space", "x", "y"),
    [
        *[(space, 5, 6) for space in ("right-anterior-superior", "RAS", "Right Anterior Superior")],
        *[(space, -5, 6) for space in ("left-anterior-superior", "LAS")],
        *[(space, -5, -6) for space in ("left-posterior-superior", "LPS", "left-posterior-superior-time", "LPST")],
    ],
)
def test_anatomical_spaces_are_turned_to_ras(tmp_path: Path, space: str, x: float, y: float):
    write_in_space(tmp_path / "scan.nrrd", space)
    np.testing.assert_allclose(read_header(tmp_path / "scan.nrrd").grid.affine_ijk[:3, 3], (x, y, 7))


@pytest.mark.parametrize(
    "space",
    [
        *("right-anterior-superior-time", "RAST", "left-anterior-superior-time", "LAST"),
        *("scanner-xyz", "3D-right-handed", "3D-left-handed"),
    ],
)
def test_spaces_that_simpleitk_takes_for_lps_in_silence_are_refused(tmp_path: Path, space: str):
    write_in_space(tmp_path / "scan.nrrd", space)
    x, y, _ = sitk.ReadImage(str(tmp_path / "scan.nrrd")).GetOrigin()[:3]
    assert (x, y) == (5, 6)  # as if they were left and posterior
    with pytest.raises(DataError, match=f"are in the space '{space}', expected left-posterior-superior"):
        read_header(tmp_path / "scan.nrrd")


def test_without_a_space_coordinates_are_taken_as_simpleitk_does(tmp_path: Path):
    (tmp_path / "scan.nrrd").write_bytes(
        header_of(space="", space_directions="", space_origin="", spacings="1 2 3") + bytes(8)
    )
    np.testing.assert_allclose(read_header(tmp_path / "scan.nrrd").grid.affine_ijk, np.diag([-1.0, -2.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header_of(encoding="bzip2") + bz2.compress(bytes(8)), "compressed with bzip2, which is not read. Save"),
        (header_of(dimension=1, space="", space_directions="", space_origin="") + bytes(2), "one axis, expected two"),
        (
            header_of(dimension=4, space_directions="(1,0,0) (0,2,0) (0,0,3) (0,0,4)") + bytes(16),
            "more axes than its space",
        ),
    ],
    ids=["bzip2", "one axis", "no kinds"],
)
def test_sound_files_that_are_not_read_are_not_called_damaged(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "scan.nrrd").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_header(tmp_path / "scan.nrrd")
    assert "amaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("data file: data.raw", ["data.raw"]),
        ("datafile: ./folder/data.raw", ["folder/data.raw"]),
        ("DATA FILE: /elsewhere/data.raw", ["/elsewhere/data.raw"]),
        ("data file: slice%02d.raw 1 2 1", ["slice01.raw", "slice02.raw"]),
        ("data file: LIST\na.raw\nb.raw", ["a.raw", "b.raw"]),
        ("data file: LIST 2\na.raw\nb.raw", ["a.raw", "b.raw"]),
    ],
)
def test_files_of_a_scan_are_those_that_its_header_names(tmp_path: Path, named: str, names: list[str]):
    (tmp_path / "scan.nhdr").write_bytes(header_of().strip() + f"\n# remark\nkey:=data file: x\n{named}\n".encode())
    assert files_of(tmp_path / "scan.nhdr") == (tmp_path / "scan.nhdr", *(tmp_path / name for name in names))


def test_voxels_in_several_files_are_read(tmp_path: Path):
    for number in (1, 2):
        (tmp_path / f"slice{number}.raw").write_bytes(bytes([number] * 4))
    (tmp_path / "scan.nhdr").write_bytes(header_of().strip() + b"\ndata file: slice%d.raw 1 2 1\n")
    assert read_volume(tmp_path / "scan.nhdr").array[0, :, 0, 0].tolist() == [1, 2]
    assert [path.name for path in files_of(tmp_path / "scan.nhdr")] == ["scan.nhdr", "slice1.raw", "slice2.raw"]
