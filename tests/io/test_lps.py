import numpy as np

from voxelseg.io.lps import affine_from_lps, affine_to_lps


def test_left_and_posterior_become_negative_right_and_anterior():
    # file axes run left, superior, posterior with 2, 3, 4 mm, from (10, 20, 30) mm in LPS
    direction = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    affine = affine_from_lps(direction, (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    np.testing.assert_array_equal(affine, [[-2, 0, 0, -10], [0, 0, -4, -20], [0, 3, 0, 30], [0, 0, 0, 1]])
    np.testing.assert_array_equal(affine_to_lps(affine)[:3, 3], (10, 20, 30))


def test_missing_third_axis_runs_superior_and_the_fourth_is_left_out():
    two = affine_from_lps(np.eye(2), (2.0, 3.0), (10.0, 20.0))
    np.testing.assert_array_equal(two, [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 1, 0], [0, 0, 0, 1]])
    four = affine_from_lps(np.eye(4), (2.0, 3.0, 4.0, 9.0), (10.0, 20.0, 30.0, 40.0))
    np.testing.assert_array_equal(four, np.diag([-2.0, -3, 4, 1]) + np.outer([-10, -20, 30, 0], [0, 0, 0, 1]))
