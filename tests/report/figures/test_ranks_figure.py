import math

import pytest

from voxelseg.report.figures.ranks import describe_ranks, draw_ranks, joined

# Demsar 2006, JMLR 7, Table 6 and Sec. 3.2.3: 14 data sets; the critical difference is 1.25 at 0.05 and 1.12 at 0.10.
DEMSAR = {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}


def test_demsars_groups_at_ten_percent():
    # "C4.5 is significantly worse than C4.5+m and C4.5+m+cf"; C4.5+cf belongs to either group
    assert joined(DEMSAR, 1.12) == [("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5")]


def test_demsars_classifiers_are_all_alike_at_five_percent():
    assert joined(DEMSAR, 1.25) == [("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")]


def bars(figure):
    """Ends of the thick bars, best rank first."""
    return [tuple(float(x) for x in line.get_xdata()) for line in figure.axes[0].lines if line.get_linewidth() == 4]


def test_demsars_figure_has_two_bars_on_two_levels_and_the_best_on_the_right():
    figure = draw_ranks(DEMSAR, 1.12)
    axes = figure.axes[0]
    assert axes.get_xlim() == (4, 1)
    (first, second) = bars(figure)
    assert first == pytest.approx((1.964, 2.893), abs=0.1)
    assert second == pytest.approx((2.893, 3.143), abs=0.1)
    assert len({line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 4}) == 2
    left, right = ({text.get_text() for text in axes.texts if text.get_ha() == side} for side in ("right", "left"))
    assert left == {"C4.5  3.14", "C4.5+cf  2.89"}
    assert right == {"C4.5+m+cf  1.96", "C4.5+m  2.00", "critical difference 1.12"}


def test_bars_apart_share_a_level():
    figure = draw_ranks({"a": 1.0, "b": 1.2, "c": 3.0, "d": 3.3, "e": 4.8}, 0.9)
    assert len(bars(figure)) == 2
    assert len({line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linewidth() == 4}) == 1


def test_a_critical_difference_longer_than_the_axis_is_said_and_cut_off():
    figure = draw_ranks({"a": 1.2, "b": 1.8}, 1.6)
    (text,) = [text.get_text() for text in figure.axes[0].texts if "critical" in text.get_text()]
    assert text == "critical difference 1.60, more than the axis is long"


def test_without_a_critical_difference_nothing_is_joined():
    figure = draw_ranks({"a": 1.2, "b": 1.8, "c": math.nan}, math.nan, note="One case only.")
    assert not bars(figure)
    assert [text.get_text() for text in figure.texts] == ["Without a rank: c\nOne case only."]
    assert describe_ranks({"a": 1.2, "b": 1.8}, math.nan).endswith(
        "There is no critical difference to hold them against."
    )


def test_the_text_tells_ranks_and_groups():
    assert describe_ranks(DEMSAR, 1.12) == (
        "Average ranks, 1 is best: C4.5+m+cf 1.96, C4.5+m 2.00, C4.5+cf 2.89, C4.5 3.14. Critical difference 1.12. "
        "Not told apart: C4.5+m+cf, C4.5+m and C4.5+cf; C4.5+cf and C4.5."
    )
    assert describe_ranks({"a": 1.0, "b": 2.0}, 0.5).endswith("All are told apart.")
