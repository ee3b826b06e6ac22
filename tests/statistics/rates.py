"""Bounds for shares that are counted in simulations."""

from scipy.stats import binom


def around(rate, num):
    """Counts that a test with the error rate `rate` stays within in `num` simulations, but for 1 in 1000."""
    return range(int(binom.ppf(0.0005, num, rate)), int(binom.ppf(0.9995, num, rate)) + 1)


def at_most(rate, num):
    """Largest count of a test whose error rate is `rate` at most, but for 1 in 1000."""
    return int(binom.ppf(0.999, num, rate))
