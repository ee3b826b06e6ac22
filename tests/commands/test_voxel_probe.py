import io
import json
import re

import pytest
import torch
from rich.console import Console

from voxelseg import commands
from voxelseg.checkpoint import load_checkpoint
from voxelseg.commands.voxel_probe import _fresh, probe_table
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets.kernel_masks import add_masks, sparse_weights
from voxelseg.pretrain.backbone import load_backbone


@pytest.fixture(scope="module")
def pre(tiny_msd, tmp_path_factory):
    """A pre-training of some steps."""
    folder = tmp_path_factory.mktemp("pre") / "pre"
    settings = ["model.width=2", "plan.patch_size=[16,24,16]", "plan.batch_size=2", "train.workers=0", "simmim.cube=4"]
    commands.pretrain(
        tiny_msd, folder, model="unet_s", method="simmim", epochs=1, device="cpu", settings=settings, workers=1
    )
    return folder


@pytest.fixture
def data(tiny_msd, tmp_path):
    """The tiny data set with folds of which the first holds two cases out."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in tiny_msd.iterdir():
        (folder / path.name).symlink_to(path)
    ids = [f"tiny_{number}" for number in range(4)]
    (folder / "splits.json").write_text(
        json.dumps([{"train": ids[:2], "val": ids[2:]}, {"train": ids[1:], "val": ids[:1]}])
    )
    return folder


def test_a_probe_is_written_and_shown_in_the_report(pre, data, tmp_path, caplog):
    found = commands.probe(pre, data, device="cpu", workers=1)
    assert (found.cases_fitted, found.cases_scored) == (2, 2)
    assert "were pre-trained on" in caplog.text
    record = json.loads((pre / "probe.json").read_text())
    assert record["probes"]["linear"]["accuracy"] == found.probes["linear"].accuracy
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(probe_table(found))
    assert "nearest neighbours" in console.export_text()
    page = commands.report(pre, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fitted on" in re.sub(r"\s+", " ", page)


def test_fresh_weights_are_not_those_that_the_pre_training_began_with(pre):
    trained = load_backbone(load_checkpoint(pre / "model.safetensors"))
    torch.manual_seed(0)
    began = type(trained)(trained.config).state_dict()
    fresh = _fresh(trained, 0).state_dict()
    drawn = {name for name, tensor in began.items() if tensor.ndim == 5}
    assert not any(torch.equal(began[name], fresh[name]) for name in drawn)
    assert torch.equal(next(iter(fresh.values())), next(iter(_fresh(trained, 0).state_dict().values())))


def test_fresh_weights_are_as_sparse_as_the_pre_trained_ones(pre):
    trained = load_backbone(load_checkpoint(pre / "model.safetensors"))
    layer = next(name for name, module in trained.named_modules() if isinstance(module, torch.nn.Conv3d))
    assert not sparse_weights(_fresh(trained, 0))
    add_masks(trained, [layer], 0.5)
    (_, mask), (weight, drawn) = (sparse_weights(one)[layer] for one in (trained, _fresh(trained, 0)))
    assert drawn.sum() == mask.sum()
    assert not weight[~drawn].any()


def test_impossible_probes_are_refused(pre, data, tiny_run, tmp_path):
    with pytest.raises(ConfigError, match="--cases 1: expected 2 or more"):
        commands.probe(pre, data, cases=1)
    with pytest.raises(ConfigError, match="fold 5: the data set has folds 0 to 1"):
        commands.probe(pre, data, fold=5)
    with pytest.raises(ConfigError, match="are of one patient"):
        commands.probe(pre, data, fold=1)
    with pytest.raises(CheckpointError, match="is a trained model"):
        commands.probe(tiny_run.model.parent, data)
    with pytest.raises(CheckpointError):
        commands.probe(tmp_path, data)
