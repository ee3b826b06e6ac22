import json
from dataclasses import replace

import pytest
from studies import design_of, finish

from voxelseg.errors import ConfigError
from voxelseg.study.design import Training


def command_of(design, training):
    words = list(design.job(training, threads=3, workers=1).command)
    return words[words.index("train") :]


def test_trainings_are_alike_but_for_seed_cases_and_weights(tmp_path):
    design = design_of(tmp_path)
    scratch, mae = (command_of(design, Training(start, 25.0, 1)) for start in design.starts)
    changed = [word for word in mae if word not in scratch]
    assert changed == [
        str(tmp_path / "runs" / "mae" / "25_seed_1"),
        "--init",
        "/weights/mae/model.safetensors",
        "transfer.least_share=0.5",  # fresh weights have no share, and the setting would be refused
    ]
    assert [word for word in scratch if word not in mae] == [str(tmp_path / "runs" / "scratch" / "25_seed_1")]
    for pair in (["--epochs", "2"], ["--seed", "1"], ["--fold", "0"], ["--set", "train.threads=3"]):
        assert " ".join(pair) in " ".join(scratch)


def test_the_fold_of_a_training_has_its_subset_and_all_held_out_cases(tmp_path):
    design = design_of(tmp_path)
    design.job(Training(design.starts[0], 25.0, 1), threads=1, workers=1)
    (fold,) = json.loads((tmp_path / "subsets" / "25_seed_1.json").read_text())
    assert fold == {"train": ["train_0", "train_1"], "val": sorted(design.held_out)}


def test_seeds_come_one_after_the_other(tmp_path):
    names = [training.name for training in design_of(tmp_path).trainings]
    assert names[:3] == ["scratch, 25 %, seed 0", "mae, 25 %, seed 0", "scratch, 100 %, seed 0"]
    assert len(names) == 8


def test_a_training_is_finished_when_all_held_out_cases_are_scored(tmp_path):
    design = design_of(tmp_path)
    training = Training(design.starts[0], 25.0, 0)
    assert design.outcome(training) is None
    summary = finish(design, "scratch", 25.0, 0, [0.5] * 6, steps=30)
    outcome = design.outcome(training)
    assert outcome is not None
    assert (outcome.steps, outcome.training_s, outcome.scores.mean("dice")) == (30, 1.5, 0.5)
    summary.write_text("{")
    assert design.outcome(training) is None


def test_scores_of_other_cases_do_not_count(tmp_path):
    finish(design_of(tmp_path, held_out=("case_0", "case_1")), "scratch", 25.0, 0, [0.5, 0.5])
    assert design_of(tmp_path).outcome(Training(design_of(tmp_path).starts[0], 25.0, 0)) is None


def test_starts_shares_and_seeds_may_be_added_and_nothing_else_may_change(tmp_path):
    design_of(tmp_path).record()
    design_of(tmp_path, starts=("rubik",), shares=(50.0,), seeds=(7,)).record()
    assert set(json.loads((tmp_path / "settings.json").read_text())["starts"]) == {"mae", "rubik"}
    with pytest.raises(ConfigError, match=r"holds trainings with other settings \(length; "):
        design_of(tmp_path, length={"epochs": 3}).record()
    other = {key: replace(one, cases=("else",)) for key, one in design_of(tmp_path).subsets.items()}
    with pytest.raises(ConfigError, match=r"cases of 25_seed_0, cases of 25_seed_1"):
        design_of(tmp_path, subsets=other).record()
    with pytest.raises(ConfigError, match=r"start mae.*another name for a start with other weights"):
        design_of(tmp_path, checksums={"mae": "other"}).record()


def test_what_decides_how_much_equal_time_is_worth_may_not_change(tmp_path):
    pace = {"device": "cpu", "jobs": 2, "threads": 1}
    design_of(tmp_path, length={"budget": "20m"}, pace=pace).record()
    with pytest.raises(ConfigError, match=r"holds trainings with other settings \(jobs; "):
        design_of(tmp_path, length={"budget": "20m"}, pace={**pace, "jobs": 1}).record()
