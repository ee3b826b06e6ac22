"""All recipes: each builds its config, its network and its plan on data of its kind, and trains."""

import json
import re
from math import isfinite, prod

import numpy as np
import pytest
import torch
from recipes import distinct  # benchmarks/recipes.py

from voxelseg.errors import ConfigError
from voxelseg.plan.planner import PlanLimits, make_plan, override_plan
from voxelseg.recipes import RECIPES, Difference, find_recipe
from voxelseg.recipes.e2enet import e2enet, e2enet_ct_to_mri
from voxelseg.recipes.logonet import steps_per_paper_epoch
from voxelseg.recipes.mednext import mednext
from voxelseg.recipes.uxnet import uxnet
from voxelseg.train.config import RunConfig
from voxelseg.train.run import build_network, plan_for_network

LEFT_TO_THE_DEFAULTS = {
    # of the machine, of what is watched, and off unless it is set
    *("budget_s", "compile", "deterministic", "workers", "threads", "tensorboard", "validation_patches"),
    *("validate_every", "watch", "save_best", "checkpointing", "grow_kernel", "grow_lr"),
}
MEANINGLESS = {
    "grow_share": lambda train: "grow_kernel" not in train,
    "momentum": lambda train: train["optimizer"] != "sgd",
    "betas": lambda train: train["optimizer"] != "adamw",
    "eps": lambda train: train["optimizer"] != "adamw",
    "poly_power": lambda train: train["schedule"] != "poly",
    "plateau_factor": lambda train: train["schedule"] != "plateau",
    "plateau_patience": lambda train: train["schedule"] != "plateau",
    "background_above": lambda train: train["foreground_sampling"] != "voxel",
}
"""Keys of `train`, and when they have no effect."""

DIFFERENCES = [
    pytest.param(recipe, difference, id=f"{recipe.name}-{difference.what}")
    for difference, recipe in {one: recipe for recipe in RECIPES.values() for one in recipe.differences}.items()
]
"""Each once, with the last recipe that has it."""

every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))


def without_memory(recipe, dataset, plan, settings=()):
    with torch.device("meta"):
        return build_network(recipe.model, dataset, recipe.config(settings), plan)


@pytest.mark.parametrize(
    ("family", "number"),
    [("mednext_", 4 * 4 * 2), ("uxnet_", 5 + 4), ("e2enet_", 3 * 3 + 1), ("logonet_", 7 * 2)],
)
def test_every_training_of_the_papers_is_there(family, number):
    assert sum(name.startswith(family) for name in RECIPES) == number


@every_recipe
def test_every_recipe_builds_its_config_network_and_plan(recipe, phantom):
    dataset, fingerprint = phantom(recipe.data)
    config = recipe.config()
    plan = make_plan(fingerprint, PlanLimits(), config.plan)
    network = without_memory(recipe, dataset, plan)
    fitted = plan_for_network(plan, network)
    assert recipe.remarks(dataset) == []
    assert fitted.patch_size == tuple(config.plan.get("patch_size", fitted.patch_size))
    assert fitted.spacing_mm == tuple(config.plan.get("spacing_mm", plan.spacing_mm))
    assert network.config.num_classes == len(recipe.public_data.classes) + 1
    assert network.config.in_channels == len(recipe.public_data.channels)
    heads = len(network.output_strides)
    assert heads == {"mednext": 5, "e2enet": 4, "logonet": 1}.get(recipe.model.split("_")[0], heads)


@pytest.mark.parametrize(("recipe", "difference"), DIFFERENCES)
def test_what_paper_and_code_do_otherwise_can_be_set(recipe, difference, phantom):
    dataset, fingerprint = phantom(recipe.data)
    config = recipe.config(difference.settings)
    plan = make_plan(fingerprint, PlanLimits(), config.plan)
    if any(setting.startswith("model.") for setting in difference.settings):
        without_memory(recipe, dataset, None, difference.settings)  # as `train` does before it measures the scans
        without_memory(recipe, dataset, plan, difference.settings)
    assert (config != recipe.config()) == bool(difference.settings)


@pytest.mark.parametrize("name", ["mednext_s_k5_btcv", "uxnet_amos22", "logonet_btcv", "e2enet_s80_btcv"])
def test_a_work_folder_that_was_planned_for_thick_slices_does_not_change_the_network(name, phantom):
    recipe = find_recipe(name)
    dataset, fingerprint = phantom(recipe.data)
    config = recipe.config()
    thick = make_plan(fingerprint, PlanLimits()).changed(
        spacing_mm=(5.0, 0.8, 0.8), anisotropic=True, strides=[[1, 1, 1], *[[1, 2, 2]] * 5], kernels=[[1, 3, 3]] * 6
    )
    fresh, reused = make_plan(fingerprint, PlanLimits(), config.plan), override_plan(thick, fingerprint, config.plan)
    configs = [without_memory(recipe, dataset, plan).config for plan in (fresh, reused)]
    assert configs[0] == configs[1]
    assert reused.anisotropic == (recipe.model == "e2enet")  # whose spacing is the plan's


@every_recipe
def test_settings_that_remarks_name_can_be_given(recipe):
    for note in (*recipe.notes, *(one.note for one in recipe.differences)):
        settings = [setting.rstrip(".") for setting in re.findall(r"--set (\S+)", note)]
        given = [setting for setting in settings if not setting.endswith(("=N", "=..."))]
        recipe.config([*given, "transfer.init=RUN"])


@every_recipe
def test_a_recipe_writes_out_every_value_that_its_training_depends_on(recipe):
    train, augmentation = recipe.settings["train"], recipe.settings["augmentation"]
    fields = RunConfig.model_fields
    missing = set(fields["train"].annotation.model_fields) - set(train) - LEFT_TO_THE_DEFAULTS
    assert not [key for key in missing if key not in MEANINGLESS or not MEANINGLESS[key](train)]
    # any change with a probability is either described or off
    named = {"rotation", "scaling", "noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma"}
    assert named | {"gamma", "shift", "rotation90", "mirror"} <= set(augmentation)
    ranges = {"rotation": "rotation_degrees", "scaling": "scaling_range", "noise": "noise_std", "blur": "blur_sigma"}
    ranges |= {"brightness": "brightness_range", "contrast": "contrast_range", "gamma": "gamma_range"}
    ranges |= {"shift": "shift_range", "low_resolution": "low_resolution_zoom", "rotation90": "rotation90_axes"}
    assert not [change for change, key in ranges.items() if augmentation[change] and key not in augmentation]
    predict = set(fields["predict"].annotation.model_fields) - {"tolerance_mm"}
    assert predict <= set(recipe.settings["predict"])


@every_recipe
def test_a_recipe_can_be_written_as_json(recipe):
    found = json.loads(json.dumps(recipe.to_dict()))
    assert found["settings"] == json.loads(json.dumps(recipe.settings))
    assert found["command"].startswith("voxelseg train DATA --out RUN --recipe ")
    assert recipe.config([f"{key}={value}" for key, value in recipe.flat_settings().items()]) == recipe.config()


def test_an_unknown_recipe_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match=r"unknown recipe 'mednext_s_k3_btv' \(did you mean 'mednext_s_k3_btcv'\?\)"):
        find_recipe("mednext_s_k3_btv")


# ----------------------------------------------------------------------------------------------------- what they say


def test_spacing_is_in_our_order_the_coarse_axis_of_the_papers_first():
    # 1.0 x 1.0 x 1.2 and 1.5 x 1.5 x 2.0 along left-right, posterior-anterior, inferior-superior
    assert find_recipe("uxnet_flare21").settings["plan"]["spacing_mm"] == [1.2, 1.0, 1.0]
    assert find_recipe("uxnet_amos22").settings["plan"]["spacing_mm"] == [2.0, 1.5, 1.5]
    assert find_recipe("logonet_btcv").settings["plan"]["spacing_mm"] == [2.0, 1.5, 1.5]


def test_large_kernels_start_from_small_ones_after_the_full_length_of_both():
    small, large = (mednext("kits19", size="l", kernel=kernel).config().train for kernel in (3, 5))
    assert small.grow_kernel is None
    assert large.grow_kernel == (3, 5)
    assert (large.epochs * large.grow_share, large.epochs * (1 - large.grow_share)) == (small.epochs, small.epochs)
    assert (small.lr, large.lr, large.grow_lr) == (1e-3, 1e-3, 1e-4)
    assert mednext("btcv", kernel=5).config().train.grow_lr is None


def test_sizes_that_recompute_are_those_of_the_authors_code():
    recomputing = {size: mednext(size=size).config().train.checkpointing for size in ("s", "b", "m", "l")}
    assert recomputing == {"s": False, "b": False, "m": True, "l": True}


def test_steps_are_as_many_as_the_papers():
    def steps(name):
        train = find_recipe(name).config().train
        return train.epochs * train.steps_per_epoch

    assert steps("mednext_b_k3_amos22") == 250_000
    assert steps("uxnet_feta21") == 40_000
    assert steps("e2enet_s80_amos22_mri_finetuned") == 250 * 250
    # 24 of 30 scans are trained on: each of 16 GPUs has 2 of them, one step; 242 of 303: 16 each, 8 steps of 2
    assert steps("logonet_btcv") == 5000
    assert steps("logonet_l_msd_hepatic_vessel") == 5000 * 8
    assert [steps_per_paper_epoch(data) for data in ("msd_heart", "msd_spleen", "msd_colon")] == [1, 2, 4]


def test_a_step_of_logonet_sees_two_crops_of_two_scans_on_sixteen_gpus():
    config = find_recipe("logonet_msd_colon").config()
    assert config.plan["batch_size"] * config.train.accumulate == 2 * 2 * 16
    assert config.train.warmup == pytest.approx(100 / 5000)


def test_e2enet_of_the_tables_has_their_parameters(phantom):
    # Table 1: 23.90 million without sparsity; to the digit 23.8991 with 16 classes and strides of 2 throughout
    recipe = e2enet("amos22", sparsity=0.7)
    dataset, fingerprint = phantom(recipe.data)
    plan = make_plan(fingerprint, PlanLimits(), recipe.config().plan)
    network = without_memory(recipe, dataset, plan)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(23.8991, abs=1e-4)


def test_the_dice_is_pooled_where_nnunet_has_a_low_resolution_stage():
    pooled = {recipe.data for recipe in RECIPES.values() if recipe.settings["train"]["batch_dice"]}
    assert pooled == {"btcv", "amos22_ct", "amos22_mri", "kits19", "flare21"}
    single = {recipe.data for recipe in RECIPES.values() if recipe.name.startswith(("mednext", "uxnet_nn", "e2enet"))}
    assert single - pooled == {"brats21_classes", "msd_brats", "feta21"}


def test_scans_with_much_background_are_normalised_without_it_in_nnunet():
    masked = {
        recipe.data
        for recipe in RECIPES.values()
        if "zscore_mask" in [rule["kind"] for rule in recipe.settings["plan"].get("normalization", [])]
    }
    assert masked == {"brats21_classes", "msd_brats", "feta21"}


def test_functions_take_what_the_papers_vary():
    assert uxnet("feta21", kernel=9).reported[0].value == 0.870
    assert uxnet("feta21", kernel=9).config().model["kernel_size"] == 9
    assert e2enet("btcv", sparsity=0.5).config().sparse.sparsity == 0.5
    assert e2enet("btcv", sparsity=0.5).reported == ()


@pytest.mark.parametrize("function", [e2enet, e2enet_ct_to_mri])
def test_e2enet_may_be_dense_as_in_the_papers_ablation(function, phantom):
    recipe = function(sparsity=0.0)  # Table 5, first row
    dataset, _ = phantom(recipe.data)
    assert without_memory(recipe, dataset, None).config.sparsity == 0
    for difference in recipe.differences:
        without_memory(recipe, dataset, None, difference.settings)


def test_scores_are_written_with_the_decimals_that_are_printed():
    assert str(find_recipe("mednext_b_k5_kits19").reported[0]) == "90.30 %"
    assert str(find_recipe("uxnet_amos22_finetuned").reported[0]) == "0.900"
    assert str(find_recipe("e2enet_s80_amos22").reported[0]) == "90.0 %"


def test_a_difference_says_whose_value_the_recipe_has():
    one = Difference(what="learning rate", paper="0.1", code="0.2")
    assert one.choice == "Here the paper's."
    assert Difference(what="epsilon", paper="not said", code="0.2").choice == "Here the code's."


# -------------------------------------------------------------------------------------------------- on other data


def test_data_of_another_kind_are_remarked_on_and_can_be_trained_on(phantom):
    dataset, _ = phantom("msd_brats")
    channels, classes = find_recipe("mednext_s_k3_btcv").remarks(dataset)
    assert channels.startswith("Recipe mednext_s_k3_btcv is for 1 channel (CT); ")
    assert channels.endswith("has 4 channels (FLAIR, T1w, T1gd, T2w).")
    assert "was made for 13 classes of BTCV" in classes
    assert classes.endswith("has 3.")


def test_other_intensities_are_remarked_on(phantom):
    dataset, _ = phantom("msd_heart")
    (remark,) = find_recipe("logonet_msd_spleen").remarks(dataset)
    assert remark.startswith("Recipe logonet_msd_spleen is for CT (CT), and ")
    assert remark.endswith("has MRI: check that plan.normalization suits it.")
    (remark,) = find_recipe("mednext_s_k3_btcv").remarks(dataset)  # whose rules the planner chooses
    assert "13 classes" in remark


def test_regions_have_no_background_whose_dice_could_be_taken(phantom):
    dataset, _ = phantom("brats21")
    recipe = find_recipe("logonet_msd_heart")
    with pytest.raises(ConfigError, match=r"regions have no background\. Give --set train\.dice_background=false\."):
        without_memory(recipe, dataset, None)
    without_memory(recipe, dataset, None, ["train.dice_background=false"])


@pytest.mark.parametrize("name", ["mednext_s_k3_btcv", "uxnet_amos22", "e2enet_s80_btcv"])
def test_the_topology_of_the_plan_can_be_asked_for(name, phantom):
    recipe = find_recipe(name)
    dataset, fingerprint = phantom(recipe.data)
    plan = make_plan(fingerprint, PlanLimits()).changed(
        strides=[[1, 1, 1], *[[1, 2, 2]] * 5], kernels=[[1, 3, 3]] * 6, patch_size=(16, 64, 64)
    )
    unplanned, planned = (without_memory(recipe, dataset, one, ["model.strides=null"]) for one in (None, plan))
    assert unplanned.divisor == without_memory(recipe, dataset, None).divisor
    assert planned.divisor[0] == 1


def test_what_only_the_user_can_give_is_asked_for():
    recipe = find_recipe("e2enet_s80_amos22_mri_finetuned")
    with pytest.raises(ConfigError, match=r"needs transfer\.init: a network trained on CT\. Give --init .*e2enet_s80_"):
        recipe.check(recipe.config())
    recipe.check(recipe.config(["transfer.init=run"]))
    assert "--init START" in recipe.command()


def test_the_command_divides_the_data_as_the_paper_did():
    assert find_recipe("mednext_s_k3_btcv").command("btcv", "out") == (
        "voxelseg train btcv --out out --recipe mednext_s_k3_btcv --fold all"
    )
    assert find_recipe("logonet_btcv").command("btcv").endswith("--splits btcv/splits_24_6.json")
    named = {recipe.splits: recipe.public_data for recipe in RECIPES.values() if recipe.splits}
    for splits, public in named.items():
        assert splits in {one.name for one in public.held_out}


# ------------------------------------------------------------------------------------------------------- training


def test_kernels_grow_and_the_second_half_has_its_own_learning_rate(train_step):
    epochs = [event for event in train_step("mednext_s_k5_kits19") if event["event"] == "epoch"]
    assert [event["stage"] for event in epochs] == ["kernel 3", "kernel 5"]
    assert [event["lr"] for event in epochs] == [1e-3, 1e-4]
    assert all(isfinite(event["loss"]) for event in epochs)


def test_fine_tuning_starts_from_a_network_of_another_data_set(train_step, tmp_path):
    small = ("model.features=[4,8,12,16]", "model.depths=[1,1,1,1]")
    train_step("uxnet_flare21", *small, out=tmp_path / "flare")
    events = train_step("uxnet_amos22_finetuned", *small, out=tmp_path / "amos", init=tmp_path / "flare" / "run")
    assert [event["step"] for event in events if event["event"] == "epoch"] == [1]
    transfer = json.loads((tmp_path / "amos" / "run" / "fold_0" / "transfer.json").read_text())
    assert transfer["share"] == 1.0
    assert transfer["fresh_heads"]  # 5 classes there, 16 here
    assert not transfer["missing"]


# Each network with its options, in its smallest size, and one with several channels: `benchmarks/recipes.py` does all.
DIFFERENT = [
    *(one for one in distinct(RECIPES.values(), by_size=False) if not re.search("_[bml]_", one.name)),
    find_recipe("e2enet_s80_msd_brats"),
]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DIFFERENT, ids=lambda one: one.name)
def test_a_recipe_trains_a_step(recipe, train_step):
    epochs = [event for event in train_step(recipe) if event["event"] == "epoch"]
    assert [event["step"] for event in epochs] == ([1, 2] if "grow_kernel" in recipe.settings["train"] else [1])
    assert all(isfinite(event["loss"]) for event in epochs)


@pytest.mark.slow
def test_the_topology_of_ct_stays_in_mri(train_step, tmp_path):
    width = ("model.width=8", "model.max_width=20")
    train_step("e2enet_s80_amos22", *width, out=tmp_path / "ct")
    train_step("e2enet_s80_amos22_mri_finetuned", *width, out=tmp_path / "mri", init=tmp_path / "ct" / "run")
    from voxelseg.checkpoint import load_checkpoint

    ct, mri = (load_checkpoint(tmp_path / name / "run/fold_0/model.safetensors").weights for name in ("ct", "mri"))
    masks = [key for key, tensor in ct.items() if "mask" in key and prod(tensor.shape)]
    assert masks
    for key in masks:
        np.testing.assert_array_equal(ct[key].numpy(), mri[key].numpy())
