"""Numbers of a comparison as a reader takes them in."""

import math

from voxelseg.evaluate.table import format_score
from voxelseg.report.facts import duration
from voxelseg.statistics.intervals import Interval

DASH = "–"
_LEAST_P = 0.001


def interval_text(found: Interval, unit: str) -> str:
    """Such as "[0.861, 0.884]"; a dash where there is none."""
    if math.isnan(found.low) or math.isnan(found.high):
        return DASH
    return f"[{format_score(found.low, unit)}, {format_score(found.high, unit)}]"


def score_text(mean: float, interval: Interval, unit: str) -> str:
    """Such as "0.871 [0.861, 0.884]"."""
    if math.isnan(interval.low):
        return format_score(mean, unit)
    return f"{format_score(mean, unit)} {interval_text(interval, unit)}"


def signed(value: float, unit: str) -> str:
    """A difference with its sign, one digit more than a score; a dash if there is none."""
    if math.isnan(value):
        return DASH
    return f"{value:+.{3 if unit else 4}f}".replace("-", "−")


def signed_interval(found: Interval, unit: str) -> str:
    """Such as "[−0.0021, +0.0105]"."""
    if math.isnan(found.low) or math.isnan(found.high):
        return DASH
    return f"[{signed(found.low, unit)}, {signed(found.high, unit)}]"


def p_text(p: float) -> str:
    """Such as "0.012" or "< 0.001"; a dash if there is none."""
    if math.isnan(p):
        return DASH
    return f"< {_LEAST_P:g}" if p < _LEAST_P else f"{p:.3f}"


def equals(number: str) -> str:
    """For a sentence: "= 0.012" and "< 0.001"."""
    return number if number.startswith("<") else f"= {number}"


def percent(share: float) -> str:
    """Such as "97 %"; a dash if there is none."""
    return DASH if math.isnan(share) else f"{100 * share:.0f}\u00a0%"


def count_text(number: float | None) -> str:
    """A large number such as "5.58 M" or "1.2 G"; a dash if it is not known."""
    if number is None:
        return DASH
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\u00a0{letter}"
    return f"{number:g}"


def memory_text(number: float | None) -> str:
    """Such as "1.21 GB" or "87 MB" (powers of 1000); a dash if it is not known."""
    if number is None:
        return DASH
    return f"{number / 1e9:.2f}\u00a0GB" if number >= 1e9 else f"{number / 1e6:.0f}\u00a0MB"


def latency_text(seconds: float | None) -> str:
    """Such as "83 ms" or "1.24 s"; a dash if it is not known."""
    if seconds is None:
        return DASH
    return f"{1000 * seconds:.3g}\u00a0ms" if seconds < 1 else f"{seconds:.3g}\u00a0s"


def time_text(seconds: float | None) -> str:
    """A length of time in words; a dash if it is not known."""
    return DASH if seconds is None else duration(seconds)


def steps_text(steps: float | None) -> str:
    """Such as "12 500"; a dash if they are not known."""
    return DASH if steps is None else f"{steps:,.0f}".replace(",", "\u202f")
