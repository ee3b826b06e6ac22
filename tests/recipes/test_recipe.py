from voxelseg.recipes.recipe import as_setting, merged


def test_later_values_go_before_earlier_ones_key_by_key():
    first, second = {"train": {"lr": 1, "eps": 2}}, {"train": {"lr": 3}, "plan": {"batch_size": 4}}
    assert merged(first, second) == {"train": {"lr": 3, "eps": 2}, "plan": {"batch_size": 4}}
    assert first == {"train": {"lr": 1, "eps": 2}}


def test_a_value_is_written_as_the_command_line_takes_it():
    assert as_setting([{"kind": "window", "window": [-175.0, 250.0]}]) == "[{kind: window, window: [-175.0, 250.0]}]"
    assert [as_setting(value) for value in (True, None, 1e-8, "sgd")] == ["true", "null", "1e-08", "sgd"]
