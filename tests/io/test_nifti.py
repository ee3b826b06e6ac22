import dataclasses
import gzip
import json
import struct
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.affines import apply_affine

from voxelseg.errors import DataError
from voxelseg.geometry import Affine, Grid
from voxelseg.io import read_header, read_label, read_volume, write_volume
from voxelseg.volume import Volume

TILT = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.1, 0.15), [-12.5, 40.0, 7.25])
FORM_FIELDS = (
    *("pixdim", "sform_code", "qform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def oriented_affines() -> list[Affine]:
    """All 48 orientations, tilted, with spacing 0.5, 2, 3 mm along i, j, k."""
    affines = []
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        step = np.eye(4)
        step[:3, :3] = np.eye(3)[:, list(axes)] * signs * (0.5, 2.0, 3.0)
        affines.append(TILT @ step)
    return affines


def make(path: Path, array_ijk: np.ndarray, affine: Affine | None = None, *, cls=nib.Nifti1Image) -> nib.Nifti1Image:
    image = cls(array_ijk, TILT if affine is None else affine)
    image.to_filename(path)
    return nib.load(path)


def assert_same_forms(original: Path, written: Path) -> None:
    before, after = nib.load(original).header, nib.load(written).header
    assert type(before) is type(after)
    for name in FORM_FIELDS:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@pytest.mark.parametrize("affine", oriented_affines())
def test_every_orientation_is_restored_bit_for_bit(tmp_path: Path, affine: Affine):
    array = np.random.default_rng(0).integers(-500, 500, (4, 5, 6), dtype=np.int16)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=4)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert (np.diag((volume.grid.affine_dhw[:3, :3] / volume.spacing_mm)[::-1]) > 0.9).all()
    write_volume(tmp_path / "out.nii", volume)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj), array)
    assert_same_forms(tmp_path / "scan.nii", tmp_path / "out.nii")


@pytest.mark.parametrize("affine", oriented_affines()[::5])
def test_marked_voxel_has_the_world_coordinates_of_nibabel_and_simpleitk(tmp_path: Path, affine: Affine):
    array = np.zeros((4, 5, 6), np.uint8)
    array[3, 1, 2] = 1
    make(tmp_path / "scan.nii.gz", array, affine)
    volume = read_volume(tmp_path / "scan.nii.gz")
    world = apply_affine(volume.grid.affine_dhw, np.argwhere(volume.array[0])[0])
    np.testing.assert_allclose(world, apply_affine(nib.load(tmp_path / "scan.nii.gz").affine, (3, 1, 2)), atol=1e-4)
    x, y, z = sitk.ReadImage(str(tmp_path / "scan.nii.gz")).TransformIndexToPhysicalPoint((3, 1, 2))
    np.testing.assert_allclose(world, (-x, -y, z), atol=1e-4)


def test_canonical_array_agrees_with_nibabels_closest_canonical(tmp_path: Path):
    array = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    image = make(tmp_path / "scan.nii", array, oriented_affines()[29])
    expected = nib.as_closest_canonical(image)
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.array[0], expected.get_fdata(dtype=np.float32).T)
    np.testing.assert_allclose(volume.grid.affine_dhw[:, [2, 1, 0, 3]], expected.affine, atol=1e-5)
    assert volume.array.flags.c_contiguous


def test_sheared_affine_is_read_and_restored(tmp_path: Path):
    affine = TILT.copy()
    affine[0, 2] += 0.4
    make(tmp_path / "scan.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_allclose(volume.grid.affine_ijk, affine, atol=1e-6)
    write_volume(tmp_path / "out.nii", volume)
    assert_same_forms(tmp_path / "scan.nii", tmp_path / "out.nii")


def test_nifti2_stays_nifti2(tmp_path: Path):
    affine = TILT.copy()
    affine[0, 3] = 1 / 3  # needs double precision
    make(tmp_path / "scan.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine, cls=nib.Nifti2Image)
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert volume.grid.affine_ijk[0, 3] == 1 / 3
    write_volume(tmp_path / "out.nii.gz", volume)
    assert isinstance(nib.load(tmp_path / "out.nii.gz"), nib.Nifti2Image)
    assert_same_forms(tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz")


def test_axis_too_long_for_nifti1_becomes_nifti2(tmp_path: Path):
    grid = Grid(shape_ijk=(40_000, 1, 2), affine_ijk=np.eye(4))
    write_volume(tmp_path / "out.nii", Volume(np.ones((1, *grid.shape_dhw), np.uint8), grid))
    assert nib.load(tmp_path / "out.nii").shape == (40_000, 1, 2)


def test_channels_are_the_fourth_axis_in_the_file_and_the_first_in_memory(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 99, (3, 4, 5, 2), dtype=np.uint8)
    make(tmp_path / "scan.nii", array, np.diag([1.0, 2.0, 3.0, 1.0]))
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.array.shape == (2, 5, 4, 3)
    np.testing.assert_array_equal(volume.array, array.transpose(3, 2, 1, 0))
    write_volume(tmp_path / "out.nii", volume)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj), array)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 4), (1, 1, 4, 3)), ((3,), (1, 1, 1, 3)), ((3, 4, 5, 1), (1, 5, 4, 3)), ((3, 4, 5, 2, 1, 1), (2, 5, 4, 3))],
)
def test_missing_axes_are_filled_and_trailing_ones_dropped(tmp_path: Path, shape, expected):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    make(tmp_path / "scan.nii", array, np.eye(4))
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.array.shape == expected
    np.testing.assert_array_equal(volume.array.ravel(), array.ravel(order="F"))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", ">u2", "<u4", ">i4", "<i8", "<u8", ">f4", "<f4"])
def test_stored_type_is_kept_in_native_byte_order(tmp_path: Path, dtype: str):
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    nib.Nifti1Image(array, np.eye(4), header).to_filename(tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array[0], array.T)


def test_float64_becomes_float32_and_values_out_of_range_infinite(tmp_path: Path):
    make(tmp_path / "scan.nii", np.array([[[0.1, 1e300, np.nan]]]), np.eye(4))
    assert read_header(tmp_path / "scan.nii").dtype == np.float32
    np.testing.assert_array_equal(
        read_volume(tmp_path / "scan.nii").array.ravel(), np.array([0.1, np.inf, np.nan], np.float32)
    )


def with_scaling(path: Path, slope: float, inter: float) -> None:
    make(path, np.arange(6, dtype=np.int16).reshape(1, 2, 3), np.eye(4))
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", slope, inter)  # scl_slope, scl_inter
    path.write_bytes(content)


def test_scaling_is_applied_exactly_once_and_never_written(tmp_path: Path):
    with_scaling(tmp_path / "scan.nii", 0.5, -1024.0)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.array.dtype == read_header(tmp_path / "scan.nii").dtype == np.float32
    # file order is i fastest: stored values 0, 3, 1, 4, 2, 5
    assert volume.array.ravel().tolist() == [-1024.0, -1022.5, -1023.5, -1022.0, -1023.0, -1021.5]
    write_volume(tmp_path / "out.nii", volume)
    header = nib.load(tmp_path / "out.nii").dataobj
    assert (header.slope, header.inter) == (1.0, 0.0)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii").array, volume.array)


@pytest.mark.parametrize("slope", [0.0, np.nan, 1.0])
def test_absent_and_trivial_scaling_keep_the_stored_integers(tmp_path: Path, slope: float):
    with_scaling(tmp_path / "scan.nii", slope, 0.0)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.array.dtype == np.int16
    assert volume.array.max() == 5


def test_infinite_intercept_is_an_error(tmp_path: Path):
    with_scaling(tmp_path / "scan.nii", 2.0, np.inf)
    with pytest.raises(DataError, match=r"scan.nii: the NIfTI header is damaged"):
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize(("units", "mm"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_units_are_converted_to_millimetres_and_written_back(tmp_path: Path, units: str, mm: float):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units(units, "msec")
    image.to_filename(tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.spacing_mm == pytest.approx((3 * mm, 2 * mm, 1 * mm))
    write_volume(tmp_path / "out.nii", volume)
    assert_same_forms(tmp_path / "scan.nii", tmp_path / "out.nii")


def test_sform_is_preferred_then_qform_then_pixdim_as_in_nibabel(tmp_path: Path):
    sform, qform = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([-3.0, 3.0, 3.0, 1.0])
    for sform_code, qform_code in ((2, 1), (0, 1), (2, 0), (0, 0)):
        image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
        image.set_sform(sform, code=sform_code)
        image.set_qform(qform, code=qform_code)
        image.to_filename(tmp_path / "scan.nii")
        grid = read_header(tmp_path / "scan.nii").grid
        np.testing.assert_array_equal(grid.affine_ijk, nib.load(tmp_path / "scan.nii").affine)
        assert (grid.sform_code, grid.qform_code) == (sform_code, qform_code)
        assert (grid.sform is None, grid.qform is None) == (sform_code == 0, qform_code == 0)
        write_volume(tmp_path / "out.nii", read_volume(tmp_path / "scan.nii"))
        np.testing.assert_array_equal(
            nib.load(tmp_path / "scan.nii").header["pixdim"], nib.load(tmp_path / "out.nii").header["pixdim"]
        )
        np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").affine, grid.affine_ijk)
        again = read_header(tmp_path / "out.nii").grid
        assert (again.sform_code, again.qform_code) == (sform_code, qform_code)


def test_damaged_qform_beside_a_good_sform_is_kept_but_not_used(tmp_path: Path):
    make(tmp_path / "scan.nii", np.zeros((2, 3, 4), np.uint8))
    content = bytearray(tmp_path.joinpath("scan.nii").read_bytes())
    content[252:254] = struct.pack("<h", 1)  # qform_code
    content[256:268] = struct.pack("<fff", 2.0, 2.0, 2.0)  # a quaternion longer than 1
    (tmp_path / "scan.nii").write_bytes(content)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.grid.qform is None
    assert volume.grid.qform_code == 1
    write_volume(tmp_path / "out.nii", volume)
    assert_same_forms(tmp_path / "scan.nii", tmp_path / "out.nii")


def test_label_map_written_on_a_grid_that_went_through_json_has_the_scans_exact_geometry(tmp_path: Path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.float32), None)
    image.set_sform(oriented_affines()[13], code=3)
    image.set_qform(oriented_affines()[13], code=2)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "scan.nii.gz")
    grid = Grid.from_dict(json.loads(json.dumps(read_header(tmp_path / "scan.nii.gz").grid.to_dict())))
    write_volume(tmp_path / "label.nii.gz", Volume(np.ones((1, *grid.shape_dhw), np.uint8), grid))
    label = nib.load(tmp_path / "label.nii.gz")
    assert label.shape == (2, 3, 4)
    assert label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(label.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert_same_forms(tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz")


@pytest.mark.parametrize("sheared", [False, True])
def test_grid_of_another_format_gets_a_sform_and_where_possible_a_qform(tmp_path: Path, sheared: bool):
    affine = oriented_affines()[31].copy()
    affine[0, 2] += 0.5 if sheared else 0.0
    grid = Grid(shape_ijk=(2, 3, 4), affine_ijk=affine)
    write_volume(tmp_path / "out.nii", Volume(np.zeros((3, *grid.shape_dhw), np.uint8), grid))
    header = nib.load(tmp_path / "out.nii").header
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0 if sheared else 1)
    np.testing.assert_allclose(header.get_zooms()[:3], np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"
    if not sheared:
        np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)


def test_forms_given_without_a_file_are_written_with_their_codes(tmp_path: Path):
    affine = oriented_affines()[7]
    grid = Grid(shape_ijk=(2, 3, 4), affine_ijk=affine, qform=affine, qform_code=3)
    write_volume(tmp_path / "out.nii", Volume(np.zeros((1, *grid.shape_dhw), np.uint8), grid))
    header = nib.load(tmp_path / "out.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 3)
    np.testing.assert_allclose(header.get_best_affine(), affine, atol=1e-5)


def test_affine_of_the_grid_wins_over_forms_that_contradict_it(tmp_path: Path):
    make(tmp_path / "scan.nii", np.zeros((2, 3, 4), np.uint8))
    stored = read_header(tmp_path / "scan.nii").grid
    affine = stored.affine_ijk.copy()
    affine[0, 3] += 5.0
    moved = dataclasses.replace(stored, affine_ijk=affine)
    write_volume(tmp_path / "out.nii", Volume(np.zeros((1, *moved.shape_dhw), np.uint8), moved))
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, moved.affine_ijk, atol=1e-5)


def test_equal_volumes_give_equal_bytes_whatever_the_name_and_time(tmp_path: Path):
    grid = Grid(shape_ijk=(2, 3, 4), affine_ijk=TILT)
    volume = Volume(np.ones((1, *grid.shape_dhw), np.uint8), grid)
    write_volume(tmp_path / "a.nii.gz", volume)
    write_volume(tmp_path / "b.nii.gz", volume)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "b.nii.gz").read_bytes()
    assert content[4:8] == bytes(4)  # gzip's time stamp


def test_reading_a_compressed_scan_takes_little_more_memory_than_its_array(tmp_path: Path):
    grid = Grid(shape_ijk=(200, 300, 120), affine_ijk=np.diag([-1.0, -1.0, 2.0, 1.0]))
    write_volume(tmp_path / "scan.nii.gz", Volume(np.zeros((1, *grid.shape_dhw), np.int16), grid))
    tracemalloc.start()
    try:
        array = read_volume(tmp_path / "scan.nii.gz").array
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes + 6 * 2**20  # 14 MB of voxels, one slab and gzip's buffers


def test_damaged_and_foreign_files_are_errors_that_name_file_and_remedy(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 999, (9, 8, 7), dtype=np.int16)
    make(tmp_path / "good.nii", array)
    plain = (tmp_path / "good.nii").read_bytes()
    packed = gzip.compress(plain, mtime=0)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    bad_checksum = packed[:-8] + bytes(4) + packed[-4:]
    cases = {
        "empty.nii": (b"", "the file is empty"),
        "text.nii": (b"hello world " * 60, "not a NIfTI file"),
        "short.nii": (plain[:200], "after 200 of 348 bytes"),
        "cut.nii": (plain[:-1], "truncated or its header is damaged"),
        "empty.nii.gz": (b"", "the file is empty"),
        "cut.nii.gz": (packed[: len(packed) // 2], "truncated or damaged"),
        "no_trailer.nii.gz": (packed[:-8], "truncated or damaged"),
        "flipped.nii.gz": (bytes(flipped), "Copy or export the file again"),
        "checksum.nii.gz": (bad_checksum, "CRC check failed"),
        "early.nii.gz": (gzip.compress(plain[:-99]), "the voxels end early"),
        "plain.nii.gz": (plain, "Rename it to end with .nii,"),
        "packed.nii": (packed, "Rename it to end with .nii.gz"),
        "pair.nii": (plain[:344] + b"ni1\0" + plain[348:], "Convert it to .nii.gz"),
        "analyze.nii": (plain[:344] + bytes(4) + plain[348:], "ANALYZE, not NIfTI"),
        "huge.nii": (plain[:42] + struct.pack("<3h", 32000, 32000, 32000) + plain[48:], "room for"),
        "no_voxels.nii": (plain[:42] + struct.pack("<h", 0) + plain[44:], "has no voxels"),
        "type.nii": (plain[:70] + struct.pack("<h", 7777) + plain[72:], "header is damaged"),
        "offset.nii": (plain[:108] + struct.pack("<f", np.inf) + plain[112:], "at byte inf"),
        "affine.nii": (plain[:280] + bytes(48) + plain[328:], "Repair the scan's header"),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_volume(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: "), name
        assert expected in str(caught.value), name


def test_colours_complex_numbers_and_five_axes_are_errors_that_say_what_to_do(tmp_path: Path):
    colours = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    make(tmp_path / "rgb.nii", colours)
    make(tmp_path / "complex.nii", np.zeros((2, 3, 4), np.complex64))
    make(tmp_path / "five.nii", np.zeros((2, 3, 4, 1, 3), np.float32))
    for name, expected in {
        "rgb": r"colours \(RGB\).*Convert the image to grey values",
        "complex": "complex64",
        "five": "Save each volume to its own file",
    }.items():
        with pytest.raises(DataError, match=rf"{name}.nii: .*{expected}"):
            read_header(tmp_path / f"{name}.nii")


def test_header_that_nibabel_mends_is_read_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    make(tmp_path / "scan.nii", np.zeros((2, 3, 4), np.uint8))
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[76:84] = struct.pack("<ff", 7.0, -1.0)  # qfac and pixdim[1] are impossible
    content[254:256] = struct.pack("<h", 99)  # so is the sform code
    (tmp_path / "scan.nii").write_bytes(content)
    read_volume(tmp_path / "scan.nii")
    assert capfd.readouterr() == ("", "")


def test_real_scans_are_restored_bit_for_bit(tmp_path: Path, shared_data: Path):
    names = [
        *("nifti_nibabel/anatomical.nii", "nifti_nibabel/example_nifti2.nii.gz", "nifti_nibabel/standard.nii.gz"),
        *("nifti_nibabel/reoriented_anat_moved.nii", "totalseg/example_mr_sm.nii.gz", "totalseg/example_seg.nii.gz"),
        *("ivadomed_bids/sub-unf02/anat/sub-unf02_T2star.nii.gz", "nifti_nibabel/functional.nii"),
    ]
    for name in names:
        volume = read_volume(shared_data / name)
        write_volume(tmp_path / "out.nii", volume)
        image, written = nib.load(shared_data / name), nib.load(tmp_path / "out.nii")
        assert_same_forms(shared_data / name, tmp_path / "out.nii")
        np.testing.assert_array_equal(image.affine, written.affine)
        np.testing.assert_allclose(np.asarray(written.dataobj), np.asarray(image.dataobj), rtol=1e-6)


def test_real_label_map_stored_as_float_becomes_integers(shared_data: Path):
    path = shared_data / "ivadomed_bids/derivatives/labels/sub-unf01/anat/sub-unf01_T1w_seg-manual.nii.gz"
    assert read_header(path).dtype == np.float32
    label = read_label(path)
    assert label.array.dtype == np.uint8
    assert set(np.unique(label.array)) <= {0, 1}


@pytest.mark.parametrize(("offset", "value"), [(256, np.nan), (80, np.nan), (256, 7.0)], ids=["nan", "pixdim", "long"])
def test_damaged_qform_beside_a_sound_sform_is_restored_as_it_was(tmp_path: Path, offset: int, value: float):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), TILT)
    image.set_qform(TILT, code=1)
    image.set_sform(TILT, code=2)
    image.to_filename(tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[offset : offset + 4] = struct.pack("<f", value)  # quatern_b or pixdim[1]
    (tmp_path / "scan.nii").write_bytes(content)
    volume = read_volume(tmp_path / "scan.nii")
    assert (volume.grid.qform, volume.grid.qform_code) == (None, 1)
    np.testing.assert_allclose(volume.grid.affine_ijk, TILT, atol=1e-5)
    write_volume(tmp_path / "out.nii", volume)
    assert_same_forms(tmp_path / "scan.nii", tmp_path / "out.nii")


def test_damaged_qform_without_a_sform_is_an_error(tmp_path: Path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    image.set_qform(TILT, code=1)
    image.to_filename(tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[256:260] = struct.pack("<f", np.nan)
    (tmp_path / "scan.nii").write_bytes(content)
    with pytest.raises(DataError, match="qform is damaged and there is no sform"):
        read_header(tmp_path / "scan.nii")


@pytest.mark.parametrize("shape", [(3,), (3, 4)])
@pytest.mark.parametrize("forms", [(0, 0), (1, 0), (0, 1), (2, 1)])
def test_missing_axes_stay_missing_when_written(tmp_path: Path, shape: tuple[int, ...], forms: tuple[int, int]):
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), None)
    image.set_sform(TILT if forms[0] else None, code=forms[0])
    image.set_qform(TILT if forms[1] else None, code=forms[1])
    image.to_filename(tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    label = Volume(np.ones(volume.array.shape, np.uint8), volume.grid)
    write_volume(tmp_path / "label.nii.gz", label)
    assert nib.load(tmp_path / "label.nii.gz").shape == shape
    assert_same_forms(tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "label.nii.gz").array, label.array)
