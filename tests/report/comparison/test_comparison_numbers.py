import math

import pytest

from voxelseg.report.comparison.numbers import (
    count_text,
    equals,
    interval_text,
    latency_text,
    memory_text,
    p_text,
    percent,
    score_text,
    signed,
    signed_interval,
    steps_text,
    time_text,
)
from voxelseg.statistics.intervals import Interval

NONE = Interval(math.nan, math.nan)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (interval_text(Interval(0.8614, 0.8836), ""), "[0.861, 0.884]"),
        (interval_text(Interval(1.234, 2.345), "mm"), "[1.23, 2.35]"),
        (interval_text(NONE, ""), "–"),
        (score_text(0.8712, Interval(0.86, 0.88), ""), "0.871 [0.860, 0.880]"),
        (score_text(0.8712, NONE, ""), "0.871"),
        (signed(0.01234, ""), "+0.0123"),
        (signed(-1.2345, "mm"), "−1.234"),
        (signed(math.nan, ""), "–"),
        (signed_interval(Interval(-0.002, 0.0105), ""), "[−0.0020, +0.0105]"),
        (signed_interval(NONE, ""), "–"),
        (p_text(0.0123), "0.012"),
        (p_text(0.0009), "< 0.001"),
        (p_text(math.nan), "–"),
        (equals("0.012"), "= 0.012"),
        (equals("< 0.001"), "< 0.001"),
        (percent(0.966), "97\u00a0%"),
        (percent(math.nan), "–"),
        (count_text(5_580_000), "5.58\u00a0M"),
        (count_text(1.25e12), "1.25\u00a0T"),
        (count_text(12), "12"),
        (count_text(None), "–"),
        (memory_text(1.214e9), "1.21\u00a0GB"),
        (memory_text(87e6), "87\u00a0MB"),
        (memory_text(None), "–"),
        (latency_text(0.0834), "83.4\u00a0ms"),
        (latency_text(1.239), "1.24\u00a0s"),
        (latency_text(None), "–"),
        (time_text(90.0), "1 min 30 s"),
        (time_text(None), "–"),
        (steps_text(12500.0), "12\u202f500"),
        (steps_text(None), "–"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected
