"""A pair of contestants and its numbers in plain words."""

import math

from voxelseg.compare.pairs import Pair
from voxelseg.compare.results import Standing, TableResult
from voxelseg.data.wording import counted
from voxelseg.metrics import Column
from voxelseg.statistics.intervals import Interval

_MOST_NEEDED = 100_000
"""More patients than that are as good as a no."""


def pair_in_words(pair: Pair, table: TableResult) -> str:
    """Such as "A is better than B: Dice +0.012 [+0.004, +0.020] over 52 cases"."""
    both, found = f"{pair.ours} and {pair.theirs}", f"{_difference(pair, table)} over {cases_in_words(table)}"
    if pair.verdict in ("better", "worse"):
        return f"{pair.ours} is {pair.verdict} than {pair.theirs}: {found}."
    if pair.verdict == "equivalent":
        margin = _with_unit(pair.margin or 0.0, table.column, "g")
        sure = pair.interval.excludes_zero and pair.beyond_seeds is not False
        more = ", though it may be more than chance" if sure else ""
        return f"{both}: no meaningful difference at {margin}: {found}{more}."
    if pair.reason in ("undefined", "missing"):
        return f"{both} cannot be compared in {table.title}: {table.fault}."
    if pair.reason == "same":
        which = "the one case" if table.num_cases == 1 else f"all {table.num_cases} cases"
        return f"{both} have the same {table.title} in {which}: nothing tells them apart."
    return f"{both} cannot be told apart: {found}; {_why(pair, table)}."


def cases_in_words(table: TableResult) -> str:
    """Such as "52 cases", or "104 cases of 52 patients"."""
    cases = counted(table.num_cases, "case")
    return cases if table.num_cases == table.num_patients else f"{cases} of {counted(table.num_patients, 'patient')}"


def unit_of(table: TableResult) -> str:
    """What is counted in a table: cases, or patients where some have several of them."""
    return "case" if table.num_cases == table.num_patients else "patient"


def mean_in_words(one: Standing, column: Column) -> str:
    """Such as "0.871 [0.861, 0.884]"."""
    digits = 2 if column.unit else 3
    mean = _with_unit(one.mean, column, f".{digits}f")
    low, high = one.interval.low, one.interval.high
    return mean if math.isnan(low) else f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def _why(pair: Pair, table: TableResult) -> str:
    """What stands against a decision."""
    if pair.reason == "seeds":
        weak = f", too little among {len(table.pairs)} pairs" if pair.beyond_seeds and len(table.pairs) > 1 else ""
        return f"other seeds may change that ({_interval(pair.seeds, table.column)} over patients and seeds{weak})"
    if pair.reason == "tests":
        return "the tests do not agree"
    units = f"{unit_of(table)}s"
    if table.fault or pair.patients_needed is None:
        return table.fault or f"not enough {units}"
    many = pair.patients_needed > _MOST_NEEDED
    needed = f"more than {_MOST_NEEDED:,}" if many else f"about {pair.patients_needed:,}"
    return f"not enough {units}: {needed} would be needed".replace(",", "\u202f")


def _difference(pair: Pair, table: TableResult) -> str:
    """Such as "Dice +0.012 [+0.004, +0.020]"."""
    column = table.column
    digits = _digits(column, pair.difference, pair.interval.low, pair.interval.high)
    mean = f"{table.title} {_with_unit(pair.difference, column, f'+.{digits}f').replace('-', '−')}"
    return mean if math.isnan(pair.interval.low) else f"{mean} {_interval(pair.interval, column)}"


def _interval(found: Interval, column: Column) -> str:
    digits = _digits(column, found.low, found.high)
    return f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]".replace("-", "−")


def _digits(column: Column, *values: float) -> int:
    """Decimals of differences: one more where one other than 0 would look like it."""
    digits = 2 if column.unit else 3
    return digits + any(1e-9 < abs(value) < 0.5 * 10.0**-digits for value in values)


def _with_unit(value: float, column: Column, form: str) -> str:
    return f"{value:{form}} {column.unit}" if column.unit else f"{value:{form}}"
