"""Orders of eight things, any two of which differ in as many places as is possible for so many orders.

At most n! / (d - 1)! orders of n things differ in d places or more each, and groups that are sharply transitive reach
it (Frankl and Deza, Journal of Combinatorial Theory A 22, 1977). For eight things there are three, here as generators:
8 orders that differ in all places, 56 in seven or more, 336 in six or more.
"""

import numpy as np
import numpy.typing as npt

THINGS = 8
Order = tuple[int, ...]

TRANSLATIONS: tuple[Order, ...] = ((1, 0, 3, 2, 5, 4, 7, 6), (2, 3, 0, 1, 6, 7, 4, 5), (4, 5, 6, 7, 0, 1, 2, 3))
"""x -> x + b over the field of eight elements, whose bits are coefficients of a polynomial: for b 1, 2, 4."""
AFFINE: tuple[Order, ...] = (TRANSLATIONS[0], (0, 2, 4, 6, 3, 1, 7, 5))
"""x -> a x + b over that field: x + 1, and the product with the polynomial X modulo X^3 + X + 1."""
PROJECTIVE: tuple[Order, ...] = ((1, 2, 3, 4, 5, 6, 0, 7), (0, 3, 6, 2, 5, 1, 4, 7), (7, 6, 3, 2, 5, 4, 1, 0))
"""x -> (a x + b) / (c x + d) over the numbers modulo 7, and 7 for infinity: x + 1, 3 x, -1 / x."""
MOST_ORDERS = 336


def far_orders(number: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """So many different orders (number, 8), from 1 to 336, that `generator` draws.

    Any two of them differ in all places; of more than 8 orders, in seven or more; of more than 56, in six or more.
    """
    groups = map(_generated, (TRANSLATIONS, AFFINE, PROJECTIVE))
    group = next(orders for orders in groups if len(orders) >= number)
    chosen = generator.choice(group, number, replace=False)
    places, names = generator.permutation(THINGS), generator.permutation(THINGS)
    found: npt.NDArray[np.int64] = names[chosen[:, places]]  # neither changes where two orders differ
    return found


def _generated(generators: tuple[Order, ...]) -> npt.NDArray[np.int64]:
    """The group (orders, 8) that these generate, sorted."""
    found = {tuple(range(THINGS))}
    fresh = found
    while fresh:
        fresh = {tuple(after[i] for i in before) for before in fresh for after in generators} - found
        found = found | fresh
    return np.array(sorted(found), dtype=np.int64)
