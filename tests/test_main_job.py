"""The main job on real scans, through the command line, from the check to the scores."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

TRAINING = (
    *("--model", "unet_s", "--device", "cpu", "--epochs", "2", "--workers", "1"),
    *("--set", "model.width=4", "--set", "plan.batch_size=2", "--set", "train.steps_per_epoch=3"),
    *("--set", "train.workers=0", "--set", "train.validation_patches=2", "--set", "predict.overlap=0.0"),
)


def voxelseg(*arguments: str | Path) -> str:
    """Standard output of the command, which must succeed."""
    command = [sys.executable, "-m", "voxelseg", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def geometry(path: Path) -> dict[str, object]:
    """What a file's header says of where its voxels lie, as nibabel reads it."""
    header = nibabel.load(path).header
    return {
        "shape": header.get_data_shape()[:3],
        "spacing": header.get_zooms()[:3],
        "units": header.get_xyzt_units()[0],
        "sform": (header.get_sform(coded=True)[1], header.get_sform().tolist()),
        "qform": (header.get_qform(coded=True)[1], header.get_qform().tolist()),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patch", "classes"),
    [
        ("Dataset027_ACDC", "[8,96,96]", {"RV", "MYO", "LV"}),
        ("Dataset015_BraTS", "[64,64,64]", {"necrosis", "oedema", "non_enhancing", "enhancing"}),
    ],
)
def test_real_data_go_from_check_to_scores(shared_data, tmp_path, name, patch, classes):
    data, work, run = shared_data / name, tmp_path / "work", tmp_path / "run"
    predictions, scores = tmp_path / "predictions", tmp_path / "scores"
    found = json.loads(voxelseg("check", data, "--json"))["problems"]
    assert {problem["code"] for problem in found} <= {"fewer-folds"}  # four patients allow no more than four
    voxelseg("plan", data, "--out", work, "--model", "unet_s", "--device", "cpu")
    voxelseg("preprocess", work)
    voxelseg("train", data, "--out", run, "--work", work, *TRAINING, "--set", f"plan.patch_size={patch}")
    voxelseg("predict", run, "--input", data, "--output", predictions, "--overlap", "0", "--device", "cpu")
    voxelseg("evaluate", "--prediction", predictions, "--reference", data / "labelsTr", "--out", scores)
    references = sorted((data / "labelsTr").glob("*.nii.gz"))
    summary = json.loads((scores / "summary.json").read_text())
    assert set(summary["classes"]) == classes
    assert (scores / "cases.csv").read_text().count("\n") >= len(references)
    assert {path.name for path in predictions.glob("*.nii.gz")} == {path.name for path in references}
    for reference in references:
        scan = data / "imagesTr" / reference.name.replace(".nii.gz", "_0000.nii.gz")
        assert geometry(predictions / reference.name) == geometry(scan)
        labels = np.unique(np.asarray(nibabel.load(predictions / reference.name).dataobj))
        assert set(labels.tolist()) <= set(range(len(classes) + 1))
