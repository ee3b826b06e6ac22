import errno
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from voxelseg.errors import DataError, VoxelsegError
from voxelseg.geometry import Grid
from voxelseg.io import (
    FORMATS,
    channels_in_turn,
    files_of,
    is_image,
    read_channels,
    read_header,
    read_label,
    read_volume,
    strip_suffix,
    write_volume,
)
from voxelseg.volume import Volume

AFFINE = np.array([[-0.5, 0, 0, 9], [0, 0, 2.0, 8], [0, 3.0, 0, 7], [0, 0, 0, 1]])


def volume_of(values: object, *, dtype: str = "float32", affine: np.ndarray = AFFINE) -> Volume:
    """One channel of 2x2x2 voxels (file axes and canonical axes alike)."""
    grid = Grid(shape_ijk=(2, 2, 2), affine_ijk=affine)
    return Volume(np.array(values, dtype=dtype).reshape(1, 2, 2, 2), grid)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_keeps_voxels_and_grid_and_its_header_tells_what_reading_gives(tmp_path: Path, suffix: str):
    grid = Grid(shape_ijk=(4, 5, 6), affine_ijk=AFFINE)
    array = np.random.default_rng(0).integers(-9, 9, (2, *grid.shape_dhw), dtype=np.int16)
    path = tmp_path / "folder" / f"case_1{suffix}"
    write_volume(path, Volume(array, grid))
    volume, header = read_volume(str(path)), read_header(str(path))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine_ijk, AFFINE, atol=1e-6)
    assert volume.array.flags.c_contiguous
    assert volume.array.flags.writeable
    assert (header.num_channels, header.dtype, header.grid.shape_dhw) == (2, array.dtype, volume.shape_dhw)
    assert is_image(path)
    assert strip_suffix(path) == "case_1"


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_an_array_is_written_onto_the_grid_of_a_scan_of_any_other_format(tmp_path: Path, source: str, target: str):
    write_volume(tmp_path / f"scan{source}", volume_of(range(8)))
    grid = read_header(tmp_path / f"scan{source}").grid
    write_volume(tmp_path / f"label{target}", Volume(np.ones((1, *grid.shape_dhw), np.uint8), grid))
    assert read_header(tmp_path / f"label{target}").grid.differences(grid) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_files_of_a_scan_are_all_that_writing_makes(tmp_path: Path, suffix: str):
    write_volume(tmp_path / f"M\u00fcller 50%.1{suffix}", volume_of(range(8)))
    found = files_of(tmp_path / f"M\u00fcller 50%.1{suffix}")
    assert found[0].name.endswith(suffix)
    assert sorted(found) == sorted(tmp_path.iterdir())
    assert len(found) == (2 if suffix in {".mhd", ".nhdr"} else 1)


@pytest.mark.parametrize(
    "content", [None, b"", b"NRRD", b"NDims = 3\n", b"NRRD0004\ndata file: \0\n", b"ElementDataFile =\n"]
)
@pytest.mark.parametrize("name", ["scan.mhd", "scan.nhdr", "scan.nii", "scan.png"])
def test_a_missing_or_damaged_scan_consists_of_its_own_file(tmp_path: Path, name: str, content: bytes | None):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert files_of(str(tmp_path / name)) == (tmp_path / name,)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_slice_of_two_axes_is_written_with_two(tmp_path: Path, suffix: str):
    image = sitk.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4))
    image.SetSpacing((0.5, 2.0))
    image.SetOrigin((7.0, -8.0))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    volume = read_volume(tmp_path / f"scan{suffix}")
    write_volume(tmp_path / f"out{suffix}", volume)
    written = sitk.ReadImage(str(tmp_path / f"out{suffix}"))
    assert written.GetSize() == (4, 3)
    np.testing.assert_allclose(written.GetSpacing(), (0.5, 2.0))
    np.testing.assert_allclose(written.GetOrigin(), (7.0, -8.0))
    np.testing.assert_allclose(written.GetDirection(), (1, 0, 0, 1), atol=1e-7)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), np.arange(12).reshape(3, 4))
    assert read_header(tmp_path / f"out{suffix}").grid.differences(volume.grid, tolerance_voxels=1e-6) == []


def test_names_tell_images_from_other_files():
    assert strip_suffix("a/b.c/case.01.NII.GZ") == "case.01"
    assert strip_suffix(Path("scan.nhdr")) == "scan"
    assert is_image("SCAN.MHA")
    assert not is_image("scan.dcm")
    assert not is_image("._scan.nii.gz")
    assert not is_image(".partial-1234-scan.nii.gz")
    with pytest.raises(DataError, match=r"scan.dcm: no known image suffix, expected one of \.nii\.gz"):
        strip_suffix("scan.dcm")
    with pytest.raises(DataError, match="no known image suffix"):
        read_volume("scan.dcm")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("reader", [read_volume, read_header, read_label])
def test_missing_files_folders_and_empty_files_are_errors_of_every_format(tmp_path: Path, suffix: str, reader):
    with pytest.raises(DataError, match=r"file not found\. Check the path"):
        reader(tmp_path / f"missing{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(DataError, match="is a folder, expected an image file"):
        reader(tmp_path / f"folder{suffix}")
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    with pytest.raises(DataError, match=rf"empty{suffix}: the file is empty"):
        reader(tmp_path / f"empty{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
def test_forbidden_file_is_an_error_with_a_remedy(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch):
    write_volume(tmp_path / f"scan{suffix}", volume_of(range(8)))

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # the superuser may read every file
    with pytest.raises(DataError, match=r"no permission to read the file\. Change its access rights"):
        read_volume(tmp_path / f"scan{suffix}")


def test_channels_of_several_files_are_joined_in_order_on_the_first_grid(tmp_path: Path):
    write_volume(tmp_path / "t1.nii.gz", volume_of(range(8), dtype="int16"))
    write_volume(tmp_path / "t2.nii.gz", volume_of(np.arange(8) / 4))
    volume = read_channels([tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"])
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0].ravel(), np.arange(8))
    np.testing.assert_array_equal(volume.array[1].ravel(), np.arange(8) / 4)
    write_volume(tmp_path / "t3.nii.gz", volume_of(range(8), dtype="uint8"))
    assert read_channels([tmp_path / "t1.nii.gz", tmp_path / "t3.nii.gz"]).array.dtype == np.int16
    assert read_channels([tmp_path / "t3.nii.gz"]).array.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_channels_of_a_nifti_file_come_one_after_the_other(tmp_path: Path, suffix: str):
    grid = Grid(shape_ijk=(4, 5, 6), affine_ijk=AFFINE)
    array = np.random.default_rng(0).normal(size=(3, *grid.shape_dhw)).astype(np.float32)
    write_volume(tmp_path / f"scan{suffix}", Volume(array, grid))
    np.testing.assert_array_equal(list(channels_in_turn(tmp_path / f"scan{suffix}")), array)
    assert next(channels_in_turn(tmp_path / f"scan{suffix}")).shape == grid.shape_dhw


def test_channels_are_read_in_turn_from_nifti_only_and_damage_names_the_file(tmp_path: Path):
    grid = Grid(shape_ijk=(4, 5, 6), affine_ijk=AFFINE)
    array = np.random.default_rng(0).normal(size=(2, *grid.shape_dhw)).astype(np.float32)
    for suffix in (".nii", ".nii.gz", ".mha"):
        write_volume(tmp_path / f"scan{suffix}", Volume(array, grid))
    with pytest.raises(DataError, match=r"scan\.mha: expected a NIfTI file"):
        list(channels_in_turn(tmp_path / "scan.mha"))
    for suffix in (".nii", ".nii.gz"):
        content = (tmp_path / f"scan{suffix}").read_bytes()
        (tmp_path / f"scan{suffix}").write_bytes(content[: len(content) * 3 // 4])
        with pytest.raises(DataError, match=rf"scan\{suffix}: .*truncated"):
            list(channels_in_turn(tmp_path / f"scan{suffix}"))


def test_channels_may_be_stored_in_different_orientations(tmp_path: Path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-1.0, -2.0, 3.0, 1.0]))
    image.to_filename(tmp_path / "lps.nii")
    nib.as_closest_canonical(image).to_filename(tmp_path / "ras.nii")
    volume = read_channels([tmp_path / "lps.nii", tmp_path / "ras.nii"])
    np.testing.assert_array_equal(volume.array[0], volume.array[1])


def test_every_unreadable_or_displaced_channel_is_listed_at_once(tmp_path: Path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 1.0
    write_volume(tmp_path / "a.nii", volume_of(range(8)))
    write_volume(tmp_path / "b.nii", volume_of(range(8), affine=shifted))
    (tmp_path / "c.nii").write_bytes(b"")
    paths = [tmp_path / name for name in ("a.nii", "b.nii", "c.nii", "d.nii")]
    with pytest.raises(DataError) as caught:
        read_channels(paths)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "b.nii: does not lie on the grid of" in lines[0]
    assert "origin" in lines[0]
    assert "c.nii: the file is empty" in lines[1]
    assert "d.nii: file not found" in lines[2]
    with pytest.raises(DataError, match="no image file given"):
        read_channels([])


@pytest.mark.parametrize(
    ("stored", "highest", "expected"),
    [
        ("float32", 255.0004, "uint8"),
        ("int64", 255, "uint8"),
        ("uint16", 256, "uint16"),
        ("float64", 65535, "uint16"),
        ("int32", 65536, "int32"),
        ("uint32", 2**32 - 1, "int64"),
    ],
)
def test_label_maps_get_the_smallest_type_that_holds_them(tmp_path: Path, stored: str, highest: float, expected: str):
    write_volume(tmp_path / "label.nii", volume_of([0, 1, 2, 0, 0, 0, 0, highest], dtype=stored))
    label = read_label(tmp_path / "label.nii").array
    assert label.dtype == expected
    assert label.ravel().tolist() == [0, 1, 2, 0, 0, 0, 0, round(highest)]


def test_negative_labels_are_kept(tmp_path: Path):
    write_volume(tmp_path / "label.nii", volume_of([-1, 1, 2, 0, 0, 0, 0, 0], dtype="int32"))
    label = read_label(tmp_path / "label.nii").array
    assert label.dtype == np.int16
    assert label.min() == -1


@pytest.mark.parametrize("value", [0.5, 1.002, np.nan, np.inf])
def test_label_values_far_from_integers_are_an_error(tmp_path: Path, value: float):
    write_volume(tmp_path / "label.nii", volume_of([0, 1, 2, 0, 0, 0, 0, value]))
    with pytest.raises(DataError, match=r"label.nii: 1 voxels are no integers .*nearest-neighbour"):
        read_label(tmp_path / "label.nii")


def test_label_map_with_several_channels_or_values_beyond_64_bits_is_an_error(tmp_path: Path):
    two = Volume(np.zeros((2, 2, 2, 2), np.uint8), volume_of(range(8)).grid)
    write_volume(tmp_path / "two.nii", two)
    with pytest.raises(DataError, match="2 channels, expected a label map with one"):
        read_label(tmp_path / "two.nii")
    write_volume(tmp_path / "big.nii", volume_of([2**64 - 1] * 8, dtype="uint64"))
    with pytest.raises(DataError, match="Correct the label map"):
        read_label(tmp_path / "big.nii")
    write_volume(tmp_path / "huge.nii", volume_of([3e38] * 8))
    with pytest.raises(DataError, match="Correct the label map"):
        read_label(tmp_path / "huge.nii")


def test_booleans_and_half_precision_are_written_in_the_next_type_and_others_refused(tmp_path: Path):
    write_volume(tmp_path / "mask.nii", volume_of([0, 1] * 4, dtype="bool"))
    assert read_volume(tmp_path / "mask.nii").array.dtype == np.uint8
    write_volume(tmp_path / "half.mha", volume_of(np.arange(8) / 2, dtype="float16"))
    np.testing.assert_array_equal(read_volume(tmp_path / "half.mha").array.ravel(), np.arange(8) / 2)
    with pytest.raises(DataError, match=r"out\.nrrd: arrays of type complex64 cannot be written"):
        write_volume(tmp_path / "out.nrrd", volume_of(range(8), dtype="complex64"))
    with pytest.raises(DataError, match="no known image suffix"):
        write_volume(tmp_path / "out.png", volume_of(range(8)))


@pytest.mark.parametrize("suffix", FORMATS)
def test_failed_write_is_an_error_and_leaves_no_part_behind(tmp_path: Path, suffix: str):
    (tmp_path / f"out{suffix}").mkdir()
    with pytest.raises(VoxelsegError, match="cannot be written"):
        write_volume(tmp_path / f"out{suffix}", volume_of(range(8)))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_random_damage_never_raises_anything_but_data_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(3)
    for suffix in FORMATS:
        path = tmp_path / f"scan{suffix}"
        write_volume(path, volume_of(range(8), dtype="int16"))
        content = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(content[: rng.integers(1, len(content))] if rng.random() < 0.3 else content)
            for position in rng.integers(0, min(len(damaged), 352), rng.integers(1, 4)):
                damaged[position] = rng.integers(0, 256)
            path.write_bytes(damaged)
            for reader in (read_header, read_label):
                with suppress(DataError):
                    reader(path)
    assert capfd.readouterr() == ("", "")


def test_every_real_scan_is_read_or_refused_with_its_name(shared_data: Path):
    refused = {}
    for folder in ("nifti_nibabel", "nrrd_pyradiomics", "ivadomed_bids", "totalseg"):
        for path in sorted(filter(is_image, (shared_data / folder).rglob("*"))):
            try:
                volume = read_volume(path)
            except DataError as error:
                refused[path.name] = str(error)
                continue
            header = read_header(path)
            assert volume.array.shape == (header.num_channels, *header.grid.shape_dhw)
            assert volume.array.dtype == header.dtype
    assert set(refused) == {"rgb_test_file.nii.gz", "row_major.dconn.nii"}
    for name, message in refused.items():
        assert f"{name}: " in message


def test_real_msd_and_nnunet_cases_have_their_label_on_the_grid_of_the_image(shared_data: Path):
    for image, label in (
        ("la_mri/imagesTr/la_000.nii.gz", "la_mri/labelsTr/la_000.nii.gz"),
        (
            "Dataset015_BraTS/imagesTr/brats_2013_pat0001_1_0000.nii.gz",
            "Dataset015_BraTS/labelsTr/brats_2013_pat0001_1.nii.gz",
        ),
    ):
        grid = read_header(shared_data / image).grid
        assert grid.differences(read_label(shared_data / label).grid) == []
