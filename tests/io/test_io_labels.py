import tracemalloc

import numpy as np
import pytest

from voxelseg.io.labels import Rounding, rounding_of, to_integers, values_of


def test_distance_from_whole_numbers_is_taken_over_all_planes():
    array = np.zeros((1, 2, 3, 4))
    array[0, 0, 0, :3] = (np.nan, np.inf, 2.5)
    array[0, 1, 2, :3] = (1.25, -0.5, 3.0005)
    found = rounding_of(array)
    assert (found.num_non_finite, found.num_off, found.furthest, found.off) == (2, 3, 0.5, (-0.5, 1.25, 2.5))
    assert found.examples == "-0.5, 1.25, 2.5"


def test_five_examples_are_named():
    assert rounding_of(np.arange(0.5, 7).reshape(1, 1, 7)).examples == "0.5, 1.5, 2.5, 3.5, 4.5, ..."


def test_integers_are_whole_numbers():
    assert rounding_of(np.ones((2, 3, 4), np.uint16)) == Rounding()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_values_are_found_in_every_plane_whatever_the_type(dtype):
    array = np.zeros((1, 3, 4, 5), dtype)
    array[0, 0, 1, 2], array[0, 2, 3, 4] = 7, np.iinfo(dtype).max
    assert values_of(array) == [0, 7, np.iinfo(dtype).max]
    array[0, 1, 1, 1] = np.iinfo(dtype).min
    assert values_of(array)[0] == np.iinfo(dtype).min


def test_rounding_real_numbers_takes_little_more_memory_than_the_result():
    array = np.full((64, 128, 128), 2.0004, np.float32)
    tracemalloc.start()
    try:
        assert rounding_of(array).num_off == 0
        rounded = to_integers(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rounded is not None
    assert (rounded.dtype, rounded.min(), rounded.max()) == (np.uint8, 2, 2)
    assert peak < rounded.nbytes + 2**20  # 1 MB of integers and some planes; a copy of the numbers would take 4 MB
