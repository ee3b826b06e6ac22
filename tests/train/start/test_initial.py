import dataclasses
import json

import pytest
from tiny_runs import MEDNEXT, opened_run

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.labels import NO_LABELS
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.parts import part_tensors
from voxelseg.train.fold import train_fold
from voxelseg.train.loop.state import STATE_FILE
from voxelseg.train.start.initial import check_init


def save(path, prepared, **options):
    """A model of the width and depth of `MEDNEXT`, with kernels of 3 voxels in all levels and axes."""
    options = {"width": 2, "blocks": 1, "kernel_size": 3, **options}
    network = create_model("mednext_xs", num_classes=prepared.dataset.labels.num_outputs, **options)
    checkpoint = Checkpoint(
        weights=network.state_dict(),
        model="mednext_xs",
        model_options=options,
        plan=prepared.plan,
        labels=prepared.dataset.labels,
        file_ending=".nii.gz",
        provenance={},
    )
    save_checkpoint(path, checkpoint)


@pytest.fixture
def origin(prepared, tmp_path):
    """A run of which fold 0 is finished."""
    save(tmp_path / "origin" / "fold_0" / "model.safetensors", prepared)
    return tmp_path / "origin"


def opened(prepared, folder, init, *settings):
    """A run with kernels of 3 voxels along every axis."""
    cubes = {"kernels": ((3, 3, 3),) * len(prepared.plan.kernels)}
    return opened_run(prepared, folder, *MEDNEXT, f"transfer.init={json.dumps(str(init))}", *settings, plan=cubes)


def check(run, *folds):
    check_init(run.model, run.dataset, run.config, run.plan, folds, run.folder)


def test_weights_that_do_not_fit_are_refused_before_long_work(origin, prepared, tmp_path):
    check(opened(prepared, tmp_path / "fits", origin), 0)
    check(opened(prepared, tmp_path / "grows", origin, "train.grow_kernel=[3,5]"), 0)
    run = opened(prepared, tmp_path / "large", origin, "model.kernel_size=5")
    with pytest.raises(CheckpointError, match="smaller kernels"):
        check(run, 0)
    with pytest.raises(ConfigError, match="no finished model of fold 1"):
        check(opened(prepared, tmp_path / "fold 1", origin), 0, 1)
    with pytest.raises(ConfigError, match="there is no "):
        check(opened(prepared, tmp_path / "nothing", tmp_path / "none"), 0)


def test_a_fold_that_has_begun_needs_its_origin_no_more(origin, prepared, tmp_path):
    file = origin / "fold_0" / "model.safetensors"
    run = opened(prepared, tmp_path / "run", file)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["init"] == {"model.safetensors": load_checkpoint(file).fingerprint()}
    save(file, prepared)  # other weights
    with pytest.raises(ConfigError, match=r"model.safetensors has changed since the run .* was started"):
        check(run, 0)
    state = run.fold_folder(0) / STATE_FILE
    state.parent.mkdir()
    state.touch()
    check(run, 0)
    with pytest.raises(ConfigError, match="has changed since"):
        check(run, 0, 1)
    file.unlink()
    check(run, 0)
    with pytest.raises(ConfigError, match="there is no "):
        check(run, 1)


@pytest.fixture
def pretraining(prepared, tmp_path):
    """The folder of a pre-training of the encoder, with small kernels, on all scans of the data set."""
    network = create_model("mednext_xs", num_classes=14, width=2, blocks=1, kernel_size=3)
    options = dataclasses.asdict(network.config)
    names = part_tensors(network, "encoder")
    scans = {case: json.loads((one.folder / "case.json").read_text()) for case, one in prepared.stored.items()}
    checkpoint = Checkpoint(
        weights={name: value for name, value in network.state_dict().items() if name in names},
        model="mednext_xs",
        model_options={key: value for key, value in options.items() if key not in ("in_channels", "num_classes")},
        plan=prepared.plan,
        labels=NO_LABELS,
        file_ending=".nii.gz",
        provenance={"train_cases_sha256": {case: [one["inputs"][0]["sha256"]] for case, one in scans.items()}},
        pretraining={"method": "simclr", "num_classes": 14, "trained": "encoder", "slice_axis": 0},
    )
    save_checkpoint(tmp_path / "pre" / "model.safetensors", checkpoint)
    return tmp_path / "pre"


def test_a_pre_training_starts_every_fold_and_its_kernels_may_grow(pretraining, prepared, tmp_path):
    check(opened(prepared, tmp_path / "run", pretraining), 0, 1)
    larger = (prepared, tmp_path / "large", pretraining, "model.kernel_size=5")
    with pytest.raises(CheckpointError, match="smaller kernels"):
        check(opened(*larger), 0)
    check(opened(*larger[:1], tmp_path / "grown", *larger[2:], "transfer.grow_kernels=true"), 0)
    with pytest.raises(CheckpointError, match=r"less than 90%.*--model mednext_xs"):
        check(
            opened_run(prepared, tmp_path / "other", f"transfer.init={json.dumps(str(pretraining))}", model="unet_s"), 0
        )


def test_a_training_remembers_what_was_pre_trained_on(pretraining, prepared, tmp_path):
    run, told = opened(prepared, tmp_path / "run", pretraining), []
    model = load_checkpoint(train_fold(run, 0, prepared.stored, on_transfer=told.append))
    (report,) = told
    assert not any("held-out" in warning for warning in report.warnings)
    assert "The scans of 1 of 1 held-out cases were pre-trained on" in report.notes[0]
    assert {name.split(".")[0] for name in report.untrained} == {"up", "decoder"}
    record = model.provenance["transfer"]
    assert (record["path"], record["seen_sha256"]) == (str(pretraining / "model.safetensors"), [])
    assert len(record["seen_unlabelled_sha256"]) == len(prepared.stored)
    model.check_trained()
