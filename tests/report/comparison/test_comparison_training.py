from scored import contestants

from voxelseg.report.comparison.training import training_section

EPOCHS = [{"event": "epoch", "epoch": one, "step": one, "elapsed_s": 60.0 * one, "loss": 1 / one} for one in (1, 2)]
TOPOLOGY = [
    {
        "event": "topology",
        "step": step,
        "moved": step,
        "rate": 0.1,
        "layers": {"x": [4, 8]},
        "nodes": {"x[1,0]": {"up": [1 + step, 4], "forward": [3 - step, 4]}},
    }
    for step in (0, 1)
]


def names(section):
    return [one.name for one in section.drawings]


def test_without_logs_there_is_no_section(material):
    assert training_section(material) is None


def test_the_loss_is_drawn_where_there_was_no_validation(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, logs={"seed 0, fold 0": EPOCHS})
    section = training_section(make_material(found))
    assert names(section) == ["learning"]
    assert section.drawings[0].title == "Training loss during training"
    assert "minutes" in section.drawings[0].text


def test_the_running_dice_goes_before_the_loss(make_material):
    validated = [{**one, "mean_dice": 0.5} for one in EPOCHS]
    found = contestants({"a": 0.8, "b": 0.7}, logs={"seed 0, fold 0": validated})
    assert training_section(make_material(found)).drawings[0].title == "Running Dice during training"


def test_sparse_fusion_is_drawn_where_there_is_some(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, logs={"seed 0, fold 0": [*EPOCHS, *TOPOLOGY]})
    assert names(training_section(make_material(found))) == ["learning", "moves_0", "moves_1", "fusion"]
