import sys

import pytest

from voxelseg.errors import ConfigError
from voxelseg.train.loop.tensorboard import TENSORBOARD_FOLDER, TensorBoard, curves

EPOCH = {
    "epoch": 3,
    "step": 8,
    "loss": 0.5,
    "lr": 1e-3,
    "validation_loss": None,
    "validation_dice": {"liver": 0.25, "spleen": 0.75},
    "best": True,
}


def test_every_number_of_an_event_is_a_point_of_a_curve():
    assert dict(curves(EPOCH)) == {
        "loss": 0.5,
        "lr": 1e-3,
        "validation_dice/liver": 0.25,
        "validation_dice/spleen": 0.75,
    }


def test_active_kernels_are_shares_by_node_and_direction():
    event = {"step": 4, "update": 2, "rate": 0.5, "nodes": {"x[1,0]": {"up": [1, 4], "forward": (3, 4)}}}
    assert dict(curves(event)) == {"rate": 0.5, "nodes/x[1,0]/up": 0.25, "nodes/x[1,0]/forward": 0.75}


def test_without_tensorboard_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'voxelseg\[tensorboard\]', or leave the setting out"):
        TensorBoard(tmp_path, first_step=1)


def test_a_continued_training_has_no_point_twice(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / TENSORBOARD_FOLDER
    first = TensorBoard(folder, first_step=1)
    for step in (2, 4, 6):
        first.write(step, {"loss": float(step)})
    first.close()  # killed after step 6, but the state is that of step 4
    second = TensorBoard(folder, first_step=5)
    second.write(6, {"loss": 60.0})
    second.close()
    read = EventAccumulator(str(folder)).Reload()
    assert [(point.step, point.value) for point in read.Scalars("loss")] == [(2, 2.0), (4, 4.0), (6, 60.0)]


def test_a_training_that_begins_anew_has_no_point_twice(prepared, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"epochs": 1, "steps_per_epoch": 2, "tensorboard": True}
    killed = prepared.trainer(tmp_path, **settings)
    with killed._curves():
        killed._write_record("topology", {"rate": 0.0})  # before the first step, and before there is a state
    again = prepared.trainer(tmp_path, **settings)
    with again._curves():
        again._write_record("topology", {"rate": 0.0})
    read = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    assert [point.step for point in read.Scalars("rate")] == [0]


def test_a_training_writes_its_log_as_curves(prepared, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    prepared.trainer(tmp_path, epochs=2, steps_per_epoch=2, tensorboard=True).fit()
    read = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    assert [point.step for point in read.Scalars("loss")] == [2, 4]
    assert "validation_dice/ball" in read.Tags()["scalars"]
