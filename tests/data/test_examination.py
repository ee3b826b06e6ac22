import numpy as np
import pytest

from voxelseg.data.examination import _content_hash, _counts_and_centroids


@pytest.mark.parametrize("other", [2, 70_000, 2**40])  # the last two are too far apart for a table
def test_counts_and_centroids_of_label_values(other):
    label = np.zeros((2, 3, 4), np.int64)
    label[0, 1, 2] = label[1, 1, 3] = other
    label[1, 2, 0] = -3
    counts, centroids = _counts_and_centroids(label)
    assert counts == {0: 21, other: 2, -3: 1}
    assert centroids[other].tolist() == [0.5, 1.0, 2.5]
    assert centroids[-3].tolist() == [1.0, 2.0, 0.0]


def test_equal_voxels_have_equal_hashes_whatever_their_type_and_memory_order():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert _content_hash(array) == _content_hash(np.asfortranarray(array).astype(np.float32))
    assert _content_hash(array) != _content_hash(array.reshape(2, 4, 3))
    assert _content_hash(array) != _content_hash(array[::-1])
