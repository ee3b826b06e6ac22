import json
import math

from voxelseg.train.log import TrainLog


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
    for epoch in range(3):
        log.write("epoch", epoch=epoch)
    log.write("end")
    with log.path.open("a") as file:
        file.write('{"event": "epo')
    log.continue_from(2)
    log.write("resume")
    assert [(one["event"], one.get("epoch")) for one in events(log.path)] == [
        ("start", None),
        ("epoch", 0),
        ("epoch", 1),
        ("resume", None),
    ]


def test_continuing_without_a_log_makes_none(tmp_path):
    TrainLog(tmp_path / "log.jsonl").continue_from(0)
    assert list(tmp_path.iterdir()) == []
