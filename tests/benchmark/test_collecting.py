import shutil

import pytest
from designs import designed, finish

from voxelseg.benchmark.collecting import collect, keep_costs
from voxelseg.compare.cost import Cost
from voxelseg.compare.sources import read_source
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.files import write_json


def test_a_seed_counts_when_all_its_folds_are_finished(tmp_path):
    design = designed(tmp_path)
    for fold, seed, dice in [(0, 0, 0.5), (1, 0, 0.8), (0, 1, 0.6)]:
        finish(design, "unet", fold, seed, dice=dice, seconds=4.0 + fold)
    labels = LabelScheme((LabelClass("organ", (1,), 1),))
    unet, uxnet = collect(
        design, {"unet, fold 1, seed 1": "was ended"}, {"unet": Cost(parameters=7)}, labels=labels, channel="CT"
    )
    assert list(unet.runs) == ["0"]
    assert unet.runs["0"].case_means("dice") == {"a": 0.5, "b": 0.5, "c": 0.8}
    assert unet.fault == "fold 1, seed 1: was ended"
    assert unet.notes == ("Left out, since not all folds are finished: seed 1.",)
    assert unet.cost.parameters == 7
    assert unet.cost.training_s == 4.5  # of the folds of seed 0: 4 s and 5 s
    assert unet.cost.seconds_per_case == 2.25  # 2.5 s and 2 s
    assert list(unet.logs) == ["seed 0, fold 0", "seed 0, fold 1"]
    assert unet.logs["seed 0, fold 1"][0]["elapsed_s"] == 5.0
    assert (unet.labels, unet.channel) == (labels, "CT")
    assert not uxnet.runs
    assert uxnet.fault.count("not finished") == 4
    assert not uxnet.notes


def test_a_comparison_of_single_trainings_finds_what_was_measured_of_their_networks(tmp_path):
    design = designed(tmp_path, seeds=(0,))
    run = finish(design, "unet", 0, 0).parent
    write_json(run / "run.json", {"seed": 0})
    keep_costs(design, {"unet": Cost(parameters=7, latency_s=0.5), "uxnet": Cost(parameters=8)})
    cost = read_source(run, None).cost
    assert (cost.parameters, cost.latency_s, cost.training_s) == (7, 0.5, 4.0)
    assert not (tmp_path / "cells" / "uxnet").exists()  # not begun


def test_a_case_that_two_folds_hold_out_is_named_with_its_fold(tmp_path):
    design = designed(
        tmp_path, "unet", seeds=(0,), held_out={0: {"a": "anna", "b": "bert"}, 1: {"a": "anna", "b": "bert"}}
    )
    finish(design, "unet", 0, 0)
    shutil.copytree(tmp_path / "cells" / "unet" / "fold_0_seed_0", tmp_path / "cells" / "unet" / "fold_1_seed_0")
    (tmp_path / "cells" / "unet" / "fold_1_seed_0" / "fold_0").rename(
        tmp_path / "cells" / "unet" / "fold_1_seed_0" / "fold_1"
    )
    (unet,) = collect(design, {}, {})
    assert set(unet.runs["0"].cases) == {"a (fold 0)", "b (fold 0)", "a (fold 1)", "b (fold 1)"}
    assert unet.origins["b (fold 1)"] == "b"


def test_what_nnunet_says_of_itself_is_its_cost(tmp_path):
    design = designed(tmp_path, "unet,nnunet=nnunet:batch_size=2", seeds=(0,))
    for fold in (0, 1):
        folder = finish(design, "nnunet", fold, 0)
        training = {"parameters": 9, "patch_size": [8, 8, 8], "batch_size": 2, "seconds_per_step": 0.5}
        write_json(folder / "training.json", {**training, "torch_threads": 1})
    nnunet = collect(design, {}, {})[1]
    assert (nnunet.cost.parameters, nnunet.cost.patch_size, nnunet.cost.step_s) == (9, (8, 8, 8), 0.5)
    assert nnunet.cost.training_s == 4.0
    assert nnunet.cost.macs is None
    assert nnunet.settings["settings"] == ["model.batch_size=2"]  # not those of the others


@pytest.mark.parametrize("name", ["unet", "uxnet"])
def test_settings_are_shown_as_they_were_given(tmp_path, name):
    found = {one.name: one.settings for one in collect(designed(tmp_path), {}, {})}
    assert found[name]["model"] == name
    assert "train.workers=0" in found[name]["settings"]
