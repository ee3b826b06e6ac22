import json

import pytest

from voxelseg.errors import ConfigError, DataError
from voxelseg.plan import Normalization, Plan, read_plan
from voxelseg.plan.plan import parse_plan

PLAN = Plan(
    channels=("CT",),
    spacing_mm=(2.5, 0.8, 0.8),
    anisotropic=True,
    normalization=(Normalization(kind="ct", window=(-160.0, 240.0), mean=80.0, std=30.0),),
    patch_size=(16, 96, 112),
    batch_size=2,
    mirror_axes=(0, 2),
    median_shape=(20, 300, 320),
    strides=((1, 1, 1), (1, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3)),
    notes=("why",),
)


def test_json_is_read_back_equal_and_fits_a_screen(tmp_path):
    PLAN.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == PLAN
    text = (tmp_path / "plan.json").read_text()
    assert '"patch_size": [16, 96, 112]' in text
    assert len(text.splitlines()) < 24


def test_values_that_do_not_apply_are_left_out_of_the_file(tmp_path):
    PLAN.changed(normalization=[{"kind": "zscore"}]).write(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["normalization"] == [{"kind": "zscore"}]
    assert read_plan(tmp_path / "plan.json").normalization[0].window is None


def test_only_what_changes_stored_data_changes_the_key():
    same = PLAN.changed(patch_size=[8, 8, 8], batch_size=9, mirror_axes=[], notes=[], median_shape=[1, 1, 1])
    assert same.preprocessing_key() == PLAN.preprocessing_key()
    for change in (
        {"spacing_mm": [2.5, 0.8, 0.9]},
        {"axes": [1, 0, 2]},
        {"anisotropic": False},
        {"nearest_along_coarse": False},
        {"channels": ["MRI"]},
        {"normalization": [{"kind": "zscore"}]},
        {"normalize_first": False},
        {"resampling": "centres"},
        {"image_order": 1},
        {"clip_overshoot": True},
        {"label_order": 0},
        {"crop": "positive"},
    ):
        assert PLAN.changed(**change).preprocessing_key() != PLAN.preprocessing_key(), change


def test_a_changed_plan_leaves_the_first_as_it_was():
    assert PLAN.changed(batch_size=5).batch_size == 5
    assert PLAN.batch_size == 2


def test_a_plan_edited_wrongly_names_file_and_keys(tmp_path):
    value = {**PLAN.model_dump(), "batch_size": "many", "patchsize": 3}
    (tmp_path / "plan.json").write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=r"plan.json: batch_size: .*got 'many'.*patchsize: unknown key"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
def test_a_file_that_holds_no_plan_is_an_error(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises((ConfigError, DataError), match=r"plan.json"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(DataError, match=r"other.json: file not found. Run `voxelseg plan` again"):
        read_plan(tmp_path / "other.json")


def test_a_ct_window_must_ascend():
    with pytest.raises(ConfigError, match="window"):
        parse_plan(
            {**PLAN.model_dump(), "normalization": [{"kind": "ct", "window": [5, 5], "mean": 0, "std": 1}]}, source="x"
        )


def test_plans_from_before_a_key_are_read_and_keep_their_key(tmp_path):
    value = PLAN.model_dump(exclude_none=True)
    for added in ("resampling", "image_order", "clip_overshoot", "label_order", "normalize_first", "crop"):
        del value[added]
    (tmp_path / "plan.json").write_text(json.dumps(value))
    assert read_plan(tmp_path / "plan.json") == PLAN
    # what the first version of this program made of this plan
    assert PLAN.preprocessing_key().startswith("3c78d57584de")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "window"}, "a window normalization needs window"),
        ({"kind": "window", "window": [250, -175]}, r"window \[250.0, -175.0\]: expected low before high"),
        ({"kind": "window", "window": [0, 1], "mean": 3}, "a window normalization has no mean"),
        ({"kind": "window", "window": [0, float("inf")]}, "window.1: .*finite"),
        ({"kind": "percentiles", "window": [0, 1]}, "a percentiles normalization needs percentiles"),
        ({"kind": "percentiles", "percentiles": [99, 1]}, "expected low before high"),
        ({"kind": "percentiles", "percentiles": [1, 101]}, "percentiles.1: .*less than or equal to 100"),
        ({"kind": "zscore", "std": 2}, "a zscore normalization has no std"),
        ({"kind": "ct", "window": [0, 1], "mean": 0}, "a ct normalization needs std"),
    ],
)
def test_a_normalization_has_what_its_kind_needs_and_nothing_else(rule, message):
    with pytest.raises(ConfigError, match=message):
        PLAN.changed(normalization=[rule])


@pytest.mark.parametrize("value", [{"crop": "body"}, {"resampling": "corners"}, {"image_order": 2}, {"label_order": 3}])
def test_unknown_ways_of_preprocessing_are_errors(value):
    with pytest.raises(ConfigError, match=next(iter(value))):
        PLAN.changed(**value)


def test_channels_whose_background_stays_0_are_named():
    rules = [{"kind": kind} for kind in ("zscore", "zscore_nonzero", "none", "zscore_mask")]
    assert PLAN.changed(channels=["a", "b", "c", "d"], normalization=rules).masked_channels == (1, 3)
