import dataclasses
import json

import pytest
import torch

from voxelseg.data.labels import parse_labels
from voxelseg.data.splits import make_splits
from voxelseg.errors import ConfigError
from voxelseg.plan.plan import read_plan
from voxelseg.train.config import build_config
from voxelseg.train.run import build_network, open_run, plan_for_network


def opened(prepared, folder, *, settings=("train.lr=0.01",), **changes):
    return open_run(
        folder,
        **{
            "dataset": prepared.dataset,
            "plan": prepared.plan,
            "fingerprint": prepared.fingerprint,
            "splits": make_splits(prepared.dataset.cases, num_folds=2),
            "model": "unet_s",
            "config": build_config(list(settings)),
            "seed": 0,
            "device": torch.device("cpu"),
        }
        | changes,
    )


def test_a_run_records_everything_that_says_how(prepared, tmp_path):
    opened(prepared, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["model"] == "unet_s"
    assert record["config"]["train"]["lr"] == 0.01
    assert record["dataset"]["labels"] == prepared.dataset.labels.to_dict()
    assert record["plan"] == prepared.plan.model_dump(mode="json")
    assert read_plan(tmp_path / "plan.json") == prepared.plan
    assert record["fingerprint"]["classes"] == ["ball", "rod"]
    assert {"command", "created", "voxelseg", "versions", "device", "seed"} <= record.keys()
    assert len(json.loads((tmp_path / "splits.json").read_text())) == 2


def test_the_same_settings_continue_a_run_and_leave_its_record(prepared, tmp_path):
    first = opened(prepared, tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    again = opened(prepared, tmp_path)
    assert again.splits == first.splits
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": ["train.lr=0.02"]}, r"config.train.lr was 0.01, now 0.02"),
        ({"model": "mednext_s"}, r"model was 'unet_s', now 'mednext_s'"),
        ({"seed": 1}, r"seed was 0, now 1"),
        ({"settings": ["train.lr=0.01", "model.width=4"]}, r"config.model.width was None, now 4"),
    ],
    ids=["setting", "model", "seed", "option"],
)
def test_another_setting_for_an_existing_run_is_named(prepared, tmp_path, change, named):
    opened(prepared, tmp_path)
    with pytest.raises(ConfigError, match=rf"holds a run with other settings \({named}\)\. Choose another --out"):
        opened(prepared, tmp_path, **change)


def test_patterns_in_another_order_are_another_setting(prepared, tmp_path):
    """Of several patterns that fit a parameter the last one counts."""
    settings = ["transfer.lr_factors={encoder.*: 0.1, '*.bias': 2}"]
    opened(prepared, tmp_path, settings=settings)
    opened(prepared, tmp_path, settings=settings)
    message = r"config.transfer.lr_factors was in the order encoder.\*, \*.bias, now \*.bias, encoder.\*"
    with pytest.raises(ConfigError, match=message):
        opened(prepared, tmp_path, settings=["transfer.lr_factors={'*.bias': 2, encoder.*: 0.1}"])


def test_another_plan_and_other_folds_are_named(prepared, tmp_path):
    opened(prepared, tmp_path)
    with pytest.raises(ConfigError, match=r"plan.batch_size was \d+, now 7"):
        opened(prepared, tmp_path, plan=prepared.plan.changed(batch_size=7))
    with pytest.raises(ConfigError, match=r"the folds are not those of splits\.json"):
        opened(prepared, tmp_path, splits=make_splits(prepared.dataset.cases, num_folds=4))


@pytest.mark.parametrize("setting", ["train.workers=3", "train.threads=2", "predict.tta=true", "predict.overlap=0.25"])
def test_what_the_weights_do_not_depend_on_may_change_and_is_recorded(prepared, tmp_path, setting):
    opened(prepared, tmp_path)
    before = json.loads((tmp_path / "run.json").read_text())
    settings = ["train.lr=0.01", setting]
    run = opened(prepared, tmp_path, settings=settings)
    assert run.config == build_config(settings)
    after = json.loads((tmp_path / "run.json").read_text())
    assert after["config"] == build_config(settings).model_dump(mode="json") != before["config"]
    assert {**after, "config": None} == {**before, "config": None}


def test_an_impossible_seed_is_refused_before_any_work(tiny_msd, train_tiny, tmp_path):
    with pytest.raises(ConfigError, match="seed 4294967296: expected 0 to 4294967295"):
        train_tiny(tiny_msd, tmp_path / "run", seed=2**32)
    assert not (tmp_path / "run").exists()


def test_leftovers_of_a_killed_process_are_removed(prepared, tmp_path):
    (tmp_path / ".partial-1234-run.json").write_text('{"mod')
    opened(prepared, tmp_path)
    assert not list(tmp_path.glob(".partial-*"))


def test_the_network_has_the_data_set_s_channels_and_classes_and_the_plan_s_topology(prepared):
    plan = prepared.plan.changed(strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)))
    config = build_config(["model.width=4"])
    network = build_network("unet_s", prepared.dataset, config, plan)
    assert (network.config.in_channels, network.config.num_classes) == (1, 3)
    assert (network.config.strides, network.config.kernels) == (plan.strides, plan.kernels)
    assert network.divisor == (1, 4, 4)
    assert network.deep_supervision


def test_options_of_the_user_go_before_the_plan(prepared):
    config = build_config(["model.strides=[1,2]", "model.kernels=3", "train.deep_supervision=false"])
    network = build_network("unet_s", prepared.dataset, config, prepared.plan)
    assert network.divisor == (2, 2, 2)
    assert not network.deep_supervision


def test_one_stride_for_all_levels_goes_before_the_plan_too(prepared):
    plan = prepared.plan.changed(strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3)))
    with torch.device("meta"):
        network = build_network("mednext_xs", prepared.dataset, build_config(["model.strides=2"]), plan)
    assert network.divisor == (16, 16, 16)
    assert network.config.kernel_size == 3


def test_what_the_data_set_decides_is_no_option(prepared):
    with pytest.raises(ConfigError, match=r"model.in_channels, model.num_classes: the data set decides this"):
        build_network("unet_s", prepared.dataset, build_config(["model.num_classes=3", "model.in_channels=2"]))


def test_networks_of_slices_are_refused(prepared):
    with pytest.raises(ConfigError, match=r"mednext_s .* takes slices, not volumes\. Leave out model\.spatial_dims"):
        build_network("mednext_s", prepared.dataset, build_config(["model.spatial_dims=2"]))


def test_networks_for_classes_that_exclude_each_other_are_refused_for_regions(prepared):
    labels = parse_labels({"background": 0, "whole": [1, 2], "rod": [2]}, regions_class_order=[1, 2])
    dataset = dataclasses.replace(prepared.dataset, labels=labels)
    with pytest.raises(ConfigError, match=r"rapnet .* regions .* `voxelseg models` lists others"):
        build_network("rapnet", dataset, build_config([]))
    assert build_network("unet_s", dataset, build_config(["model.width=4"])).config.num_classes == 2


def test_networks_take_their_topology_from_the_plan(prepared):
    strides, kernels = ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3))
    plan = prepared.plan.changed(strides=strides, kernels=kernels)
    network = build_network("unet_s", prepared.dataset, build_config(["model.width=4"]), plan)
    assert (network.config.strides, network.config.kernels) == (strides, kernels)
    five = build_network("unet_s", prepared.dataset, build_config(["model.width=4", "model.kernels=5"]), plan)
    assert five.config.kernels == ((1, 5, 5), (5, 5, 5), (5, 5, 5))  # one number: spread by the plan
    chosen = build_config(["model.width=4", "model.kernels=[3,3,5]"])
    assert build_network("unet_s", prepared.dataset, chosen, plan).config.kernels == ((3,) * 3, (3,) * 3, (5,) * 3)


@pytest.mark.parametrize("name", ["mednext_s", "uxnet", "e2enet", "ulkanet", "logonet"])
def test_the_four_networks_take_thin_volumes_as_the_plan_has_them(prepared, name):
    # ACDC's plan, of 10 slices: halved twice along D
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    plan = prepared.plan.changed(strides=strides, kernels=((1, 3, 3), *((3, 3, 3),) * 5))
    with torch.device("meta"):
        thin = build_network(name, prepared.dataset, build_config([]), plan)
        published = build_network(name, prepared.dataset, build_config([]))
        isotropic = prepared.plan.changed(strides=((1, 1, 1), *((2, 2, 2),) * 5), kernels=((3, 3, 3),) * 6)
        same = build_network(name, prepared.dataset, build_config([]), isotropic)
    assert thin.divisor[0] == 4
    assert thin.divisor[1:] == published.divisor[1:]
    assert {key: value.shape for key, value in same.state_dict().items()} == {
        key: value.shape for key, value in published.state_dict().items()
    }


def test_patches_are_rounded_up_to_what_the_network_takes(prepared):
    network = build_network("mednext_xs", prepared.dataset, build_config(["model.width=4", "model.blocks=1"]))
    plan = prepared.plan.changed(patch_size=(17, 32, 1))
    rounded = plan_for_network(plan, network)
    assert rounded.patch_size == (32, 32, 16)
    assert rounded.notes == (*plan.notes, "The patch was rounded up from [17, 32, 1] to what the network takes.")
    fitting = prepared.plan.changed(patch_size=(16, 32, 48))
    assert plan_for_network(fitting, network) is fitting


def test_a_patch_of_a_single_voxel_at_the_lowest_resolution_is_doubled(prepared):
    network = build_network("mednext_xs", prepared.dataset, build_config(["model.width=4", "model.blocks=1"]))
    patch = plan_for_network(prepared.plan.changed(patch_size=(16, 16, 16)), network).patch_size
    assert sorted(patch) == [16, 16, 32]
    network(torch.zeros(1, 1, *patch))  # takes it


@pytest.mark.parametrize("wanted", [True, False])
def test_checkpointing_is_an_option_of_the_network(prepared, wanted):
    settings = ["model.width=4", "model.blocks=1"]
    config = build_config([*settings, f"train.checkpointing={wanted}"])
    assert build_network("mednext_s", prepared.dataset, config).config.checkpointing == wanted
    same = build_config([*settings, f"train.checkpointing={wanted}", f"model.checkpointing={wanted}"])
    assert build_network("mednext_s", prepared.dataset, same).config.checkpointing == wanted


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("unet_s", "model.width=4", "train.checkpointing: unet_s cannot recompute its activations"),
        ("mednext_s", "model.checkpointing=false", "are the same setting, and differ. Give one"),
    ],
)
def test_checkpointing_that_is_impossible_or_contradicted_is_refused(prepared, model, setting, message):
    with pytest.raises(ConfigError, match=message):
        build_network(model, prepared.dataset, build_config(["train.checkpointing=true", setting]))
