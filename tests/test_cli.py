import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from voxelseg.__main__ import main
from voxelseg.checkpoint import load_checkpoint, save_checkpoint
from voxelseg.cli import COMMANDS
from voxelseg.io import read_label, read_volume, write_volume
from voxelseg.volume import Volume

TINY = (
    *("--model", "unet_s", "--epochs", "1", "--device", "cpu", "--workers", "1"),
    *("--set", "model.width=4", "--set", "plan.patch_size=[16,24,16]", "--set", "plan.batch_size=2"),
    *("--set", "train.steps_per_epoch=2", "--set", "train.workers=0", "--set", "train.validation_patches=2"),
    *("--set", "plan.mirror_axes=[1]"),
)


class Result:
    """What a command left: exit code and both outputs."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def refuses(self, *patterns):
        """One clear message, exit code 2, no traceback."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        assert self.err.count("error: ") >= 1 or "Error: " in self.err
        for pattern in patterns:
            assert re.search(pattern, self.err, re.DOTALL), self.err
        return True


@pytest.fixture
def voxelseg(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["voxelseg", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def data(tiny_msd, tmp_path):
    """The tiny data set, to be damaged."""
    return shutil.copytree(tiny_msd, tmp_path / "data")


def started(*arguments, **options):
    """The command line in a process and process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "voxelseg", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def finished(process):
    out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def no_leftovers(folder):
    return not [path for path in folder.rglob("*") if path.name.startswith(".partial-")]


# ------------------------------------------------------------------------------------------------- what it looks like


def test_help_names_every_command_within_100_columns(voxelseg, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    shown = voxelseg("--help")
    assert shown.code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", shown.out, re.MULTILINE)
        page = voxelseg(name, "--help").out
        assert page.startswith("Usage: ")
        assert "..." not in page.split("\n", 1)[1]
        assert max(map(len, page.splitlines())) <= 100
    assert "..." not in shown.out.split("\n", 1)[1]


def test_the_version_is_printed(voxelseg):
    assert re.fullmatch(r"voxelseg \d+\.\d+\.\d+\n", voxelseg("--version").out)


@pytest.fixture
def two_networks(only_networks):
    """Only two networks to describe."""
    only_networks("mednext_xs", "unet_s")


@pytest.mark.usefixtures("two_networks")
def test_models_are_a_table_or_json(voxelseg, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = voxelseg("models").out
    assert "one patch of 96^3 voxels" in table
    # 1.37 million parameters, 10.5 GMAC, GB in training and prediction, the divisor
    assert re.search(r"^ ?mednext_xs +1\.37 +10\.5 +2\.\d\d +0\.\d\d +16\^3 ", table, re.MULTILINE)
    assert max(map(len, table.splitlines())) <= 80
    found = {one["name"]: one for one in json.loads(voxelseg("models", "--json").out)}
    assert found["unet_s"]["size"] == [96, 96, 96]
    assert set(found) == {"mednext_xs", "unet_s"}


@pytest.mark.usefixtures("two_networks")
def test_a_network_that_cannot_take_the_patch_says_the_larger_one_that_it_was_counted_with(voxelseg):
    found = {one["name"]: one["size"] for one in json.loads(voxelseg("models", "--json", "--size", "20,24,40").out)}
    assert found == {"mednext_xs": [32, 32, 48], "unet_s": [24, 24, 40]}
    assert "32x32x48" in voxelseg("models", "--size", "20,24,40").out


@pytest.mark.parametrize("size", ["abc", "0", "-8", "64,64", "1.5", "64x64x64", "5000", ""])
def test_a_size_that_is_none_is_refused(voxelseg, size):
    assert voxelseg("models", "--size", size).refuses("expected voxels along each axis, as 96")


def test_check_prints_json_for_machines_and_exits_1_if_training_would_be_wrong(voxelseg, data):
    assert voxelseg("check", data, "--workers", "1").code == 0
    (data / "labelsTr" / "tiny_0.nii.gz").unlink()
    found = voxelseg("check", data, "--workers", "1", "--json")
    assert found.code == 1
    assert json.loads(found.out)["ok"] is False
    assert voxelseg("check", data, "--workers", "1").code == 1


def test_results_go_to_standard_output_and_remarks_to_standard_error(voxelseg, data, tmp_path):
    scored = voxelseg(
        *("evaluate", "--prediction", data / "labelsTs", "--reference", data / "labelsTs", "--out", tmp_path / "s"),
        *("--workers", "1"),
    )
    assert "ball" in scored.out
    assert scored.err.startswith("Wrote ")
    planned = voxelseg("plan", data, "--out", tmp_path / "w", "--device", "cpu", "--workers", "1")
    assert "patch (voxels)" in planned.out
    assert "Next:\n  voxelseg preprocess" in planned.err


def test_training_without_a_terminal_prints_few_lines(voxelseg, data, tmp_path):
    shown = voxelseg("train", data, "--out", tmp_path / "run", *TINY, "--set", "train.steps_per_epoch=40")
    assert shown.code == 0
    assert 10 <= len(re.findall(r"^training fold 0 .*step", shown.err, re.MULTILINE)) <= 12
    assert "\r" not in shown.err
    assert "\x1b" not in shown.err


def printing_into(output, option):
    """Exit code and standard error of the command when its standard output, buffered, goes to `output`."""
    command = [sys.executable, "-m", "voxelseg", option]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_reader_that_has_gone_away_is_no_error(option):
    reading, writing = os.pipe()
    os.close(reading)
    assert printing_into(writing, option) == (1, "")
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_output_that_cannot_be_written_is_one_message():
    with Path("/dev/full").open("w") as full:
        code, said = printing_into(full, "--version")
    assert (code, said) == (2, "error: No space left on device. Check that the path exists, its rights and the disk.\n")


# ----------------------------------------------------------------------------------------------------- bad data sets


@pytest.mark.parametrize("command", ["check", "plan", "train"])
def test_what_is_no_data_set_is_refused(voxelseg, tmp_path, command):
    extra = [] if command == "check" else ["--out", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    assert voxelseg(command, tmp_path / "nothing", *extra).refuses("nothing: no such file or folder")
    assert voxelseg(command, tmp_path / "empty", *extra).refuses("not a data set", "Looked for")
    assert voxelseg(command, tmp_path / "file.txt", *extra).refuses("not a data set")
    assert not (tmp_path / "out").exists()


def test_work_folders_that_are_none_are_refused(voxelseg, tmp_path):
    assert voxelseg("preprocess", tmp_path).refuses("voxelseg plan DATA --out WORK")


@pytest.mark.parametrize("damage", ["truncated", "text", "nan", "other shape", "unknown label"])
def test_training_names_the_bad_file_and_stops_before_it_learns(voxelseg, data, tmp_path, damage):
    image, label = (data / part / "tiny_1.nii.gz" for part in ("imagesTr", "labelsTr"))
    scan, reference = read_volume(image), read_label(label)
    if damage == "truncated":
        image.write_bytes(image.read_bytes()[:500])
    elif damage == "text":
        image.write_text("not a scan")
    elif damage == "nan":
        write_volume(image, Volume(np.full_like(scan.array, np.nan), scan.grid))
    elif damage == "other shape":
        shutil.copy(data / "labelsTr" / "tiny_2.nii.gz", label)
        other = read_volume(data / "imagesTr" / "tiny_2.nii.gz")
        write_volume(image, Volume(other.array[:, :-1], _cropped(other.grid)))
    else:
        write_volume(label, Volume(np.where(reference.array == 2, 9, reference.array).astype(np.uint8), reference.grid))
    assert voxelseg("train", data, "--out", tmp_path / "run", *TINY).refuses("tiny_1")
    assert not list((tmp_path / "run").glob("fold_*/*.safetensors"))
    assert no_leftovers(tmp_path)


def _cropped(grid):
    from dataclasses import replace

    i, j, k = grid.shape_ijk
    axis = grid.orientation.axes[0]
    shape = [i, j, k]
    shape[axis] -= 1
    return replace(grid, shape_ijk=tuple(shape))


def test_a_single_case_cannot_be_trained_and_held_out(voxelseg, data, tmp_path):
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**description, "training": description["training"][:1]}))
    assert voxelseg("train", data, "--out", tmp_path / "run", *TINY).refuses("1 case: training needs a held-out case")


def test_folds_of_other_cases_are_refused(voxelseg, data, tmp_path):
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["tiny_0"], "val": ["somebody"]}]))
    run = voxelseg("train", data, "--out", tmp_path / "run", *TINY, "--splits", tmp_path / "folds.json")
    assert run.refuses(r"folds\.json: fold 0 names unknown cases: somebody")


# -------------------------------------------------------------------------------------------- bad options and settings


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--model", "mednext_z"], r"unknown model 'mednext_z' \(did you mean 'mednext_\w'\?\)"),
        (["--set", "model.kernal_size=5"], r"no option 'kernal_size' \(did you mean 'kernel_size'\?\)"),
        (["--set", "model.width=wide"], r"width"),
        (["--set", "model.width=-1"], r"width"),
        (["--set", "model.in_channels=3"], r"model\.in_channels: the data set decides this"),
        (["--set", "train.lrr=1"], r"train has no 'lrr' \(did you mean 'lr'\?\)"),
        (["--set", "trian.lr=1"], r"no section 'trian' \(did you mean 'train'\?\)"),
        (["--set", "lr=1"], r"expected section\.key=value"),
        (["--set", "train.lr=minus one"], r"train\.lr.*valid number"),
        (["--set", "plan.patch_size=[1,2]"], r"plan\.patch_size"),
        (["--set", "plan.patchsize=[1,2,3]"], r"did you mean 'patch_size'"),
        (["--set", "train.precision=fp16"], r"fp16 needs a GPU"),
        (["--recipe", "mednext_s_k3_btvc"], r"unknown recipe .* \(did you mean 'mednext_s_k3_btcv'\?\)"),
        (["--recipe", "mednext_s_k3_btcv", "--model", "mednext_l"], r"is a training of mednext_s, not of mednext_l"),
        (["--init", "run", "--set", "transfer.init=other"], r"--init and --set transfer\.init say the same thing"),
        (["--init", "nothing"], r"transfer\.init: there is no nothing"),
        (["--grow-kernel", "5:3"], r"expected two odd sizes"),
        (["--budget", "soon"], r"expected a time such as"),
        (["--budget", "5m", "--epochs", "3"], r"epochs and a budget both set"),
        (["--epochs", "0"], r"Invalid value for '--epochs'"),
        (["--fold", "7"], r"fold 7: the data set has folds 0 to \d"),
        (["--fold", "first"], r"fold 'first': expected a number"),
        (["--device", "tpu"], r"device 'tpu': expected cpu, cuda"),
        (["--memory-gb", "0"], r"memory budget 0.0 GB"),
        (["--memory-gb", "nan"], r"memory budget nan GB"),
        (["--memory-gb", "0.001"], r"memory budget 0\.001 GB: weights, gradients and optimizer"),
        (["--set", "model.spatial_dims=2"], r"takes slices, not volumes"),
        (["--budget", "20m", "--set", "train.budget_s=60"], r"Give one"),
        (["--seed", "4294967296"], r"Invalid value for '--seed'"),
        (["--workers", "0"], r"Invalid value for '--workers'"),
        (["--seed", "-1"], r"Invalid value for '--seed'"),
        (["--colour", "blue"], r"No such option: --colour"),
        (["--splits", "nothing.json"], r"nothing\.json: file not found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_and_impossible_options_are_refused_before_any_work(voxelseg, data, tmp_path, arguments, pattern):
    result = voxelseg("train", data, "--out", tmp_path / "run", "--workers", "1", *arguments)
    assert result.refuses(pattern)
    assert not (tmp_path / "run" / "work" / "store").exists()
    assert not list((tmp_path / "run").glob("fold_*")) or "fp16" in pattern


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1"])
def test_an_impossible_tolerance_is_refused_before_anything_is_made(voxelseg, tiny_msd, tmp_path, tolerance):
    folders = ["--prediction", tiny_msd / "labelsTs", "--reference", tiny_msd / "labelsTs"]
    result = voxelseg("evaluate", *folders, "--out", tmp_path / "scores", "--tolerance-mm", tolerance)
    assert result.refuses("tolerance.mm")
    assert not (tmp_path / "scores").exists()


def test_several_tolerances_are_scored_at_once_and_the_table_shows_the_first(voxelseg, tiny_msd, tmp_path):
    folders = ["--prediction", tiny_msd / "labelsTs", "--reference", tiny_msd / "labelsTs"]
    tolerances = ["--tolerance-mm", "2", "--tolerance-mm", "0.5"]
    result = voxelseg("evaluate", *folders, "--out", tmp_path / "scores", *tolerances)
    assert result.code == 0
    assert "at 2 mm" in " ".join(result.out.split())
    header = (tmp_path / "scores" / "cases.csv").read_text().splitlines()[0].split(",")
    assert {"surface_dice", "surface_dice_0.5mm", "area_surface_dice_0.5mm"} < set(header)


def test_a_budget_of_the_demo_that_is_no_time_is_refused_before_anything_is_made(voxelseg, tmp_path):
    assert voxelseg("demo", "--out", tmp_path / "demo", "--budget", "soon").refuses("expected a time such as")
    assert not (tmp_path / "demo").exists()


def test_unknown_commands_are_refused_with_the_closest(voxelseg):
    assert voxelseg("trian").refuses("No such command 'trian'", "train")


def test_another_setting_for_a_run_that_is_there_is_named(voxelseg, tiny_run, tiny_msd, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    result = voxelseg("train", tiny_msd, "--out", run, *TINY, "--set", "train.lr=0.5")
    assert result.refuses(r"config\.train\.lr was 0\.001, now 0\.5", "Choose another --out")


def test_a_run_of_another_data_set_is_named(voxelseg, tiny_run, data, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    description = json.loads((data / "dataset.json").read_text())
    description["labels"]["3"] = "cone"
    (data / "dataset.json").write_text(json.dumps(description))
    shutil.rmtree(run / "work")
    assert voxelseg("train", data, "--out", run, *TINY).refuses("dataset.labels.classes was")


# ---------------------------------------------------------------------------------------------------- bad predictions


def test_predictions_of_bad_scans_name_them_all_and_keep_the_good(voxelseg, tiny_run, tiny_msd, tmp_path):
    scans = shutil.copytree(tiny_msd / "imagesTs", tmp_path / "scans")
    (scans / "bad_1.nii.gz").write_bytes(b"damaged")
    (scans / "bad_2.nii.gz").write_bytes((scans / "tiny_4.nii.gz").read_bytes()[:400])
    out = tmp_path / "out"
    result = voxelseg("predict", tiny_run.folder, "--input", scans, "--output", out, "--device", "cpu")
    assert result.refuses("2 of 4 cases could not be predicted, the others were", "bad_1", "bad_2")
    assert {path.name for path in out.glob("[!.]*")} == {"tiny_4.nii.gz", "tiny_5.nii.gz", "prediction.json"}


def test_another_number_of_channels_is_refused_before_any_work(voxelseg, tiny_run, tiny_msd, tmp_path):
    scan = read_volume(tiny_msd / "imagesTs" / "tiny_4.nii.gz")
    write_volume(tmp_path / "scans" / "two.nii.gz", Volume(np.concatenate([scan.array] * 2), scan.grid))
    shutil.copy(tiny_msd / "imagesTs" / "tiny_5.nii.gz", tmp_path / "scans")
    result = voxelseg("predict", tiny_run.folder, "--input", tmp_path / "scans", "--output", tmp_path / "out")
    assert result.refuses(r"expects 1 channel\(s\) \(MRI\)", "two: 2 in two.nii.gz")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["truncated", "text", "other network", "foreign", "newer"])
def test_bad_model_files_are_refused_with_their_path(voxelseg, tiny_run, tiny_msd, tmp_path, damage):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    content = tiny_run.model.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("model")
    elif damage == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif damage == "newer":
        path.write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 9', 1))
    else:
        good = load_checkpoint(tiny_run.model)
        save_checkpoint(path, good.__class__(**{**vars(good), "model_options": {**good.model_options, "width": 5}}))
    result = voxelseg("predict", path, "--input", tiny_msd, "--output", tmp_path / "out", "--device", "cpu")
    assert result.refuses(r"model\.safetensors: ")
    assert not (tmp_path / "out").exists()


def test_models_of_other_classes_do_not_form_an_ensemble(voxelseg, tiny_run, tiny_msd, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    good = load_checkpoint(tiny_run.model)
    labels = good.labels.__class__(good.labels.classes[:1])
    save_checkpoint(run / "fold_1" / "model.safetensors", good.__class__(**{**vars(good), "labels": labels}))
    result = voxelseg("predict", run, "--input", tiny_msd, "--output", tmp_path / "out", "--device", "cpu")
    assert result.refuses("the models differ in labels, patch, preprocessing or mirror axes")


def test_inputs_and_runs_that_are_not_there_are_named(voxelseg, tiny_run, tiny_msd, tmp_path):
    (tmp_path / "empty").mkdir()
    for run, source, pattern in (
        (tiny_run.folder, tmp_path / "nothing", "nothing: not found"),
        (tiny_run.folder, tmp_path / "empty", "neither scans nor a data set"),
        (tmp_path / "empty", tiny_msd, "holds no trained model"),
        (tmp_path / "nothing", tiny_msd, "nothing: not found"),
    ):
        assert voxelseg("predict", run, "--input", source, "--output", tmp_path / "out").refuses(pattern)
    assert voxelseg("report", tmp_path / "empty").refuses(r"run\.json")


# ----------------------------------------------------------------------------------------------- disk, rights, crashes


def test_output_folders_that_cannot_be_written_are_refused_at_once(voxelseg, tiny_run, tiny_msd, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    scores = ["evaluate", "--prediction", tiny_msd / "labelsTs", "--reference", tiny_msd / "labelsTs", "--out", out]
    for command in (
        ["train", tiny_msd, "--out", out],
        ["train", tiny_msd, "--out", tmp_path / "run", "--work", out],
        ["plan", tiny_msd, "--out", out],
        ["predict", tiny_run.folder, "--input", tiny_msd, "--output", out, "--device", "cpu"],
        scores,
        ["report", tiny_run.folder, "--out", out / "report.html"],
        ["demo", "--out", out],
    ):
        assert voxelseg(*command).refuses("cannot be written", "write permission|free disk space"), command[0]
    assert (tmp_path / "file").read_text() == "in the way"


def test_folders_without_write_permission_are_refused(voxelseg, tiny_msd, tmp_path, monkeypatch):
    real = os.access  # root may write anywhere, so the system's answer is played
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK and real(path, mode))
    assert voxelseg("train", tiny_msd, "--out", tmp_path / "run", *TINY).refuses(r"Permission denied.*write permission")


@pytest.mark.parametrize(("stage", "limit_kb"), [("train", 40), ("predict", 1)])
def test_a_full_disk_ends_in_one_message_and_leaves_no_half_written_file(tiny_run, tiny_msd, tmp_path, stage, limit_kb):
    arguments = {
        "train": ["train", tiny_msd, "--out", tmp_path / "out", *TINY],
        "predict": ["predict", tiny_run.folder, "--input", tiny_msd, "--output", tmp_path / "out", "--device", "cpu"],
    }[stage]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb * 1024, limit_kb * 1024))

    result = finished(started(*arguments, preexec_fn=limited, cwd=tmp_path))
    assert result.refuses("cannot be written")
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_store_is_reported_with_the_worker_s_own_error(voxelseg, tiny_msd, tmp_path, workers):
    arguments = ["train", tiny_msd, "--out", tmp_path / "run", *TINY, "--set", f"train.workers={workers}"]
    assert voxelseg(*arguments, "--set", "train.lr=0.1").code == 0
    for image in (tmp_path / "run" / "work" / "store").glob("*/*/image.b2nd"):
        content = bytearray(image.read_bytes())
        content[200:] = bytes(len(content) - 200)  # the size stays as it was recorded
        image.write_bytes(content)
    shutil.rmtree(tmp_path / "run" / "fold_0")
    result = voxelseg(*arguments, "--set", "train.lr=0.1")
    assert result.refuses(r"image\.b2nd: damaged", "Delete its folder")
    assert ("a process that loads patches failed" in result.err) == bool(workers)


def test_a_crash_of_ours_is_one_line_with_the_details_in_a_file(voxelseg, tiny_msd, tmp_path, monkeypatch):
    from voxelseg.commands import checking

    def broken(*_, **__):
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr(checking, "check_dataset", broken)
    result = voxelseg("check", tiny_msd)
    assert result.code == 2
    assert result.err.startswith("internal error: ZeroDivisionError: our mistake\nDetails are in ")
    assert "Traceback" in (tmp_path / "voxelseg-error.log").read_text()


def test_the_details_of_a_crash_go_elsewhere_if_they_cannot_lie_here(voxelseg, tiny_msd, tmp_path, monkeypatch):
    from voxelseg.commands import checking

    monkeypatch.setattr(checking, "check_dataset", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "voxelseg-error.log").mkdir()  # in the way
    result = voxelseg("check", tiny_msd)
    found = "internal error: ZeroDivisionError: division by zero\n"
    assert result.err == f"{found}No file for the details could be written.\n"
    (tmp_path / "temporary").mkdir()
    result = voxelseg("check", tiny_msd)
    (details,) = (tmp_path / "temporary").iterdir()
    assert result.err == f"{found}Details are in {details}; please report them.\n"
    assert "Traceback" in details.read_text()


def test_a_system_error_that_nobody_expected_is_still_one_message(voxelseg, tiny_msd, monkeypatch):
    from voxelseg.commands import checking

    def unreadable(*_, **__):
        raise PermissionError(13, "Permission denied", "scan.nii.gz")

    monkeypatch.setattr(checking, "check_dataset", unreadable)
    assert voxelseg("check", tiny_msd).refuses(r"error: scan\.nii\.gz: Permission denied")


# ---------------------------------------------------------------------------------------------- Ctrl-C and SIGTERM


def ctrl_c(process):
    """As a terminal does: to the command and all its workers."""
    os.killpg(process.pid, signal.SIGINT)


def sigterm(process):
    """As SLURM, docker stop and timeout do."""
    process.terminate()


def sigterm_to_all(process):
    """As batch systems do: to the command and all its workers."""
    os.killpg(process.pid, signal.SIGTERM)


def test_ctrl_c_in_this_process_is_one_message_and_exit_code_2(voxelseg, tiny_msd, monkeypatch):
    from voxelseg.commands import checking

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "check_dataset", interrupted)
    result = voxelseg("check", tiny_msd)
    assert (result.code, result.err) == (2, "stopped. What is finished is kept; the same command continues.\n")


@pytest.mark.parametrize("send", [ctrl_c, sigterm, sigterm_to_all])
def test_ctrl_c_during_training_saves_the_state_and_the_same_command_finishes(tiny_msd, tmp_path, send):
    arguments = ["train", tiny_msd, "--out", tmp_path / "run", *TINY]
    arguments[arguments.index("train.steps_per_epoch=2")] = "train.steps_per_epoch=1000000"
    arguments[arguments.index("train.workers=0")] = "train.workers=1"
    process = started(*arguments, cwd=tmp_path)
    log = tmp_path / "run" / "fold_0" / "log.jsonl"
    _wait_for(lambda: log.is_file() and log.stat().st_size > 0)
    time.sleep(1.0)  # into the start of the worker, which the terminal interrupts too
    send(process)
    result = finished(process)
    assert result.code == 2
    assert result.err.rstrip().endswith("stopped; the state is saved. The same command continues the training.")
    assert "Traceback" not in result.err
    assert (tmp_path / "run" / "fold_0" / "training_state.pt").is_file()
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["start", "stop"]


@pytest.mark.parametrize("send", [ctrl_c, sigterm])
def test_ctrl_c_while_cases_are_prepared_is_one_message(tiny_msd, tmp_path, send):
    process = started("plan", tiny_msd, "--out", tmp_path / "work", "--device", "cpu", "--workers", "2", cwd=tmp_path)
    _wait_for(lambda: (tmp_path / "work").is_dir())
    time.sleep(0.3)  # the workers are still importing
    send(process)
    result = finished(process)
    assert (result.code, result.err) == (2, "stopped. What is finished is kept; the same command continues.\n")


def test_sigterm_ends_a_job_that_its_shell_made_deaf_to_ctrl_c(tiny_msd, tmp_path):
    arguments = ["plan", tiny_msd, "--out", tmp_path / "work", "--device", "cpu", "--workers", "2"]
    process = started(*arguments, cwd=tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    _wait_for(lambda: (tmp_path / "work").is_dir())
    process.send_signal(signal.SIGINT)  # as a background job of a script gets it
    time.sleep(0.3)
    assert process.poll() is None
    sigterm(process)
    result = finished(process)
    assert (result.code, result.err) == (2, "stopped. What is finished is kept; the same command continues.\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_while_the_command_line_is_imported_is_one_message(tmp_path, name):
    (tmp_path / "typer.py").write_text(f"import os, signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(30)")
    result = finished(started("models", env={**os.environ, "PYTHONPATH": str(tmp_path)}))
    assert (result.code, result.err) == (2, "stopped. What is finished is kept; the same command continues.\n")


def test_the_installed_command_is_the_one_that_is_tested_here():
    (command,) = entry_points(group="console_scripts", name="voxelseg")
    assert command.load() is main


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("stage", ["plan", "train"])
def test_a_killed_command_leaves_no_process_behind(tiny_msd, tmp_path, stage):
    arguments = {
        "plan": ["plan", tiny_msd, "--out", tmp_path / "out", "--device", "cpu", "--workers", "2"],
        "train": ["train", tiny_msd, "--out", tmp_path / "out", *TINY, "--set", "train.workers=1"],
    }[stage]
    if stage == "train":
        arguments[arguments.index("train.steps_per_epoch=2")] = "train.steps_per_epoch=1000000"
    process = started(*arguments, cwd=tmp_path)
    _wait_for(lambda: len(_processes_of(process.pid)) >= 3 + (stage == "train"))  # tracker, workers, their server
    process.kill()
    process.communicate()
    _wait_for(lambda: not _processes_of(process.pid))


def _processes_of(session):
    """Living processes of the session that a command was started in."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _wait_for(condition):
    end = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------ slurm


def test_slurm_writes_a_script_of_what_comes_after_two_dashes(voxelseg, data, tmp_path):
    shown = voxelseg("slurm", "--out", "job.sh", "--gpus-per-node", "2", "--", data, "--out", "my run", "--epochs", "3")
    assert shown.code == 0
    assert "sbatch job.sh" in shown.err
    assert f"-m voxelseg train {data} --out 'my run' --epochs 3 &" in (tmp_path / "job.sh").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("DATA",), "Missing option '--out'"),
        (("DATA", "--out", "RUN", "--epoch", "3"), "No such option: --epoch"),
        (("DATA", "--out", "RUN", "--fold", "1"), r"--folds 2 gives each task its fold\. Leave --fold out"),
        (("DATA", "--out", "RUN", "--set", "train.rl=1"), "train has no 'rl'"),
        (("DATA", "--out", "RUN", "--recipe", "mednext"), r"unknown recipe 'mednext'"),
    ],
)
def test_slurm_refuses_what_a_training_cannot_be_given(voxelseg, tmp_path, arguments, message):
    assert voxelseg("slurm", "--out", "job.sh", "--folds", "2", "--", *arguments).refuses(message)
    assert not (tmp_path / "job.sh").exists()
