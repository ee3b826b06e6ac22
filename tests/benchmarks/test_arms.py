import argparse

import arms
import pytest

from voxelseg.errors import ConfigError

KNOWN = ("moving", "fixed")


def options(*arguments):
    parser = argparse.ArgumentParser()
    arms.add_options(parser, arms="moving,fixed", known=KNOWN, seeds="0,1", width=16)
    return arms.check_options(parser.parse_args(["data", "--out", "out", *arguments]), KNOWN)


def test_differences_are_paired_by_case_over_the_mean_of_the_seeds():
    dice = {
        "dynamic": {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.7, "b": 0.7}},  # over seeds: a 0.8, b 0.7
        "dense": {0: {"a": 0.8, "b": 0.8}, 1: {"a": 0.6, "b": 0.6}},  # over seeds: a 0.7, b 0.7
    }
    (found,) = arms.differences(dice).values()
    assert list(found) == ["all seeds", "seed 0", "seed 1"]
    assert found["all seeds"].mean == pytest.approx(0.05)  # (0.1 + 0) / 2
    # standard error 0.05, and Student's t of one degree of freedom 12.7062
    assert found["all seeds"].high == pytest.approx(0.05 + 12.7062 * 0.05)
    assert found["seed 0"].mean == pytest.approx(0.0)  # (0.1 - 0.1) / 2
    assert found["seed 1"].mean == pytest.approx(0.1)
    assert found["all seeds"].num_cases == 2


def test_the_table_has_the_mean_dice_of_each_arm_and_seed_and_the_facts():
    dice = {"dynamic": {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.5, "b": 0.3}}, "dense": {0: {"a": 1.0}, 1: {"a": 0.0}}}
    facts = {arm: {seed: {"steps": 100 + 2 * seed, "per_step": 0.25} for seed in (0, 1)} for arm in dice}
    text = arms.table(dice, facts, {"steps": ".0f", "per_step": ".3f"})
    header, dynamic, dense = (line.split() for line in text.splitlines())
    assert header == ["arm", "seed", "0", "seed", "1", "mean", "steps", "per_step"]
    assert dynamic == ["dynamic", "0.8000", "0.4000", "0.6000", "101", "0.250"]
    assert dense[1:4] == ["1.0000", "0.0000", "0.5000"]


def test_epochs_divide_the_steps():
    assert arms.epochs_of(3000) == ["train.steps_per_epoch=250", "train.epochs=12"]
    assert arms.epochs_of(40) == ["train.steps_per_epoch=40", "train.epochs=1"]
    assert arms.epochs_of(40, longest=20) == ["train.steps_per_epoch=20", "train.epochs=2"]
    assert arms.epochs_of(502) == ["train.steps_per_epoch=2", "train.epochs=251"]  # 502 = 2 * 251


def test_arms_folds_and_seeds_are_lists():
    found = options("--folds", "0,2")
    assert (found.arms, found.folds, found.seeds) == (["moving", "fixed"], [0, 2], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "moving,flying"], r"unknown arms \['flying'\]"),
        (["--seeds", "0,one"], "whole numbers"),
        (["--seeds", "0,0"], "--seeds names something twice"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_impossible_options_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        options(*arguments)
