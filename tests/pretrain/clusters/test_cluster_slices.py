import numpy as np
import pytest
import torch

from voxelseg.errors import DataError
from voxelseg.pretrain.clusters.slices import constant_slices, draw_slices, slices_of


@pytest.mark.parametrize(("slice_axis", "length"), [(0, 2 * 4 * 5), (1, 2 * 3 * 5), (2, 2 * 3 * 4)])
def test_a_row_is_a_slice_of_all_channels(slice_axis, length):
    image = torch.arange(2 * 2 * 3 * 4 * 5.0).reshape(2, 2, 3, 4, 5)
    rows = slices_of(image, slice_axis)
    assert rows.shape == (2, image.shape[2 + slice_axis], length)
    assert torch.equal(rows[1, 2], image[1].select(1 + slice_axis, 2).flatten())


def test_constant_slices_have_one_value_in_each_channel():
    rows = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])
    assert constant_slices(rows, 2).tolist() == [True, True, False]
    assert constant_slices(rows, 1).tolist() == [True, False, False]


def test_slices_are_those_of_a_share_of_the_scans(scans, source_of):
    # 0.3 of 5 scans is 1.5, so two crops of 6 slices; 6 different ones suffice
    sample = draw_slices(source_of(scans), np.random.default_rng(0), least=6)
    assert sample.rows.shape == (12, 2 * 8 * 10)
    assert sample.rows.dtype == np.float32
    assert (sample.num_different, sample.num_constant) == (12, 0)


def test_more_scans_are_read_where_slices_are_too_few(scans, source_of):
    assert len(draw_slices(source_of(scans), np.random.default_rng(0), least=13).rows) == 18
    assert len(draw_slices(source_of(scans), np.random.default_rng(0), least=99).rows) == 30  # all there are


def test_several_crops_of_a_scan_differ(scans, source_of):
    sample = draw_slices(source_of(scans[:1], crops_per_scan=4, slice_axis=2), np.random.default_rng(0), least=12)
    assert len(sample.rows) == 40
    assert sample.num_different > 12


def test_no_more_than_most_slices_are_read(scans, source_of):
    assert (
        len(draw_slices(source_of(scans, most_slices=15, scan_share=1), np.random.default_rng(0), least=6).rows) == 15
    )


def test_constant_slices_are_left_out_on_request_and_others_read_instead(store_scan, source_of):
    air = np.zeros((1, 6, 8, 10))
    half = air.copy()
    half[:, 3:] = np.random.default_rng(0).normal(size=(3, 8, 10))
    scans = [store_scan(f"scan_{number}", half + number) for number in range(3)]
    source = source_of(scans, num_channels=1, skip_constant=True)
    sample = draw_slices(source, np.random.default_rng(0), least=6)
    assert (len(sample.rows), sample.num_different, sample.num_constant) == (6, 6, 6)  # 3 of 6 slices of two scans
    kept = draw_slices(source_of(scans, num_channels=1), np.random.default_rng(0), least=6)
    assert (len(kept.rows), kept.num_different) == (12, 8)  # constant slices of one scan are alike


def test_scans_are_read_again_where_all_of_them_give_too_few(scans, source_of):
    source = source_of(scans, crops_per_scan=None)
    sample = draw_slices(source, np.random.default_rng(0), least=33)
    assert sample.num_different >= 33
    assert len(sample.rows) > 30
    assert len(sample.rows) % 6 == 0
    assert len(draw_slices(source, np.random.default_rng(0), least=6).rows) == 12  # otherwise once


def test_what_is_read_beyond_what_was_expected_is_kept(store_scan, source_of):
    twin = np.random.default_rng(0).normal(size=(2, 6, 8, 10))
    source = source_of([store_scan(f"scan_{number}", twin) for number in range(3)], crops_per_scan=None)
    assert source.expected_slices(7) == 13  # 7 and another crop, but only 6 slices differ
    sample = draw_slices(source, np.random.default_rng(0), least=7)
    assert (len(sample.rows), sample.num_different) == (3 * 6 * 20, 6)
    expected = slices_of(torch.from_numpy(twin.astype(np.float32))[None], 0)[0]
    np.testing.assert_array_equal(sample.rows.reshape(60, 6, -1), np.broadcast_to(expected, (60, 6, 160)))


def test_too_few_slices_are_told_before_anything_is_read(source_of, scans):
    source_of(scans).check(15)  # 15 clusters x 2 of 5 x 6 slices
    with pytest.raises(DataError, match=r"16 clusters needs 32 different slices, 2 for each.*5 scan.s. give 30"):
        source_of(scans).check(16)
    source_of(scans, fewer_clusters=True).check(16)


def test_the_remedy_names_the_values_to_set(source_of, scans):
    text = source_of(scans, crops_per_scan=2).too_few(40, found=60, constant=0)
    assert "2 crop(s) of 6 x 8 x 10 voxels from each of 5 scan(s) give 60." in text
    assert "masked_clusters.fewer_clusters=true, or masked_clusters.most_clusters=30, or a larger" in text
    assert text.endswith("masked_clusters.crops_per_scan where scans are larger than a crop.")
    lower = source_of(scans, crops_per_scan=None).too_few(6, found=4, constant=8)
    assert "up to 20 crop(s)" in lower
    assert "give 4, besides 8 that are constant and left out." in lower
    assert lower.endswith("most_clusters=2 and a lower least_clusters.")


def test_memory_is_that_of_the_slices(source_of, scans):
    # Slices of 160 float32 numbers: 6 clusters need two scans' 12, and a third scan may be read; or five scans' 30
    assert source_of(scans).expected_bytes() == 18 * 160 * 4
    assert source_of(scans, scan_share=1).expected_bytes() == 30 * 160 * 4
    assert source_of(scans, scan_share=1, most_slices=13).expected_bytes() == 13 * 160 * 4


@pytest.mark.parametrize(("num_scans", "expected"), [(1, 1), (24, 3), (70, 7), (71, 8)])
def test_a_share_of_the_scans_is_rounded_up(source_of, num_scans, expected):
    assert source_of([None] * num_scans, scan_share=0.1).num_shared_scans() == expected
