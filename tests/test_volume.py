import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.geometry import Grid
from voxelseg.volume import Volume

GRID = Grid(shape_ijk=(5, 6, 7), affine_ijk=np.diag([0.5, 2.0, 3.0, 1.0]))


def test_shape_and_spacing_are_in_d_h_w_order():
    volume = Volume(np.zeros((2, 7, 6, 5)), GRID)
    assert volume.shape_dhw == (7, 6, 5)
    assert volume.spacing_mm == (3.0, 2.0, 0.5)


@pytest.mark.parametrize("shape", [(1, 5, 6, 7), (7, 6, 5), (1, 1, 7, 6, 5)])
def test_array_in_another_axis_order_than_its_grid_is_an_error(shape: tuple[int, ...]):
    with pytest.raises(DataError, match=r"does not fit its grid: expected \(C, D, H, W\)"):
        Volume(np.zeros(shape), GRID)
