import arms
import pytest
import upkern as script

from voxelseg.errors import ConfigError
from voxelseg.files import read_json


def options(tmp_path, *arguments):
    return script.parse([str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments])


def test_epochs_divide_the_steps_and_leave_two_of_them(tmp_path):
    def lengths(steps, name):
        chosen = options(tmp_path, "--steps", str(steps))
        chosen.out = tmp_path / name
        return script.UpKern(chosen).settings()[:2]

    assert lengths(3000, "long") == ["train.steps_per_epoch=250", "train.epochs=12"]
    assert lengths(40, "short") == ["train.steps_per_epoch=20", "train.epochs=2"]
    assert lengths(2, "shortest") == ["train.steps_per_epoch=1", "train.epochs=2"]


def test_arms_differ_in_their_kernels_only(tmp_path):
    benchmark = script.UpKern(options(tmp_path, "--minutes", "1", "--grow-share", "0.3"))
    assert benchmark.arm_settings("grown") == ["train.grow_kernel=[3,5]", "train.grow_share=0.3"]
    assert benchmark.arm_settings("scratch") == ["model.kernel_size=5"]
    assert benchmark.arm_settings("small") == ["model.kernel_size=3"]
    assert benchmark.settings() == ["model.width=16"]
    assert benchmark.length == ["--budget", "1m"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1", "--grow-share", "1"], "--grow-share must be between 0 and 1"),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--steps", "1"], "--steps must be at least 2"),
    ],
)
def test_impossible_options_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, *arguments)


def test_a_folder_with_other_settings_is_refused_but_seeds_and_arms_may_be_added(tmp_path):
    script.UpKern(options(tmp_path, "--minutes", "1"))
    script.UpKern(options(tmp_path, "--minutes", "1", "--seeds", "2", "--arms", "small", "--jobs", "3"))
    with pytest.raises(ConfigError, match="other settings"):
        script.UpKern(options(tmp_path, "--minutes", "2"))


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

    monkeypatch.setattr(arms, "run", fail)
    assert script.main(arguments) == 0
