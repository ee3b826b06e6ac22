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
    assert len(text.splitlines()) < 20


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
