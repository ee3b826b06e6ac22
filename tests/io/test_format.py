import errno
from pathlib import Path

import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.io.format import check_size, copy_voxels, naming, result_dtype


def test_integers_keep_their_type_unless_scaled_and_real_numbers_become_float32():
    assert result_dtype(np.dtype(">i2")) == np.int16
    assert result_dtype(np.dtype("i2"), scaled=True) == np.float32
    assert result_dtype(np.dtype("f8")) == np.float32
    with pytest.raises(DataError, match="complex64"):
        result_dtype(np.dtype("complex64"))
    with pytest.raises(DataError, match=r"colours \(RGB\)"):
        result_dtype(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))


def test_values_out_of_the_range_of_float32_become_infinite_without_a_warning():
    target = np.zeros(2, np.float32)
    copy_voxels(target, np.array([1e300, -1e300]))
    assert target.tolist() == [np.inf, -np.inf]


def test_size_that_a_file_cannot_hold_is_refused():
    check_size(1000, 1000, compressed=False)
    check_size(1032_000, 1000, compressed=True)
    with pytest.raises(DataError, match="room for 999 at most"):
        check_size(1000, 999, compressed=False)
    with pytest.raises(DataError, match="room for 1032 at most"):
        check_size(1033, 1, compressed=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("it is odd."), "scan.nii: it is odd."),
        (FileNotFoundError(errno.ENOENT, "No such file"), "scan.nii: file not found. Check the path"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "scan.nii: is a folder"),
        (PermissionError(errno.EACCES, "Permission denied"), "scan.nii: no permission"),
        (EOFError("ended early"), "scan.nii: the compressed data are truncated or damaged (ended early)"),
        (OSError(errno.EIO, "Input/output error"), "scan.nii: cannot be read (Input/output error)"),
    ],
)
def test_every_failure_to_read_becomes_a_data_error_that_names_the_file(error: Exception, expected: str):
    with pytest.raises(DataError) as caught, naming(Path("scan.nii")):
        raise error
    assert str(caught.value).startswith(expected)
