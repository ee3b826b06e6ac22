"""What each figure shows: the numbers that it was given, at their places."""

import math

import pytest

from voxelseg.compare.trade_off import relative
from voxelseg.report.figures.bubbles import draw_bubbles
from voxelseg.report.figures.classes import describe_classes, draw_classes
from voxelseg.report.figures.forest import Difference, describe_forest, draw_forest
from voxelseg.report.figures.fusion import describe_fusion, draw_fusion
from voxelseg.report.figures.learning import describe_learning, draw_learning
from voxelseg.report.figures.look import Estimate, Look, looks
from voxelseg.report.figures.organ_volume import (
    describe_volume_differences,
    describe_volume_scores,
    draw_volume_differences,
    draw_volume_scores,
)
from voxelseg.report.figures.pareto import amount, describe_pareto, draw_pareto
from voxelseg.report.figures.scores import describe_scores, draw_scores
from voxelseg.report.figures.stability import describe_stability, draw_stability
from voxelseg.report.figures.trade_off import describe_trade_off, draw_trade_off

NAN = math.nan


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def lines(axes, **look):
    """Data of the lines that look so, such as marker="D"."""
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.lines
        if all(getattr(line, f"get_{key}")() == value for key, value in look.items())
    ]


DIFFERENCES = (
    Difference("a", "b", Estimate(0.012, 0.004, 0.02), "better"),
    Difference("a", "c", Estimate(0.001, -0.002, 0.003), "equivalent"),
    Difference("b", "c", Estimate(-0.0001), "undecided"),
)


def test_zero_is_in_the_middle_and_the_margin_beside_it():
    axes = draw_forest(DIFFERENCES, label="Dice", margin=0.005).axes[0]
    low, high = axes.get_xlim()
    assert low == -high
    assert high > 0.02
    (band,) = axes.patches
    assert band.get_x() == -0.005
    assert band.get_width() == pytest.approx(0.01)


def test_intervals_are_lines_and_verdicts_are_markers():
    axes = draw_forest(DIFFERENCES, label="Dice").axes[0]
    assert [x for x, _ in lines(axes, marker="|")] == [[0.004, 0.02], [-0.002, 0.003]]  # the third has none
    assert lines(axes, marker="D") == [([0.001], [1.18])]


def test_numbers_and_verdicts_are_told():
    shown = texts(draw_forest(DIFFERENCES, label="Dice"))
    assert "a − b" in shown
    assert "+0.012 [+0.004, +0.020] better" in shown
    assert "+0.000 [–, –] undecided" in shown  # not minus zero


def test_less_being_better_turns_the_sides_around():
    shown = texts(draw_forest(DIFFERENCES, label="HD95", unit="mm", higher_is_better=False))
    assert {"← first is better", "second is better →"} <= set(shown)


def test_two_long_names_leave_room_for_the_numbers():
    name = "a_very_long_name_of_a_contestant_"
    figure = draw_forest([Difference(f"{name}1", f"{name}2", Estimate(0.1, 0.0, 0.2), "undecided")], label="Dice")
    pair, numbers = figure.axes[0].texts[:2]
    assert pair.get_window_extent().x1 < numbers.get_window_extent().x0


def test_the_text_has_the_margin():
    assert describe_forest(DIFFERENCES[:1], label="Dice", margin=0.005) == (
        "Differences in Dice, with intervals: a minus b +0.012 [+0.004, +0.020], better. "
        "Differences within ±0.005 do not matter."
    )
    assert describe_forest([], label="Dice") == "No pair is compared."


SCORES_SCORES = {"a": Estimate(0.8, 0.75, 0.85, (0.79, 0.81)), "b": Estimate(NAN)}


def test_means_intervals_and_seeds_are_at_their_places():
    axes = draw_scores(SCORES_SCORES, label="Dice", look={"a": Look("red", "D"), "b": Look("blue", "o")}).axes[0]
    assert lines(axes, marker="D") == [([0.8], [0.0])]
    assert lines(axes, marker="|") == [([0.75, 0.85], [0.0, 0.0])]
    assert lines(axes, marker=".")[0][0] == [0.79, 0.81]
    assert not lines(axes, marker="o")


def test_who_failed_has_a_row_with_the_reason():
    figure = draw_scores(SCORES_SCORES, label="Dice", faults={"c": "out of memory"})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert texts(figure) == ["0.800", "–", "out of memory"]


def test_the_text_has_the_numbers():
    assert describe_scores(SCORES_SCORES, label="HD95", unit="mm", faults={"c": "killed"}) == (
        "HD95 in mm with intervals: a 0.80 (0.75 to 0.85); b –; c without a score: killed."
    )


CLASSES_VALUES = {"a": {"liver": [0.9, 0.8, 0.7, NAN, 0.6, 0.5]}, "b": {"liver": [1.0], "cyst": [NAN]}}


def test_rows_are_percentiles_of_what_is_defined():
    figure = draw_classes(CLASSES_VALUES, label="Dice", look=looks("ab"))
    axes = figure.axes[1]
    assert next(x for x, _ in lines(axes, linewidth=4.0)) == pytest.approx([0.6, 0.8])
    assert lines(axes, marker="o")[0][0] == pytest.approx([0.7])
    # 5th percentile of 0.5 to 0.9: 0.5 + 0.2 * 0.1; the 95th is as far below 0.9
    assert lines(axes, linewidth=1.0)[0][0] == pytest.approx([0.52, 0.88])


def test_numbers_of_cases_stand_behind_the_classes():
    labels = [label.get_text() for label in draw_classes(CLASSES_VALUES, label="Dice").axes[1].get_yticklabels()]
    assert labels == ["liver\nn = 1 to 5", "cyst\nn = 0"]


def test_the_text_has_the_medians():
    assert describe_classes(CLASSES_VALUES, label="Dice") == (
        "Median Dice over the cases. liver: a 0.700, b 1.000; cyst: a –, b –."
    )


PARETO_SCORES = {"a": Estimate(0.8, 0.78, 0.82), "b": Estimate(0.9), "c": Estimate(0.7), "d": Estimate(0.95)}
PARETO_COSTS = {"a": 1.0, "b": 4.0, "c": 2.0, "d": None}


def test_the_front_is_a_stair_through_its_members():
    axes = draw_pareto(PARETO_SCORES, PARETO_COSTS, label="Dice", cost_label="seconds").axes[0]
    (stair,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(stair.get_xdata())[:4] == [1.0, 1.0, 4.0, 4.0]
    assert list(stair.get_ydata())[1:] == [0.8, 0.8, 0.9, 0.9]


def test_members_are_filled_and_the_others_hollow():
    axes = draw_pareto(PARETO_SCORES, PARETO_COSTS, label="Dice", cost_label="seconds").axes[0]
    filled = {
        float(line.get_xdata()[0]): line.get_markerfacecolor() for line in axes.lines if line.get_markersize() == 8
    }
    assert filled[2.0] == "white"
    assert "white" not in (filled[1.0], filled[4.0])


def test_a_cost_that_spans_much_is_on_a_logarithmic_axis():
    wide = {"a": 1.0, "b": 400.0, "c": 20.0}
    assert draw_pareto(PARETO_SCORES, wide, label="Dice", cost_label="s").axes[0].get_xscale() == "log"
    assert draw_pareto(PARETO_SCORES, PARETO_COSTS, label="Dice", cost_label="s").axes[0].get_xscale() == "linear"


def test_the_text_names_the_front_the_others_and_who_is_not_known():
    assert describe_pareto(PARETO_SCORES, PARETO_COSTS, label="Dice", cost_label="seconds") == (
        "Dice against seconds. On the Pareto front, nobody being better at no higher cost: a (0.800 at 1) and "
        "b (0.900 at 4). Others: c. Not known: d."
    )
    assert describe_pareto({}, {}, label="Dice", cost_label="seconds") == "Nobody has both Dice and seconds."


def test_amounts_have_three_digits():
    assert [amount(value) for value in (0.01234, 12.34, 1234.5, None)] == ["0.0123", "12.3", "1\u202f230", "–"]


def test_areas_of_bubbles_are_as_the_parameters():
    axes = draw_bubbles({"a": 0.8, "b": 0.9}, {"a": 5.0, "b": 9.0}, {"a": 40.0, "b": 10.0}, label="Dice").axes[0]
    sizes = {float(line.get_xdata()[0]): line.get_markersize() for line in axes.lines if line.get_alpha() == 0.35}
    assert (sizes[5.0] / sizes[9.0]) ** 2 == pytest.approx(4)
    assert {"a", "b"} <= {text.get_text() for text in axes.texts}


def test_trade_off_lines_go_from_the_score_to_the_costs():
    found = relative({"a": 0.9, "b": 0.6}, [{"a": 4.0, "b": 1.0}, {"a": 2.0, "b": 1.0}])
    axes = draw_trade_off(found, label="Dice", look=looks("ab")).axes[0]
    ((_, ours),) = lines(axes, marker="o")
    assert (ours[0], ours[2], ours[-1]) == pytest.approx((2.0, 1 + 0.5 * (0.25 + 0.5), 0.75))
    # equal where 2 (1 - w) + 0.75 w = 4 / 3 (1 - w) + 2 w, that is w = (2 / 3) / (2 / 3 + 1.25) = 0.348
    assert describe_trade_off(found, label="Dice") == (
        "Highest trade-off score by the share of the weight on costs, the rest being on Dice: "
        "a from 0 % to 34.8 %; b from 34.8 % to 100 %. With the published weights: a 1.38, b 1.67."
    )


def test_volumes_are_correlated_with_scores_and_differences():
    volumes = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0, "e": 16.0, "f": NAN}
    scores = {"unet": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.5}}
    # all in order: 2 of 5! = 120 orders are as extreme
    assert describe_volume_scores(volumes, scores, label="Dice") == (
        "Dice of each class against its volume, 1 to 16 ml. unet: Spearman's ρ = 1.00 over 5 classes (p = 0.017)."
    )
    differences = {name: Estimate(0.1, 0.05 if name == "a" else -0.1, 0.2) for name in volumes}
    text = describe_volume_differences(volumes, differences, ours="unet", theirs="uxnet", label="Dice")
    assert text.startswith(
        "Dice of unet minus uxnet for each class against its volume, 1 to 16 ml: no rank correlation"
    )
    axes = draw_volume_differences(volumes, differences, ours="unet", theirs="uxnet", label="Dice").axes[0]
    filled = {
        float(line.get_xdata()[0]): line.get_markerfacecolor() != "white"
        for line in axes.lines
        if line.get_marker() == "o"
    }
    assert filled == {1.0: True, 2.0: False, 4.0: False, 8.0: False, 16.0: False}


def test_rank_shares_are_percents():
    figure = draw_stability({"a": [0.751, 0.249], "b": [0.249, 0.751], "c": [0.001, 0.999]})
    assert texts(figure) == ["75", "25", "25", "75", "<1", "100"]
    assert describe_stability({"b": [0.25, 0.75], "a": [0.75, 0.25], "d": [NAN]}) == (
        "Share of the resampled sets of cases in which each contestant is first: a in 75% and b in 25%."
    )


def test_fusion_shares_are_stacked_before_and_after():
    history = [
        {"nodes": {"x[1,0]": {"forward": [5, 50], "up": [5, 50]}}},
        {"nodes": {"x[1,0]": {"forward": [8, 50], "up": [2, 50]}}},
    ]
    axes = draw_fusion({"seed 0": history}, by="network").axes[1]
    heights = [float(bar.get_height()) for bars in axes.containers for bar in bars]
    assert heights == pytest.approx([0.5, 0.5, 0.0, 0.2, 0.8, 0.0])  # up, forward, down before; the same after
    assert describe_fusion({"seed 0": history}).endswith(
        "seed 0: up 20% (-30.0 points) and forward 80% (+30.0 points)."
    )


def test_curves_have_a_line_for_each_seed_without_undefined_values():
    curves = {"a": [([1.0, 2.0, 3.0], [0.1, NAN, 0.3]), ([1.0], [0.2])], "b": [([], [])]}
    axes = draw_learning(curves, label="Dice", along="minutes").axes[1]
    assert lines(axes) == [([1.0, 3.0], [0.1, 0.3]), ([1.0], [0.2])]
    assert describe_learning(curves, label="Dice", along="minutes") == (
        "Dice over the training. a: 0.3 after 3 minutes, 0.2 after 1 minutes; b: no values."
    )


def test_of_many_classes_only_those_that_say_most_are_named():
    volumes = {f"class {place}": 1.0 + place for place in range(31)}
    scores = {name: 0.5 + 0.01 * place for place, name in enumerate(volumes)}
    axes = draw_volume_scores(volumes, {"unet": scores}, label="Dice").axes[-1]
    named = [text.get_text() for text in axes.texts]
    assert "class 0" in named
    assert "class 30" not in named
    differences = {name: Estimate(score) for name, score in scores.items()}
    figure = draw_volume_differences(volumes, differences, ours="unet", theirs="uxnet", label="Dice")
    named = [text.get_text() for text in figure.axes[0].texts]
    assert "class 30" in named
    assert "class 0" not in named
    assert "Named: the 30 classes with the largest differences." in [text.get_text() for text in figure.texts]
