import json
from dataclasses import replace
from pathlib import Path

import pytest
from designs import designed, finish

from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.jobs import NNUNET_PREPARATION, NNUNet, Resources, missing_jobs
from voxelseg.benchmark.length import Length
from voxelseg.benchmark.pretraining import check_pretraining
from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.data.splits import Split
from voxelseg.errors import ConfigError
from voxelseg.pretrain.config import build_pretraining
from voxelseg.train.config import build_config

RESOURCES = Resources(threads=1, workers=2)
SPLITS = [Split(("c",), ("a", "b")), Split(("a", "b"), ("c",))]


@pytest.fixture
def dataset(tmp_path):
    labels = LabelScheme((LabelClass("organ", (1,), 1), LabelClass("tumour", (2,), 2)))
    cases = tuple(Case(one, (tmp_path / f"{one}.nii.gz",), tmp_path / f"{one}_label.nii.gz") for one in "abc")
    return Dataset("Tiny", tmp_path, "msd", ("CT",), labels, cases)


def options(command):
    """Name -> value of the options of a command, of --set those that it is given."""
    words = list(command)
    given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    values = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
    return {**values, "--set": given}


def test_what_is_finished_is_not_trained_again(tmp_path, dataset):
    design = designed(tmp_path)
    finish(design, "unet", 0, 0)
    before, trainings = missing_jobs(design, dataset, SPLITS, None, RESOURCES)
    assert not before
    assert len(trainings) == 7
    given = options(trainings[0].command)
    assert trainings[0].name == "uxnet, fold 0, seed 0"
    assert Path(given["--out"]) == tmp_path.absolute() / "cells" / "uxnet" / "fold_0_seed_0"
    assert (given["--fold"], given["--seed"], given["--model"]) == ("0", "0", "uxnet")
    assert build_config(given["--set"]).train.threads == 1


def test_a_pre_training_sees_the_training_scans_of_its_fold_with_the_plan_of_all(tmp_path, dataset):
    learning = Entrant(name="simmim", model="logonet", pretrain="simmim", pretrain_settings=("simmim.share=0.5",))
    design = designed(tmp_path, (Entrant(name="scratch", model="logonet"), learning), seeds=(0,))
    before, trainings = missing_jobs(design, dataset, SPLITS, None, RESOURCES)
    assert [job.name for job in before] == ["pre-training of simmim, fold 0", "pre-training of simmim, fold 1"]
    assert trainings[0].needs == ()
    assert trainings[1].needs == ("pre-training of simmim, fold 0",)
    given = options(before[1].command)
    scans = json.loads(Path(before[1].command[2]).read_text())
    assert [one["id"] for one in scans["cases"]] == ["a", "b"]
    assert "label" not in scans["cases"][0]
    config = build_pretraining(given["--method"], given["--set"])
    assert config.plan["patch_size"] == [16, 24, 32]
    assert config.plan["normalization"] == [{"kind": "zscore"}]
    assert config.pretrain.num_classes == 3  # LoGoNet has as many features as classes
    assert (config.train.epochs, config.train.steps_per_epoch) == (1, 3)
    assert options(trainings[3].command)["--init"] == given["--out"]  # that of fold 1
    done = Path(given["--out"])
    done.mkdir(parents=True)
    (done / "model.safetensors").touch()
    assert len(missing_jobs(design, dataset, SPLITS, None, RESOURCES)[0]) == 1


def test_nnunet_is_prepared_once_before_its_trainings(tmp_path, dataset):
    design = designed(tmp_path, "unet,nnunet:mirroring=false", seeds=(0,))
    nnunet = NNUNet(environment=tmp_path / "env", minutes=1.5, steps=None, tolerance_mm=2.0)
    before, trainings = missing_jobs(design, dataset, SPLITS, nnunet, RESOURCES)
    assert [job.name for job in before] == [NNUNET_PREPARATION]
    assert trainings[1].needs == (NNUNET_PREPARATION,)
    given = options(trainings[1].command)
    assert (given["--minutes"], given["--tolerance-mm"], given["--env"]) == ("1.5", "2", str(tmp_path / "env"))
    assert "--no-mirroring" in trainings[1].command
    assert "--batch-size" not in trainings[1].command
    assert "--loaders" not in trainings[1].command
    _, trainings = missing_jobs(design, dataset, SPLITS, replace(nnunet, loaders=0), RESOURCES)
    assert options(trainings[1].command)["--loaders"] == "0"


def test_a_pre_training_that_cannot_be_is_refused():
    for one, message in {
        Entrant(name="a", model="transbts", pretrain="simmim"): "transbts cannot be pre-trained",
        Entrant(name="a", model="logonet", pretrain="simim"): "method 'simim'",
        Entrant(name="a", model="logonet", pretrain="mae", init="RUN"): "both say what the trainings start from",
        Entrant(name="a", model="logonet", pretrain="mae", pretrain_settings=("mae.speed=3",)): "has no 'speed'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            check_pretraining(one, (), Length(steps=3))
