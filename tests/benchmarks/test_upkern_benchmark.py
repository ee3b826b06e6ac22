import pytest
import upkern as script

from voxelseg.errors import ConfigError
from voxelseg.files import read_json


def options(tmp_path, *arguments):
    return script.parse([str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments])


def test_the_table_has_dice_and_steps_of_each_arm():
    dice = {"grown": {0: {"a": 0.9, "b": 0.7}, 1: {"a": 0.5, "b": 0.3}}, "scratch": {0: {"a": 1.0}, 1: {"a": 0.0}}}
    facts = {arm: {seed: {"steps": 100 + seed, "small_steps": 61, "seconds": 9.6} for seed in (0, 1)} for arm in dice}
    header, grown, scratch = (line.split() for line in script.table(dice, facts).splitlines())
    assert header == ["arm", "seed", "0", "seed", "1", "mean", "steps", "with", "k3", "seconds"]
    assert grown == ["grown", "0.8000", "0.4000", "0.6000", "100", "61", "10"]  # 100.5 steps rounds to the even one
    assert scratch[1:4] == ["1.0000", "0.0000", "0.5000"]


def test_epochs_divide_the_steps_and_leave_two_of_them(tmp_path):
    def lengths(steps, name):
        chosen = options(tmp_path, "--steps", str(steps))
        chosen.out = tmp_path / name
        return script.Benchmark(chosen)._settings()[1:3]

    assert lengths(3000, "long") == ["train.steps_per_epoch=250", "train.epochs=12"]
    assert lengths(40, "short") == ["train.steps_per_epoch=20", "train.epochs=2"]
    assert lengths(2, "shortest") == ["train.steps_per_epoch=1", "train.epochs=2"]


def test_arms_differ_in_their_kernels_only(tmp_path):
    benchmark = script.Benchmark(options(tmp_path, "--minutes", "1", "--grow-share", "0.3"))
    assert benchmark.arm_settings("grown") == ["train.grow_kernel=[3,5]", "train.grow_share=0.3"]
    assert benchmark.arm_settings("scratch") == ["model.kernel_size=5"]
    assert benchmark.arm_settings("small") == ["model.kernel_size=3"]
    assert benchmark._settings() == ["train.threads=1", "model.width=16"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1", "--arms", "grown,tiny"], r"unknown arms \['tiny'\]"),
        (["--minutes", "1", "--seeds", "0,one"], "whole numbers"),
        (["--minutes", "1", "--threads", "0"], "--threads must be at least 1"),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--steps", "1"], "--steps must be at least 2"),
    ],
)
def test_impossible_options_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, *arguments)


def test_a_folder_with_other_settings_is_refused_but_seeds_and_arms_may_be_added(tmp_path):
    script.Benchmark(options(tmp_path, "--minutes", "1"))
    script.Benchmark(options(tmp_path, "--minutes", "1", "--seeds", "2", "--arms", "small", "--jobs", "3"))
    with pytest.raises(ConfigError, match="other settings"):
        script.Benchmark(options(tmp_path, "--minutes", "2"))


@pytest.mark.slow
def test_every_arm_is_trained_scored_and_compared_and_kept(tiny_msd, tmp_path, capsys, monkeypatch):
    arguments = [str(tiny_msd), "--out", str(tmp_path), "--steps", "4", "--seeds", "0", "--width", "2", "--jobs", "2"]
    arguments += ["--patch", "16,32,16", "--batch", "1", "--arms", "grown,scratch,small", "--model", "mednext_xs"]
    for setting in ("model.blocks=1", "train.workers=0", "train.validation_patches=1", "predict.overlap=0"):
        arguments += ["--set", setting]
    assert script.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {words[0]: words for words in map(str.split, lines) if len(words) == 6 and words[0] in script.ARMS}
    assert {arm: row[3:5] for arm, row in rows.items()} == {
        "grown": ["4", "2"],
        "scratch": ["4", "0"],
        "small": ["4", "4"],
    }
    assert sum("95 % interval" in line for line in lines) == 2 * 3  # three pairs, over all seeds and for the only one
    assert read_json(tmp_path / "comparison.json")["differences"].keys() == {
        "grown minus scratch",
        "grown minus small",
        "scratch minus small",
    }

    def fail(*arguments):
        raise AssertionError("what is finished must be kept")

    monkeypatch.setattr(script, "run", fail)
    assert script.main(arguments) == 0
