import json

import pytest
import recipes

from voxelseg.recipes import RECIPES, find_recipe


def test_recipes_with_the_same_network_patch_and_batch_are_done_once():
    names = [recipe.name for recipe in recipes.distinct(RECIPES.values())]
    assert [name for name in names if name.startswith("mednext_s")] == ["mednext_s_k3_btcv", "mednext_s_k5_btcv"]
    assert [name for name in names if name.startswith("e2enet")] == ["e2enet_s70_amos22", "e2enet_s70_btcv"]
    assert [name for name in names if name.startswith("logonet")] == ["logonet_btcv", "logonet_l_btcv"]
    assert len(names) == 4 * 2 + 4 + 2 + 2  # sizes and kernels; 3D UX-Net: 7, 13, and two with planned patches


def test_every_class_of_a_phantom_occurs(tmp_path):
    from voxelseg.data.layouts import read_dataset
    from voxelseg.io import read_label

    public = find_recipe("mednext_s_k3_brats21").public_data
    data = recipes.write_phantom(public, tmp_path, (12, 16, 20), spacing_mm=(2.0, 1.0, 1.0))
    dataset = read_dataset(data)
    assert dataset.channels == public.channels
    for case in dataset.cases:
        assert case.label is not None
        assert set(read_label(case.label).array.flat) == {0, 1, 2, 4}


@pytest.mark.slow
def test_a_step_is_measured_and_written(tmp_path, monkeypatch):
    small = ("plan.patch_size=[32,16,16]", "model.width=4")
    monkeypatch.setattr(recipes, "FORMS", {form: (*small, *settings) for form, settings in recipes.FORMS.items()})
    (step,) = recipes.main(["mednext_s_k3_btcv", "--threads", "1", "--out", str(tmp_path / "recipes.json")])
    assert step.passed
    assert (step.form, step.steps) == ("whole batch", 1)
    assert 0.1 < step.peak_gb < 4
    assert json.loads((tmp_path / "recipes.json").read_text())["steps"][0]["recipe"] == "mednext_s_k3_btcv"


@pytest.mark.slow
def test_what_does_not_fit_is_tried_in_smaller_forms_and_said(monkeypatch):
    small = ("plan.patch_size=[64,64,64]", "model.width=16")
    monkeypatch.setattr(recipes, "FORMS", {form: (*small, *settings) for form, settings in recipes.FORMS.items()})
    (step,) = recipes.main(["mednext_s_k3_btcv", "--threads", "1", "--memory-gb", "1"])
    assert not step.passed or step.form != "whole batch"
    assert step.passed or "memory" in step.form
