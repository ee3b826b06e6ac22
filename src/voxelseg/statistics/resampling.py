"""Patients drawn with replacement, to see how means might lie elsewhere with other patients."""

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
_AT_ONCE = 1000
"""All draws at once would be large for thousands of patients."""
Floats = npt.NDArray[np.float64]


class Draws:
    """As many groups, mostly patients, as there are, drawn with replacement again and again.

    The same draws serve everything that is compared: a draw then has the difference of two means, or the ranks of many,
    over the same patients. Source: Efron 1979, The Annals of Statistics 7(1).
    """

    def __init__(self, num_groups: int, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """`resamples` draws out of `num_groups` groups, decided by `seed`."""
        self.num_groups = num_groups
        generator = np.random.default_rng(seed)
        # A group is drawn Poisson(1) times or so: a byte holds far more than will ever be seen.
        self._times = np.empty((resamples, num_groups), dtype=np.uint8)
        for first in range(0, resamples if num_groups else 0, _AT_ONCE):
            size = min(_AT_ONCE, resamples - first)
            taken = generator.integers(num_groups, size=(size, num_groups))
            places = (taken + num_groups * np.arange(size)[:, None]).ravel()
            times = np.bincount(places, minlength=size * num_groups)
            self._times[first : first + size] = times.reshape(size, num_groups)

    def sums(self, values: Floats) -> Floats:
        """(resamples, columns): sum over the drawn groups of `values` (groups, columns)."""
        parts = [
            self._times[first : first + _AT_ONCE].astype(np.float64) @ values
            for first in range(0, len(self._times), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def means(self, sums: Floats, counts: Floats) -> Floats:
        """(resamples, columns): mean over the cases of the drawn groups.

        `sums` and `counts` (groups, columns) are of the values of a group's cases, and their number; `counts` may have
        one column for all. NaN where the drawn groups have no value.
        """
        drawn = self.sums(np.hstack([sums, counts]))
        with np.errstate(invalid="ignore"):  # 0 / 0
            means: Floats = drawn[:, : sums.shape[1]] / drawn[:, sums.shape[1] :]
        return means
