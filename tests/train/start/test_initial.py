import json

import pytest
from tiny_runs import MEDNEXT, opened_run

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import create_model
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
