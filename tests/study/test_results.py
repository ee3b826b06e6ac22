import math

import numpy as np
import pytest
from studies import design_of, finish

from voxelseg.statistics.multiple import holm, larger_p
from voxelseg.statistics.paired import SIGNIFICANCE
from voxelseg.statistics.seeds import of_seeds
from voxelseg.study.results import collect


def test_a_start_that_is_better_in_every_case_and_seed_is_called_better(tmp_path):
    design = design_of(tmp_path, shares=(25.0,), seeds=(0, 1, 2))
    for seed in design.seeds:
        finish(design, "scratch", 25.0, seed, [0.5, 0.6, 0.7, 0.5, 0.6, 0.7])
        finish(design, "mae", 25.0, seed, [0.51, 0.62, 0.73, 0.54, 0.65, 0.76])
    study = collect(design, {})
    assert study.point("scratch", 25.0).mean == pytest.approx(0.6)
    found = study.comparison("mae", 25.0)
    assert found.overall.mean == pytest.approx(0.035)  # (1 + 2 + 3 + 4 + 5 + 6) / 6 / 100
    assert found.adjusted_p == pytest.approx(2 / 2**6)  # six cases, all better; one comparison
    assert found.verdict == "better"
    interval = f"[{found.overall.low:.3f}, {found.overall.high:.3f}]"
    assert study.conclusions == [f"25 % of the labels (2 cases): mae better than scratch by 0.035 {interval}."]
    assert study.comparison("scratch", 25.0) is None


def test_a_start_that_is_worse_is_called_worse(tmp_path):
    design = design_of(tmp_path, shares=(25.0,), seeds=(0, 1, 2))
    for seed in design.seeds:
        finish(design, "scratch", 25.0, seed, [0.61, 0.62, 0.63, 0.64, 0.65, 0.66])
        finish(design, "mae", 25.0, seed, [0.6] * 6)
    found = collect(design, {}).comparison("mae", 25.0)
    assert found.verdict == "worse"
    assert found.in_words().startswith("mae worse than scratch by 0.035 [0.0")


def test_a_difference_that_seeds_alone_may_explain_is_neither_better_nor_worse(tmp_path):
    # The seeds differ by 0.01, 0.02 and 0.06: mean 0.03, standard error 0.0153, times 4.30 is 0.066. All cases are
    # better in all seeds, so that patients alone would call it better.
    design = design_of(tmp_path, shares=(25.0,), seeds=(0, 1, 2))
    for seed, gain in zip(design.seeds, (0.01, 0.02, 0.06), strict=True):
        finish(design, "scratch", 25.0, seed, [0.5, 0.6, 0.7, 0.5, 0.6, 0.7])
        finish(design, "mae", 25.0, seed, [0.5 + gain, 0.6 + gain, 0.7 + gain, 0.5 + gain, 0.6 + gain, 0.7 + gain])
    found = collect(design, {}).comparison("mae", 25.0)
    assert found.adjusted_wilcoxon_p < 0.05
    assert found.adjusted_p == pytest.approx(0.188, abs=1e-3)  # t = 0.03 / 0.0153 = 1.964 of 2 degrees of freedom
    assert found.overall.excludes_zero
    assert (found.seeds.low, found.seeds.high) == pytest.approx((-0.0357, 0.0957), abs=1e-4)
    assert found.verdict == "seeds"
    assert found.in_words().endswith("in these trainings, which seeds alone may explain")


def test_what_the_seeds_say_is_adjusted_over_all_comparisons_too(tmp_path):
    # Gains of 0.03, 0.04 and 0.05: t = 6.93 of 2 degrees of freedom, p = 0.0202; of three comparisons it is 0.061. The
    # patients' p, 2 / 2^9 with nine of them, is below 0.05 of three, too.
    design = design_of(tmp_path, shares=(25.0, 50.0, 100.0), seeds=(0, 1, 2), held_out=tuple("abcdefghi"))
    for share in design.shares:
        for seed, gain in zip(design.seeds, (0.03, 0.04, 0.05), strict=True):
            finish(design, "scratch", share, seed, [0.5] * 9)
            finish(design, "mae", share, seed, [0.5 + gain] * 9)
    study = collect(design, {})
    for found in study.comparisons:
        assert found.seeds.excludes_zero  # it is not adjusted
        assert found.seeds_p == pytest.approx(0.0202, abs=1e-4)
        assert found.adjusted_p == pytest.approx(3 * found.seeds_p)
        assert found.adjusted_wilcoxon_p == pytest.approx(3 * 2 / 2**9)
        assert found.verdict == "seeds"
    assert any(
        "the larger one of the patients' Wilcoxon signed-rank test and of the t-test" in one for one in study.notes
    )


def test_starts_without_any_effect_are_told_apart_in_one_study_of_twenty_at_most():
    """Eight comparisons, trainings that differ by 0.01, 3 seeds: each interval on its own would err 1 time in 4."""
    rng, wrong, num = np.random.default_rng(0), 0, 400
    for _ in range(num):
        gains = rng.normal(0, 0.01, (8, 3))
        wrong += min(holm([larger_p(1e-6, of_seeds(one.tolist()).p) for one in gains])) < SIGNIFICANCE
    assert wrong <= 0.05 * num + 3 * np.sqrt(0.05 * 0.95 * num)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_are_not_enough_to_call_a_start_better(tmp_path, seeds):
    design = design_of(tmp_path, shares=(25.0,), seeds=seeds)
    for seed in seeds:  # two that agree have a t-interval of no width
        finish(design, "scratch", 25.0, seed, [0.5] * 6)
        finish(design, "mae", 25.0, seed, [0.6] * 6)
    study = collect(design, {})
    assert study.comparison("mae", 25.0).verdict == "seeds"
    assert any("Better and worse take 3 seeds or more" in note for note in study.notes)


def test_a_case_that_is_undefined_in_one_training_is_left_out_of_all(tmp_path):
    design = design_of(tmp_path, shares=(25.0,))
    for seed in (0, 1):
        finish(design, "scratch", 25.0, seed, [0.5] * 5 + [0.0])  # something was predicted where nothing is
        finish(design, "mae", 25.0, seed, [0.6] * 5 + [math.nan if seed else 0.0])
    study = collect(design, {})
    means = [study.point(start, 25.0).mean for start in ("scratch", "mae")]
    assert means == pytest.approx([0.5, 0.6])
    assert study.comparison("mae", 25.0).overall.mean == pytest.approx(means[1] - means[0])
    assert any(note.startswith("Left out") and note.endswith(": case_5.") for note in study.notes)


def test_p_values_are_adjusted_over_all_shares_and_starts(tmp_path):
    # 2 / 2^6 = 0.031 is below 0.05 for one comparison, but not for the two that there are
    design = design_of(tmp_path, seeds=(0,))
    for share in (25.0, 100.0):
        finish(design, "scratch", share, 0, [0.5] * 6)
        finish(design, "mae", share, 0, [0.51, 0.52, 0.53, 0.54, 0.55, 0.56])
    study = collect(design, {})
    assert [one.adjusted_p for one in study.comparisons] == pytest.approx([4 / 2**6] * 2)
    assert [one.verdict for one in study.comparisons] == ["equal", "equal"]
    assert study.comparisons[0].in_words().startswith("mae and scratch cannot be told apart (+0.035 [+0.0")
    assert any("no difference can pass the test" in note for note in study.notes)


def test_only_seeds_that_both_have_are_compared(tmp_path):
    design = design_of(tmp_path, shares=(25.0,))
    finish(design, "scratch", 25.0, 0, [0.5] * 6)
    finish(design, "scratch", 25.0, 1, [0.9] * 6)
    finish(design, "mae", 25.0, 0, [0.6] * 6, steps=20)
    study = collect(design, {"mae, 25 %, seed 1": "error: the memory ran out"})
    assert list(study.comparison("mae", 25.0).differences) == ["all seeds", "seed 0"]
    assert study.comparison("mae", 25.0).overall.mean == pytest.approx(0.1)
    assert study.point("scratch", 25.0).mean == pytest.approx(0.7)
    assert study.notes[-1] == "Failed: mae, 25 %, seed 1: error: the memory ran out"
    assert "Trainings made different numbers of steps, on average: scratch 10, mae 20." in study.notes
    assert study.conclusions[0].endswith("without seed 1 in these trainings, which seeds alone may explain.")


def test_of_trainings_of_the_same_time_the_steps_are_told(tmp_path):
    pace = {"device": "cpu", "jobs": 1, "threads": 1}
    design = design_of(tmp_path, shares=(25.0,), seeds=(0,), length={"budget": "1m"}, pace=pace)
    finish(design, "scratch", 25.0, 0, [0.5] * 6, steps=10)
    finish(design, "mae", 25.0, 0, [0.5] * 6, steps=12)
    told = "Trainings of the same time made different numbers of steps, on average: scratch 10, mae 12."
    assert told in collect(design, {}).notes


def test_before_anything_is_finished_there_is_nothing_to_say(tmp_path):
    study = collect(design_of(tmp_path), {})
    assert math.isnan(study.point("mae", 25.0).mean)
    assert study.comparison("mae", 25.0).verdict == ""
    assert "mae has no finished training to compare with scratch" in study.conclusions[0]
    assert "Not finished: scratch, 25 %, seed 0, mae, 25 %, seed 0" in study.notes[-1]
