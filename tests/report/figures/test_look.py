import math

import pytest
from matplotlib.figure import Figure

from voxelseg.report.figures.look import (
    MARKERS,
    Estimate,
    axes_in,
    looks,
    name_legend,
    number,
    padded,
    short,
    side_by_side,
    unknown_note,
)


def test_forty_two_contestants_differ_in_colour_or_marker():
    found = looks(f"network {place}" for place in range(42))
    assert len(set(found.values())) == 42
    assert len({look.marker for look in found.values()}) == len(MARKERS)


def test_long_names_lose_their_middle_and_stay_different():
    found = short(
        ["mednext_s", "mednext_s_kernel5_grown_from_kernel3_seed_7", "mednext_s_kernel5_shrunk_to_kernel3_seed_7"]
    )
    texts = list(found.values())
    assert texts[0] == "mednext_s"
    assert texts[1] == "mednext_s_kernel5…3_seed_7"
    assert texts[2] == "mednext_s_kernel5…3_see…2"
    assert max(map(len, texts)) <= 26


def test_names_without_a_letter_are_shown_as_a_dash():
    assert short(["", "a\nb"]) == {"": "–", "a\nb": "a b"}


def test_numbers_are_dashes_where_unknown():
    assert number(0.12345) == "0.123"
    assert number(math.nan) == "–"


def test_an_axis_is_never_without_length():
    assert padded([1.0, 3.0], 0.25) == (0.5, 3.5)
    assert padded([2.0, 2.0, math.nan]) == pytest.approx((1.9, 2.1))
    assert padded([0.0]) == (-0.05, 0.05)
    assert padded([]) == (0.0, 1.0)


def test_parts_of_a_row_lie_around_its_middle():
    assert side_by_side(3, 0.1) == pytest.approx([-0.1, 0.0, 0.1])
    assert side_by_side(1, 0.1) == [0.0]


def test_an_estimate_has_an_interval_if_both_ends_are_known():
    assert Estimate(0.5, 0.4, 0.6).has_interval
    assert not Estimate(0.5, 0.4).has_interval


def test_axes_have_their_margins_in_inches():
    figure = Figure(figsize=(4, 2))
    box = axes_in(figure, left=1, right=0.5, bottom=0.5, top=0.25).get_position()
    assert box.bounds == pytest.approx((0.25, 0.25, 0.625, 0.625))


def test_a_legend_makes_the_figure_higher_and_keeps_names_with_an_underscore():
    figure = Figure(figsize=(5.6, 2))
    height = name_legend(figure, looks(["_hidden", "unet"]))
    assert figure.get_figheight() == pytest.approx(2 + height)
    assert [text.get_text() for text in figure.axes[0].texts] == ["_hidden", "unet"]


def test_a_note_names_who_is_missing_in_lines_that_fit():
    assert unknown_note([], "a score") == ""
    assert unknown_note(["a", "b"], "a score") == "Without a score: a, b"
    assert max(map(len, unknown_note([f"network {place}" for place in range(40)], "x").splitlines())) <= 74
