import json
import math

from voxelseg.train.loop.log import TrainLog
from voxelseg.train.loop.stage import Stage


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_is_a_line_of_json_and_nan_is_null(tmp_path):
    log = TrainLog(tmp_path / "log.jsonl")
    log.write("start", step=0)
    log.write("epoch", epoch=0, loss=math.nan, validation_dice={"liver": 0.5, "spleen": math.inf})
    assert events(log.path) == [
        {"event": "start", "step": 0},
        {"event": "epoch", "epoch": 0, "loss": None, "validation_dice": {"liver": 0.5, "spleen": None}},
    ]


def test_continuing_drops_epochs_that_are_done_again_the_end_and_a_half_written_line(tmp_path):
    log = TrainLog(tmp_path / "log.jsonl")
    log.write("start")
    log.write("topology", step=0)
    for epoch in range(3):
        log.write("epoch", epoch=epoch, step=2 * epoch + 2)
    log.write("topology", step=3)
    log.write("topology", step=5)
    log.write("early_stop", step=6)
    log.write("end", step=6)
    with log.path.open("a") as file:
        file.write('{"event": "epo')
    log.continue_from(4)
    log.write("resume")
    assert [(one["event"], one.get("step")) for one in events(log.path)] == [
        ("start", None),
        ("topology", 0),
        ("epoch", 2),
        ("epoch", 4),
        ("topology", 3),
        ("resume", None),
    ]


def test_beginning_anew_drops_all_that_is_done_again_but_not_the_history(tmp_path):
    log = TrainLog(tmp_path / "log.jsonl")
    log.write("start", step=0)
    log.write("topology", step=0)
    log.write("diverged", step=1)
    log.continue_from(0)
    assert [one["event"] for one in events(log.path)] == ["start", "diverged"]


def test_continuing_without_a_log_makes_none(tmp_path):
    TrainLog(tmp_path / "log.jsonl").continue_from(0)
    assert list(tmp_path.iterdir()) == []


def test_a_later_stage_counts_on_and_keeps_the_events_of_the_first(tmp_path):
    path = tmp_path / "log.jsonl"
    first = TrainLog(path, Stage(name="kernel 3"))
    for epoch in range(2):
        first.write("epoch", epoch=epoch, step=2 * epoch + 2, elapsed_s=float(epoch))
    first.write("end", step=4)
    second = TrainLog(path, Stage(name="kernel 5", epochs=2, steps=4, elapsed_s=1.0))
    second.continue_from(0)
    second.write("epoch", epoch=0, step=2, elapsed_s=1.5)
    assert [(one["stage"], one["epoch"], one["step"], one["elapsed_s"]) for one in events(path)] == [
        ("kernel 3", 0, 2, 0.0),
        ("kernel 3", 1, 4, 1.0),
        ("kernel 5", 2, 6, 2.5),
    ]
    second.continue_from(0)  # killed before its first state was saved
    assert [one["epoch"] for one in events(path)] == [0, 1]


def test_a_training_of_one_stage_does_not_name_it(tmp_path):
    log = TrainLog(tmp_path / "log.jsonl")
    log.write("epoch", epoch=0, step=2)
    assert events(log.path) == [{"event": "epoch", "epoch": 0, "step": 2}]
