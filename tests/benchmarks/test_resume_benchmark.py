import random

import pytest
import resume as script

from voxelseg import checkpoint
from voxelseg.train.loop.trainer import Trainer
from voxelseg.train.loop.watch import Watch


@pytest.mark.parametrize(
    ("functions", "phase"),
    [
        (["fsync", "atomic_path", "write_state", "save_state", "fit"], "saving"),
        (["save_checkpoint", "<lambda>", "_keep_best", "_end_epoch", "fit"], "saving"),
        (["forward", "__call__", "validate", "look", "_end_epoch", "fit"], "validation"),
        (["backward", "gradients", "_take_step", "fit"], "training"),
        (["predict_cases", "validate_fold"], "else"),
    ],
)
def test_what_a_process_did_follows_from_its_functions(functions, phase):
    lines = ["Current thread 0x00007f (most recent call first):"]
    assert script.phase_of("\n".join([*lines, *(f'  File "x.py", line 3 in {name}' for name in functions)])) == phase


def test_the_functions_that_phases_go_by_are_those_of_a_training():
    there = {*vars(Trainer), *vars(Watch), *vars(checkpoint)}
    assert {name for names in script.PHASES.values() for name in names} <= there


class Writer:
    """A training that ends when it has been killed twice, and leaves what it is told."""

    name = "writing"

    def __init__(self, monkeypatch, folder, weights):
        self.folder = folder
        self.starts = 0
        self.weights = iter(weights)
        monkeypatch.setattr(script, "run_command", lambda arguments: None)
        monkeypatch.setattr(script, "trained", lambda run: {"weights": next(self.weights)})
        monkeypatch.setattr(script, "read_json", lambda path: {"config": {"train": {"deterministic": True}}})

    def arguments(self, run):
        run.mkdir(parents=True, exist_ok=True)
        return []

    def undisturbed(self):
        return 2.0

    def killed(self, run, moment, *, with_workers, while_saving):
        assert 0 <= moment < 1
        self.starts += 1
        return None if self.starts % 3 == 0 else "training"


def test_equal_ends_pass_and_kills_are_counted_by_what_they_came_in(monkeypatch, tmp_path):
    training = Writer(monkeypatch, tmp_path, ["a", "a", "a"])
    outcome = script.kill_and_resume(training, kills=4, generator=random.Random(0))
    assert (outcome.kills, outcome.finished, outcome.difference) == (4, 2, "")
    assert outcome.phases == {"training": 4}


def test_other_weights_are_a_difference_that_is_named(monkeypatch, tmp_path):
    training = Writer(monkeypatch, tmp_path, ["a", "b"])
    outcome = script.kill_and_resume(training, kills=4, generator=random.Random(0))
    assert "writing: weights in" in outcome.difference
    assert script._line(script._values(outcome)).endswith("NO")


@pytest.mark.slow
def test_a_sparse_training_survives_being_killed(tmp_path, capsys):
    script.main(["--kills", "3", "--training", "E2ENet, sparse", "--out", str(tmp_path)])
    assert "3 kills, 0 trainings that ended differently" in capsys.readouterr().out
