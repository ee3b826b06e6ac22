import random

import kill_and_continue as script
import pytest


class Writer:
    """A stage whose command writes what it is told, for tests of the script itself."""

    def __init__(self, monkeypatch, contents):
        self.contents = iter(contents)
        monkeypatch.setattr(script, "run_command", lambda arguments: self.write(arguments[0]))
        monkeypatch.setattr(script, "_killed", lambda arguments, moment, with_workers: True)
        self.stage = script.Stage(
            "writing",
            lambda here: here.mkdir(parents=True),
            lambda here: [here],
            lambda here: {path.name: path.read_text() for path in here.iterdir()},
        )

    def write(self, here):
        for name, text in next(self.contents).items():
            (here / name).write_text(text)
        return 0.01


def test_a_command_that_comes_to_the_same_end_passes(monkeypatch, tmp_path):
    stage = Writer(monkeypatch, [{"a": "1"}] * 3).stage
    outcome = script.kill_and_continue(stage, tmp_path, kills=5, generator=random.Random(0))
    assert (outcome.kills, outcome.finished) == (5, 1)


@pytest.mark.parametrize(
    ("after", "named"),
    [
        ({"a": "2"}, "writing: a in .* differ from an undisturbed run"),
        ({"b": "1"}, "writing: a, b in .* differ"),
        ({"a": "1", ".partial-1-a": ""}, "differ|are left"),
    ],
    ids=["other", "missing", "leftover"],
)
def test_a_command_that_leaves_anything_else_does_not(monkeypatch, tmp_path, after, named):
    stage = Writer(monkeypatch, [{"a": "1"}, {}, after]).stage
    with pytest.raises(script.CorruptError, match=named):
        script.kill_and_continue(stage, tmp_path, kills=1, generator=random.Random(0))


@pytest.mark.slow
def test_every_stage_survives_being_killed(tmp_path):
    generator = random.Random(1)
    for stage in script.stages(tmp_path, num_training=4, num_test=2):
        outcome = script.kill_and_continue(stage, tmp_path / stage.name, kills=3, generator=generator)
        assert outcome.kills == 3
