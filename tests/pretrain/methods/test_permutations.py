import numpy as np
import pytest

from voxelseg.pretrain.methods.permutations import AFFINE, MOST_ORDERS, PROJECTIVE, TRANSLATIONS, _generated, far_orders


def least_distance(orders):
    distances = (orders[:, None] != orders).sum(-1)
    return distances[~np.eye(len(orders), dtype=bool)].min()


@pytest.mark.parametrize(
    ("number", "places"),
    [(2, 8), (8, 8), (9, 7), (56, 7), (57, 6), (100, 6), (336, 6)],  # 8! / 7!, 8! / 6!, 8! / 5! orders at most
)
def test_orders_differ_in_as_many_places_as_so_many_can(number, places):
    orders = far_orders(number, np.random.default_rng(0))
    assert orders.shape == (number, 8)
    assert (np.sort(orders, axis=1) == np.arange(8)).all()
    assert least_distance(orders) >= places


def test_the_generator_draws_the_orders():
    first, again, other = (far_orders(100, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert set(map(tuple, first.tolist())) != set(map(tuple, other.tolist()))


def test_the_groups_have_as_many_orders_as_there_can_be():
    assert [len(_generated(group)) for group in (TRANSLATIONS, AFFINE, PROJECTIVE)] == [8, 56, MOST_ORDERS]


def test_multiplication_is_that_of_the_field_of_eight():
    # X * (X^2 + 1) = X^3 + X = X + 1 + X = 1 modulo X^3 + X + 1: 5 becomes 1
    assert AFFINE[1][5] == 1
    assert PROJECTIVE[2][2] == 3  # 2 * 3 = 6 = -1 modulo 7
