import numpy as np
import pytest

from voxelseg.pretrain.clusters.files import Clusterer, clusterer_path, read_clusterer, write_clusterer


def clusterer(index=1, slice_axis=0, length=160):
    centres = np.random.default_rng(0).normal(size=(4, length)).astype(np.float32)
    return Clusterer(index=index, seed=7, slice_axis=slice_axis, centres=centres, counts=np.array([5, 0, 2, 9]))


@pytest.fixture
def source(source_of):
    return source_of([])


def test_a_clusterer_comes_back_as_it_was(tmp_path, source):
    write_clusterer(tmp_path, clusterer())
    found = read_clusterer(tmp_path, 1, source)
    assert (found.index, found.seed, found.slice_axis) == (1, 7, 0)
    np.testing.assert_array_equal(found.centres, clusterer().centres)
    np.testing.assert_array_equal(found.counts, [5, 0, 2, 9])
    assert [path.name for path in tmp_path.iterdir()] == ["clusterer_0001.safetensors"]


def test_one_that_was_never_fitted_is_missing_without_a_word(tmp_path, source, caplog):
    assert read_clusterer(tmp_path, 0, source) is None
    assert not caplog.records


def test_a_flipped_bit_is_found_out(tmp_path, source, caplog):
    write_clusterer(tmp_path, clusterer())
    content = bytearray(clusterer_path(tmp_path, 1).read_bytes())
    content[-100] ^= 1
    clusterer_path(tmp_path, 1).write_bytes(content)
    assert read_clusterer(tmp_path, 1, source) is None
    assert "does not match its checksum; the clusterer is fitted again" in caplog.text


@pytest.mark.parametrize("keep", [0, 30, 900])
def test_a_cut_off_file_is_found_out(tmp_path, source, caplog, keep):
    write_clusterer(tmp_path, clusterer())
    content = clusterer_path(tmp_path, 1).read_bytes()
    clusterer_path(tmp_path, 1).write_bytes(content[:keep])
    assert read_clusterer(tmp_path, 1, source) is None
    assert "damaged" in caplog.text


@pytest.mark.parametrize("other", [clusterer(slice_axis=1), clusterer(length=200)])
def test_clusterers_of_other_slices_are_not_taken(tmp_path, source, caplog, other):
    write_clusterer(tmp_path, other)
    assert read_clusterer(tmp_path, 1, source) is None
    assert "belongs to other slices" in caplog.text


def test_a_renamed_file_is_not_taken_for_another_clusterer(tmp_path, source, caplog):
    write_clusterer(tmp_path, clusterer())
    clusterer_path(tmp_path, 1).rename(clusterer_path(tmp_path, 2))
    assert read_clusterer(tmp_path, 2, source) is None
    assert "belongs to other slices" in caplog.text
