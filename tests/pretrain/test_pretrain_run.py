import dataclasses
import json

import pytest

from voxelseg.errors import ConfigError
from voxelseg.nets.parts import part_parameters
from voxelseg.pretrain.run import PRETRAINING_FILE, check_num_classes, open_pretraining, with_classes
from voxelseg.train.loop.state import STATE_FILE


def test_the_record_says_all_that_decides_the_weights(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, "train.threads=1", method="mae", seed=3)
    record = json.loads((tmp_path / PRETRAINING_FILE).read_text())
    assert (record["method"], record["model"], record["seed"]) == ("mae", "unet_s", 3)
    assert record["config"]["mae"] == run.config.task.model_dump(mode="json")
    assert record["scans"]["num_scans"] == 6
    assert record["scans"]["held_out"] == [case.id for case in run.parts[1]]
    assert {"command", "created", "voxelseg", "versions", "device", "plan", "fingerprint"} < record.keys()
    assert json.loads((tmp_path / "plan.json").read_text())["patch_size"] == [16, 32, 16]


def test_the_same_pretraining_is_opened_again_and_workers_may_change(tiny_scans, tmp_path):
    tiny_scans.opened(tmp_path)
    (tmp_path / STATE_FILE).touch()
    tiny_scans.opened(tmp_path)
    tiny_scans.opened(tmp_path, "train.workers=1", "train.threads=1")
    assert json.loads((tmp_path / PRETRAINING_FILE).read_text())["config"]["train"]["workers"] == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "mae"}, "method was 'simmim', now 'mae'"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"epochs": 5}, r"config\.train\.epochs was 2, now 5"),
        ({"plan": {"batch_size": 4}}, r"plan\.batch_size was 2, now 4"),
        ({"settings": ["simmim.share=0.4"]}, r"config\.simmim\.share was 0\.6, now 0\.4"),
        ({"settings": ["pretrain.held_out=0.5"]}, r"config\.pretrain\.held_out.*scans\.held_out"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_another_pretraining_in_the_folder_is_refused_with_what_differs(tiny_scans, tmp_path, changes, named):
    tiny_scans.opened(tmp_path)
    (tmp_path / STATE_FILE).touch()
    settings = changes.pop("settings", [])
    with pytest.raises(ConfigError, match=rf"holds a run with other settings.*{named}.*another --out"):
        tiny_scans.opened(tmp_path, *settings, **changes)


def test_scans_that_have_changed_since_are_refused(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path)
    (tmp_path / STATE_FILE).touch()
    cases = dict(list(tiny_scans.fingerprint.cases.items())[1:])
    with pytest.raises(ConfigError, match="the scans have changed since"):
        open_pretraining(run, tiny_scans.fingerprint.model_copy(update={"cases": cases}))


def test_an_epoch_takes_one_crop_of_each_scan_unless_it_is_set(tiny_scans, tmp_path):
    # Of 6 scans 1 is held out: 5 crops are 3 batches of 2, or 2 steps of 2 batches.
    assert tiny_scans.opened(tmp_path / "a").loop.steps_per_epoch == 3
    assert tiny_scans.opened(tmp_path / "b", "train.accumulate=2").loop.steps_per_epoch == 2
    assert tiny_scans.opened(tmp_path / "c", "train.steps_per_epoch=7").loop.steps_per_epoch == 7


def test_scans_are_learnt_from_or_held_out(tiny_scans, tmp_path):
    learnt, held_out = tiny_scans.opened(tmp_path / "a").parts
    assert (len(learnt), len(held_out)) == (5, 1)
    assert {case.id for case in (*learnt, *held_out)} == set(tiny_scans.stored)
    assert tiny_scans.opened(tmp_path / "b", "pretrain.held_out=0").parts[1] == []


@pytest.mark.parametrize("part", ["all", "encoder"])
def test_only_the_part_that_the_method_trains_asks_for_gradients(tiny_scans, tmp_path, part):
    network = tiny_scans.opened(tmp_path).build_network(part)
    asking = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert asking == part_parameters(network, part)
    assert not network.deep_supervision


def test_the_network_is_built_for_the_classes_that_are_set(tiny_scans, tmp_path):
    run = tiny_scans.opened(tmp_path, "pretrain.num_classes=3")
    assert with_classes(run.scans, run.config).labels.num_outputs == 3
    with pytest.raises(ConfigError, match=r"pretrain\.num_classes: no width of unet_s follows the classes"):
        check_num_classes("unet_s", run.scans, run.config)
    dims = dataclasses.replace(run, model="ulkanet").config.model_copy(update={"model": {"dims": [4, 8, 16, 32]}})
    check_num_classes("ulkanet", run.scans, dims)
    check_num_classes("unet_s", run.scans, tiny_scans.opened(tmp_path / "other").config)
