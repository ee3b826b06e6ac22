import json

import arms
import pytest
import sparse_training as script

from voxelseg.errors import ConfigError
from voxelseg.files import read_json


def options(tmp_path, *arguments):
    return script.parse([str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1"], "between 0 and 1"),
        (["--steps", "0"], "--steps must be at least 1"),
    ],
)
def test_impossible_options_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, *arguments)


def test_a_folder_with_other_settings_is_refused_but_seeds_and_arms_may_be_added(tmp_path):
    script.SparseTraining(options(tmp_path))
    script.SparseTraining(options(tmp_path, "--seeds", "2", "--arms", "gradient", "--jobs", "3"))
    for other in (["--width", "8"], ["--update-every", "50"], ["--sparsity", "0.9"]):
        with pytest.raises(ConfigError, match="other settings"):
            script.SparseTraining(options(tmp_path, *other))


def test_arms_differ_in_their_sparse_kernels_only(tmp_path):
    benchmark = script.SparseTraining(options(tmp_path, "--steps", "40", "--update-every", "5"))
    assert benchmark.arm_settings("dynamic") == ["sparse.sparsity=0.8", "sparse.update_every=5"]
    assert benchmark.arm_settings("static") == ["sparse.sparsity=0.8", "sparse.freeze_topology=true"]
    assert benchmark.arm_settings("dense") == ["sparse.sparsity=0"]
    assert benchmark.settings() == ["train.steps_per_epoch=40", "train.epochs=1", "model.width=16"]


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
    assert results["facts"]["dynamic"]["0"]["moves per kernel"] > 0
    log = (tmp_path / "static_seed0" / "fold_0" / "log.jsonl").read_text().splitlines()
    (start,) = (event for event in map(json.loads, log) if event["event"] == "topology")
    active, kernels = start["layers"]["fusion.0.0.0.conv"]
    assert active == round(0.2 * kernels)

    def fail(*arguments):
        raise AssertionError("what is finished must be kept")

    monkeypatch.setattr(arms, "run", fail)
    assert script.main(arguments) == 0
