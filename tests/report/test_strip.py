import math

import pytest

from voxelseg.report.strip import MARGIN, WIDTH, axis, length_range, ratio_range, strip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.73, 0.95], (0.7, 1.0)),
        ([0.7], (0.7, 1.0)),
        ([0.99, math.nan], (0.9, 1.0)),
        ([], (0.0, 1.0)),
        ([0.0], (0.0, 1.0)),
    ],
)
def test_ratio_axis_starts_at_the_tenth_below_the_lowest_value(values, expected):
    assert ratio_range(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "high"), [([3.1], 5.0), ([5.0], 5.0), ([11.0, math.nan], 20.0), ([0.06], 0.1), ([0.0], 1.0), ([], 1.0)]
)
def test_length_axis_ends_at_the_next_round_number(values, high):
    assert length_range(values) == (0.0, pytest.approx(high))


def test_points_lie_between_the_ends_of_the_axis():
    drawing = strip({"a": 0.5, "b": 1.0, "c": 0.75, "d": math.nan}, 0.5, 1.0)
    assert drawing.count("<circle") == 3
    for x in (MARGIN, WIDTH - MARGIN, WIDTH / 2):
        assert f'cx="{x:.1f}"' in drawing
    assert f'class="median" x1="{WIDTH / 2:.1f}"' in drawing
    assert "d: " not in drawing


def test_a_class_without_values_is_an_empty_line():
    assert "<circle" not in strip({"a": math.nan}, 0.0, 1.0)


def test_case_names_are_escaped():
    assert "<b>" not in strip({"<b>": 0.5}, 0.0, 1.0)


def test_axis_names_both_ends_and_the_middle():
    drawing = axis(0.7, 1.0)
    assert all(f">{text}</text>" in drawing for text in ("0.7", "0.85", "1"))
