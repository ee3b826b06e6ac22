import pytest

from voxelseg.benchmark.length import Length
from voxelseg.errors import ConfigError


@pytest.mark.parametrize(
    ("steps", "settings"),
    [
        (4, ["train.steps_per_epoch=4", "train.epochs=1"]),
        (1000, ["train.steps_per_epoch=250", "train.epochs=4"]),
        (502, ["train.steps_per_epoch=2", "train.epochs=251", "train.validate_every=6"]),  # 251 is prime; 251 / 50
    ],
)
def test_steps_are_epochs_of_equal_size_with_validations_now_and_then(steps, settings):
    assert Length(steps=steps).settings() == settings


def test_a_setting_of_the_user_goes_before():
    assert Length(steps=502).settings(["train.validate_every=1"])[-1] == "train.epochs=251"


def test_time_and_epochs_are_options():
    assert Length(budget="30m").options() == ["--budget", "30m"]
    assert Length(epochs=3).options() == ["--epochs", "3"]
    assert Length(steps=3).options() == []
    assert Length(budget="30m").in_minutes
    assert [str(one) for one in (Length(budget="30m"), Length(steps=3), Length(epochs=2))] == [
        "30m of training each",
        "3 steps each",
        "2 epochs each",
    ]
    assert Length(steps=3).to_dict() == {"steps": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "found none"),
        ({"budget": "3m", "steps": 2}, "found --budget and --steps"),
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
    ],
)
def test_one_length_is_needed(given, message):
    with pytest.raises(ConfigError, match=message):
        Length(**given)
