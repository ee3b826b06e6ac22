"""`voxelseg pretrain` from a folder of scans to the training that starts from its weights."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from inspect import signature

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from voxelseg import commands
from voxelseg.checkpoint import load_checkpoint
from voxelseg.cli import COMMANDS, app
from voxelseg.errors import BusyError, ConfigError, DataError
from voxelseg.files import locked
from voxelseg.pretrain.methods import METHODS

MODEL = ("--model", "unet_s", "--set", "model.width=2")
TINY = (
    *("--epochs", "2", "--device", "cpu", "--workers", "1", *MODEL),
    *("--set", "plan.patch_size=[16,32,16]", "--set", "plan.batch_size=2"),
    *("--set", "train.workers=0", "--set", "train.validation_patches=2"),
)
CLUSTERS = (
    *("--set", "masked_clusters.num_clusterers=2", "--set", "masked_clusters.least_clusters=2"),
    *("--set", "masked_clusters.most_clusters=4"),
)
TIME_LIMIT_S = 240


def voxelseg(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def settings_of(arguments):
    return [arguments[index + 1] for index, word in enumerate(arguments) if word == "--set"]


@pytest.fixture(scope="module")
def pretrained(tiny_msd, tmp_path_factory):
    """A pre-training with the default method, and what was printed; not to be changed."""
    folder = tmp_path_factory.mktemp("pretrained") / "pre"
    return folder, voxelseg("pretrain", tiny_msd, "--out", folder, *TINY, *CLUSTERS)


def test_it_says_what_it_takes_what_it_found_what_it_wrote_and_what_comes_next(pretrained):
    folder, result = pretrained
    assert result.exit_code == 0, result.output
    assert "Plan" in result.stderr
    assert re.search(r"Disk of .*needs at most .*cases .*states .*models", result.stderr)
    assert "What masked-clusters itself adds comes on top" in result.stderr
    assert re.search(r"pre-training +100%  step 6  loss [\d.]+  score [\d.]+", result.stderr)
    assert "accuracy of the nearest visible slice" in result.stderr
    assert f"Wrote {folder / 'model.safetensors'}" in result.stderr.replace("\n", "")
    command = result.stderr[result.stderr.index("voxelseg train DATA --out RUN") :].split()
    assert command[5:7] == ["--model", "unet_s"]
    settings = ["model.width=2", "'plan.patch_size=[16,", "32,", "16]'", "plan.batch_size=2"]
    assert [word for word in command[7:-2] if word != "--set"] == settings
    assert command[-2:] == ["--init", str(folder)]


def test_the_folder_holds_all_that_was_said(pretrained):
    folder, _ = pretrained
    files = {"pretraining.json", "plan.json", "log.jsonl", "training_state.pt", "model.safetensors", "best.safetensors"}
    assert {path.name for path in folder.iterdir()} - {"pictures.npz"} == {*files, "work", ".lock"}
    assert load_checkpoint(folder / "model.safetensors").pretraining["method"] == "masked-clusters"
    assert len(json.loads((folder / "pretraining.json").read_text())["fingerprint"]["cases"]) == 6


def test_a_finished_one_is_kept_and_other_settings_are_refused(tiny_msd, pretrained, tmp_path):
    folder = shutil.copytree(pretrained[0], tmp_path / "pre")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert voxelseg("pretrain", tiny_msd, "--out", folder, *TINY, *CLUSTERS).exit_code == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"holds a run with other settings .*seed was 0, now 1"):
        commands.pretrain(
            tiny_msd, folder, model="unet_s", epochs=2, seed=1, device="cpu", settings=settings_of([*TINY, *CLUSTERS])
        )


def test_settings_that_do_not_suit_the_scans_are_mended_in_the_same_folder(tiny_msd, tmp_path):
    larger_than_scans = "plan.patch_size=[32,32,32]"  # so that all crops of a scan are the same
    sizes = ["num_clusterers=2", "least_clusters=40", "most_clusters=60"]
    settings = [*settings_of(TINY), larger_than_scans, *(f"masked_clusters.{size}" for size in sizes)]
    call = {"model": "unet_s", "epochs": 1, "device": "cpu", "workers": 1}
    with pytest.raises(DataError, match=r"different slices.*masked_clusters\.fewer_clusters=true"):
        commands.pretrain(tiny_msd, tmp_path / "pre", **call, settings=settings)
    settings.append("masked_clusters.fewer_clusters=true")
    assert commands.pretrain(tiny_msd, tmp_path / "pre", **call, settings=settings).model_file.is_file()


def test_training_starts_from_it(tiny_msd, pretrained, tmp_path):
    training = [*MODEL, "--epochs", "1", "--device", "cpu", "--set", "plan.patch_size=[16,32,16]"]
    training += ["--set", "train.steps_per_epoch=1", "--set", "train.workers=0", "--set", "train.validation_patches=1"]
    result = voxelseg("train", tiny_msd, "--out", tmp_path / "run", "--init", pretrained[0], *training)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "run" / "fold_0" / "transfer.json").read_text())
    assert report["share"] == 1.0
    assert report["fresh_heads"]
    assert not report["missing"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "dino"}, ConfigError, "method 'dino': unknown.*masked-clusters"),
        ({"model": "nnformer"}, ConfigError, "nnformer cannot be pre-trained"),
        ({"model": "unet_x"}, ConfigError, "unet_x"),
        ({"settings": ["simmim.cube=4"]}, ConfigError, r"simmim\.cube: without effect"),
        ({"settings": ["pretrain.num_classes=3"]}, ConfigError, "no width of unet_s follows the classes"),
        ({"settings": ["pretrain.channel=CT,PET"]}, ConfigError, r"pretrain\.channel"),
        ({"settings": ["model.deep_supervision=true"]}, ConfigError, r"model\.deep_supervision"),
        ({"budget": "soon"}, ConfigError, "budget 'soon'"),
        ({"seed": -1}, ConfigError, "seed -1"),
        ({"device": "tpu"}, ConfigError, "device 'tpu'"),
        ({"settings": ["train.precision=bf16"]}, ConfigError, "needs a GPU"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_refused_before_anything_is_written(tiny_msd, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        commands.pretrain(tiny_msd, tmp_path / "pre", **{"model": "unet_s", "device": "cpu", **changes})
    assert not (tmp_path / "pre").exists()


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(DataError, match="no scan in this folder"):
        commands.pretrain(tmp_path, tmp_path / "pre", model="unet_s", device="cpu")


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("masked_clusters.most_clusters=500", DataError, r"give 1600\..*masked_clusters\.fewer_clusters=true"),
        ("masked_clusters.mask={chain_length: 16}", ConfigError, "chain of 16 masked slices can hide all 16 slices"),
    ],
)
def test_what_the_method_cannot_do_is_refused_before_scans_are_prepared_and_can_be_mended(
    tiny_msd, tmp_path, setting, error, message
):
    # 5 scans x 20 crops x 16 slices, and up to 4 x 500 are needed
    settings = [*settings_of(TINY), setting]
    with pytest.raises(error, match=message):
        commands.pretrain(tiny_msd, tmp_path / "pre", model="unet_s", device="cpu", settings=settings, workers=1)
    assert not (tmp_path / "pre" / "pretraining.json").exists()
    assert not (tmp_path / "pre" / "work" / "store").exists()
    assert voxelseg("pretrain", tiny_msd, "--out", tmp_path / "pre", *TINY, *CLUSTERS).exit_code == 0


def test_a_folder_in_which_another_process_works_is_left_to_it(tiny_msd, tmp_path):
    with locked(tmp_path / "pre"), pytest.raises(BusyError, match="another voxelseg process works in this folder"):
        commands.pretrain(tiny_msd, tmp_path / "pre", model="unet_s", device="cpu")


def test_the_work_folder_of_a_training_is_not_used(tiny_msd, tmp_path):
    commands.plan(tiny_msd, tmp_path / "work", model="unet_s", device="cpu", workers=1)
    before = (tmp_path / "work" / "plan.json").read_bytes()
    with pytest.raises(DataError, match=r"was made from these scans with labels.*Choose another folder"):
        commands.pretrain(tiny_msd, tmp_path / "pre", model="unet_s", device="cpu", work=tmp_path / "work")
    assert (tmp_path / "work" / "plan.json").read_bytes() == before


def test_the_help_names_every_method():
    option = next(one for one in signature(COMMANDS["pretrain"]).parameters.values() if one.name == "method")
    named = re.findall(r"[a-z-]+", option.annotation.__metadata__[0].help.replace(" or ", " "))
    assert named == list(METHODS)


# --------------------------------------------------------------------------------------------------- other processes


def started(*arguments, processes=1):
    """The command in a process of its own, or in several as `torchrun` starts them."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [sys.executable, *(several if processes > 1 else []), "-m", "voxelseg", "pretrain", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(process):
    out, _ = process.communicate(timeout=TIME_LIMIT_S)
    assert process.returncode == 0, out
    return out


def largest_difference(first, second):
    one, two = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


@pytest.mark.slow
def test_killed_for_good_and_called_again_it_ends_with_the_same_bits(tiny_msd, pretrained, tmp_path):
    arguments = (tiny_msd, "--out", tmp_path / "pre", *TINY, *CLUSTERS)
    process = started(*arguments)
    ends = time.monotonic() + TIME_LIMIT_S
    while not (tmp_path / "pre" / "training_state.pt").is_file():
        assert time.monotonic() < ends
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "pre" / "model.safetensors").exists()
    finished(started(*arguments))
    assert largest_difference(pretrained[0], tmp_path / "pre") == 0


@pytest.mark.slow
def test_two_processes_share_a_pretraining(tiny_msd, tmp_path):
    arguments = ("--method", "simmim", "--set", "simmim.cube=[4,8,4]", *TINY)
    # Gradients are summed in another order, which the adaptive steps of AdamW would enlarge.
    arguments += ("--set", "train.optimizer=sgd", "--set", "train.lr=1e-2")
    finished(started(tiny_msd, "--out", tmp_path / "one", *arguments))
    out = finished(started(tiny_msd, "--out", tmp_path / "two", *arguments, processes=2))
    assert out.count("Wrote ") == 1
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-4


@pytest.mark.slow
def test_two_processes_read_what_the_first_one_has_prepared(tiny_msd, tmp_path):
    finished(started(tiny_msd, "--out", tmp_path / "two", *TINY, *CLUSTERS, processes=2))
    assert load_checkpoint(tmp_path / "two" / "model.safetensors").pretraining["method"] == "masked-clusters"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_real_scans_take_less_than_a_minute(shared_data, tmp_path, method):
    few = ["masked_clusters.num_clusterers=3", "masked_clusters.fewer_clusters=true"]
    small = ["model.width=2", "plan.spacing_mm=[3,3,3]", "plan.patch_size=[16,32,32]", "plan.batch_size=2"]
    found = commands.pretrain(
        shared_data / "la_mri",
        tmp_path / "pre",
        model="unet_s",
        method=method,
        epochs=1,
        device="cpu",
        settings=[
            *small,
            "train.workers=0",
            "train.validation_patches=2",
            *(few if method == "masked-clusters" else []),
        ],
        workers=1,
    )
    weights = load_checkpoint(found.model_file).weights
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
