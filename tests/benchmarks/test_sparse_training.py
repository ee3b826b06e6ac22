import json

import pytest
import sparse_training as script

from voxelseg.errors import ConfigError
from voxelseg.files import read_json


def options(tmp_path, *arguments):
    return script.parse([str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments])


def test_differences_are_paired_by_case_over_the_mean_of_the_seeds():
    dice = {
        "dynamic": {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.7, "b": 0.7}},  # over seeds: a 0.8, b 0.7
        "dense": {0: {"a": 0.8, "b": 0.8}, 1: {"a": 0.6, "b": 0.6}},  # over seeds: a 0.7, b 0.7
    }
    (found,) = script.differences(dice).values()
    assert list(found) == ["all seeds", "seed 0", "seed 1"]
    assert found["all seeds"].mean == pytest.approx(0.05)  # (0.1 + 0) / 2
    assert (found["all seeds"].low, found["all seeds"].high) == pytest.approx((0.0, 0.1))
    assert found["seed 0"].mean == pytest.approx(0.0)  # (0.1 - 0.1) / 2
    assert found["seed 1"].mean == pytest.approx(0.1)
    assert found["all seeds"].num_cases == 2


def test_the_table_has_the_mean_dice_of_each_arm_and_seed():
    dice = {"dynamic": {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.5, "b": 0.3}}, "dense": {0: {"a": 1.0}, 1: {"a": 0.0}}}
    facts = {
        arm: {seed: {"seconds_per_step": 0.25, "updates": 3.0, "moves_per_kernel": 1.5} for seed in (0, 1)}
        for arm in dice
    }
    header, dynamic, dense = (line.split() for line in script.table(dice, facts).splitlines())
    assert header[:5] == ["arm", "seed", "0", "seed", "1"]
    assert dynamic == ["dynamic", "0.8000", "0.4000", "0.6000", "3", "1.50", "0.250"]
    assert dense[1:4] == ["1.0000", "0.0000", "0.5000"]


def test_epochs_divide_the_steps(tmp_path):
    def lengths(steps, name):
        chosen = options(tmp_path, "--steps", str(steps))
        chosen.out = tmp_path / name
        return script.Benchmark(chosen)._settings()[:2]

    assert lengths(3000, "long") == ["train.steps_per_epoch=250", "train.epochs=12"]
    assert lengths(40, "short") == ["train.steps_per_epoch=40", "train.epochs=1"]
    assert lengths(502, "odd") == ["train.steps_per_epoch=2", "train.epochs=251"]  # 502 = 2 * 251


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "dynamic,moving"], r"unknown arms \['moving'\]"),
        (["--seeds", "0,one"], "whole numbers"),
        (["--sparsity", "1"], "between 0 and 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_impossible_options_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, *arguments)


def test_a_folder_with_other_settings_is_refused_but_seeds_and_arms_may_be_added(tmp_path):
    script.Benchmark(options(tmp_path))
    script.Benchmark(options(tmp_path, "--seeds", "2", "--arms", "gradient", "--jobs", "3"))
    with pytest.raises(ConfigError, match="other settings"):
        script.Benchmark(options(tmp_path, "--width", "8"))


@pytest.mark.slow
def test_every_arm_is_trained_scored_and_compared_and_kept(tiny_msd, tmp_path, capsys, monkeypatch):
    arguments = [str(tiny_msd), "--out", str(tmp_path), "--steps", "8", "--seeds", "0", "--width", "4", "--jobs", "2"]
    arguments += [
        "--patch",
        "16,16,16",
        "--batch",
        "1",
        "--update-every",
        "3",
        "--arms",
        "dynamic,static,dense",
    ]
    arguments += ["--set", "train.workers=0", "--set", "train.validation_patches=1", "--set", "predict.overlap=0"]
    assert script.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {words[0]: words for words in map(str.split, lines) if len(words) == 6 and words[0] in script.ARMS}
    assert {arm: row[3] for arm, row in rows.items()} == {"dynamic": "2", "static": "0", "dense": "0"}
    assert sum("95 % interval" in line for line in lines) == 2 * 3  # three pairs, over all seeds and for the only one
    results = read_json(tmp_path / "comparison.json")
    assert results["facts"]["dynamic"]["0"]["moves_per_kernel"] > 0
    log = (tmp_path / "static_seed0" / "fold_0" / "log.jsonl").read_text().splitlines()
    (start,) = (event for event in map(json.loads, log) if event["event"] == "topology")
    active, kernels = start["layers"]["fusion.0.0.0.conv"]
    assert active == round(0.2 * kernels)

    def fail(*arguments):
        raise AssertionError("what is finished must be kept")

    monkeypatch.setattr(script, "run", fail)
    assert script.main(arguments) == 0
