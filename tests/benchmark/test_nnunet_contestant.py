import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxelseg.benchmark import nnunet_job
from voxelseg.benchmark.nnunet import (
    NNUNetWork,
    check_nnunet_folder,
    nnunet_description,
    nnunet_python,
    run,
    write_nnunet_raw,
)
from voxelseg.data import LabelClass, LabelScheme, read_dataset
from voxelseg.data.dataset import Case, Dataset
from voxelseg.errors import ConfigError, WorkerError
from voxelseg.evaluate import read_evaluation
from voxelseg.evaluate.held_out import read_pairs

SHAPE = (5, 7, 6)  # of the files, so D, H, W are 6, 7, 5
PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then exit 0; fi  # whether nnU-Net can be imported
printf '%s\\n' "$nnUNet_n_proc_DA" "$@" > "$nnUNet_raw/../arguments"
fold="$nnUNet_results/$2/nnUNetTrainer/fold_$4"
mkdir -p "$fold/validation"
cp -L "$nnUNet_raw/$2/labelsTr/"* "$fold/validation"
echo '{"steps": 7, "training_seconds": 3.5}' > "$fold/training.json"
"""
PLANNING = """#!/bin/bash
mkdir -p "$nnUNet_preprocessed"
echo prepared >> "$nnUNet_raw/../times"
"""


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)


def _dataset(root: Path, *, channels: int = 1) -> Dataset:
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:5, 1:3] = 1
    for name in ("a", "b", "c"):
        shape = SHAPE if channels == 1 else (*SHAPE, channels)
        _save(root / "imagesTr" / f"{name}.nii.gz", rng.normal(size=shape).astype(np.float32))
        _save(root / "labelsTr" / f"{name}.nii.gz", label)
    description = {
        "name": "Tiny",
        "modality": {str(index): f"MRI{index}" for index in range(channels)},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "abc"],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return read_dataset(root)


def test_nnunet_raw_folder_is_the_same_data_set(tmp_path):
    dataset = _dataset(tmp_path / "data")
    write_nnunet_raw(dataset, tmp_path / "raw")
    raw = read_dataset(tmp_path / "raw")
    assert raw.layout == "nnunet"
    assert (raw.channels, raw.labels) == (dataset.channels, dataset.labels)
    assert [case.id for case in raw.cases] == ["a", "b", "c"]
    for ours, theirs in zip(dataset.cases, raw.cases, strict=True):
        assert theirs.images[0].resolve() == ours.images[0].resolve()
        assert theirs.label is not None
        assert theirs.label.resolve() == (ours.label and ours.label.resolve())


def test_channels_in_one_file_become_one_file_each(tmp_path):
    dataset = _dataset(tmp_path / "data", channels=2)
    write_nnunet_raw(dataset, tmp_path / "raw")
    whole = nib.load(tmp_path / "data" / "imagesTr" / "b.nii.gz")
    for channel in range(2):
        one = nib.load(tmp_path / "raw" / "imagesTr" / f"b_{channel:04d}.nii.gz")
        np.testing.assert_array_equal(one.get_fdata(), whole.get_fdata()[..., channel])
        np.testing.assert_allclose(one.affine, whole.affine)


def test_regions_and_ignore_label_are_described_as_nnunet_does():
    labels = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)), ignore=3)
    case = Case("a", (Path("a.nii.gz"),), Path("label.nii.gz"))
    description = nnunet_description(Dataset("Tiny", Path(), "msd", ("MRI",), labels, (case,)))
    assert description == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        "regions_class_order": [1, 2],
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }


@pytest.fixture
def environment(tmp_path):
    """Programs in the place of those of nnU-Net's environment, whose predictions are the references."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    for name, text in (("python", PYTHON), ("nnUNetv2_plan_and_preprocess", PLANNING)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="runs shell scripts")
def test_a_job_leaves_what_a_benchmark_looks_for(tmp_path, environment):
    _dataset(tmp_path / "data")
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["c"], "val": ["a", "b"]}]))
    shared = [str(tmp_path / "data"), "--work", str(tmp_path / "work" / "nnunet"), "--env", str(environment)]
    shared += ["--splits", str(tmp_path / "splits.json"), "--threads", "1", "--device", "cpu"]
    assert nnunet_job.main(["prepare", *shared]) == 0
    folds = json.loads(
        (tmp_path / "work" / "nnunet" / "preprocessed" / "Dataset001_Tiny" / "splits_final.json").read_text()
    )
    assert folds == [{"train": ["c"], "val": ["a", "b"]}]
    out = tmp_path / "run"
    more = ["--out", str(out), "--fold", "0", "--seed", "3", "--steps", "7", "--batch-size", "2", "--no-mirroring"]
    assert nnunet_job.main(["train", *shared, *more]) == 0
    workers, *arguments = (tmp_path / "work" / "nnunet" / "arguments").read_text().split()
    assert workers == "1"  # as the other trainings have on a CPU
    wanted = ["--seed", "3", "--device", "cpu", "--no-mirroring", "--steps", "7", "--batch-size", "2"]
    assert arguments[1:] == ["Dataset001_Tiny", "--fold", "0", *wanted]
    scores = read_evaluation(out / "fold_0" / "validation")
    assert scores.case_means("dice") == {"a": 1.0, "b": 1.0}  # held-out ones only
    assert read_pairs(out / "fold_0" / "validation" / "pairs.json")["b"].prediction.is_file()
    assert json.loads((out / "fold_0" / "log.jsonl").read_text()) == {"event": "epoch", "step": 7, "elapsed_s": 3.5}
    assert json.loads((out / "fold_0" / "training.json").read_text())["device"].startswith("cpu (")


@pytest.fixture
def prepare(tmp_path, environment):
    """Prepares the data set anew in OUT/nnunet; returns how often nnU-Net has planned there."""

    def prepared() -> int:
        folder, python = tmp_path / "out" / "nnunet", environment / "bin" / "python"
        dataset = read_dataset(tmp_path / "data") if (tmp_path / "data").is_dir() else _dataset(tmp_path / "data")
        NNUNetWork(python=python, folder=folder, dataset=dataset, threads=1).prepare([], tmp_path / "log")
        return len((folder / "times").read_text().splitlines())

    return prepared


@pytest.mark.skipif(sys.platform == "win32", reason="runs shell scripts")
def test_data_are_prepared_once_and_again_when_they_change_or_were_left_half_done(tmp_path, prepare):
    assert [prepare(), prepare()] == [1, 1]
    marker = tmp_path / "out" / "nnunet" / "prepared.json"
    _save(tmp_path / "data" / "labelsTr" / "b.nii.gz", np.ones(SHAPE, np.uint8))
    assert [prepare(), prepare()] == [2, 2]
    marker.write_text(marker.read_text().replace('"finished": true', '"finished": false'))
    assert prepare() == 3
    marker.write_text(json.dumps({"data": str((tmp_path / "data").resolve())}))  # as earlier versions wrote it
    assert prepare() == 3
    marker.write_text(json.dumps({"data": "other"}))
    assert prepare() == 4


@pytest.mark.skipif(sys.platform == "win32", reason="runs shell scripts")
def test_nothing_but_nnunets_data_is_removed(tmp_path, environment, prepare):
    folder = tmp_path / "out" / "nnunet"
    folder.mkdir(parents=True)
    (folder / "raw").mkdir()
    (folder / "raw" / "weeks_of_work.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"nnunet: nnU-Net's data are to go there, but it has something else"):
        prepare()
    assert (folder / "raw" / "weeks_of_work.txt").is_file()
    (folder / "raw").rename(tmp_path / "out" / "elsewhere")
    assert prepare() == 1
    (folder / "notes.txt").write_text("mine")
    (folder / "prepared.json").write_text('{"data": "other"}')
    assert prepare() == 2
    assert (folder / "notes.txt").is_file()
    (tmp_path / "link").symlink_to(environment)
    for one in (environment, tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"lies where nnU-Net's data go.*another --out"):
            check_nnunet_folder(environment.parent, one)


@pytest.mark.parametrize(("visible", "name"), [("", "1"), ("3,5", "5"), ("GPU-a, GPU-b", "GPU-b")])
def test_a_gpu_is_one_of_those_that_a_job_may_use(monkeypatch, visible, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nnunet_job._visible_device(1) == name


def test_an_environment_without_nnunet_is_refused(tmp_path, environment):
    assert nnunet_python(environment) == environment / "bin" / "python"
    (environment / "bin" / "python").write_text("#!/bin/bash\necho 'ModuleNotFoundError: none' >&2; exit 1\n")
    with pytest.raises(ConfigError, match=r"cannot be imported there .ModuleNotFoundError: none."):
        nnunet_python(environment)
    with pytest.raises(ConfigError, match="has no Python"):
        nnunet_python(tmp_path)


def test_failed_command_shows_its_last_lines(tmp_path):
    command = [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"]
    with pytest.raises(WorkerError, match=r"(?s)code 3.*what went wrong.*log\.txt"):
        run(command, tmp_path / "log.txt")


def test_the_trainer_is_a_script_that_needs_nothing_of_voxelseg():
    source = (Path(nnunet_job.__file__).with_name("nnunet_trainer.py")).read_text()
    assert "import voxelseg" not in source
    assert "from voxelseg" not in source
