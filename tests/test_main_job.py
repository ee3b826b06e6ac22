"""The main job on real scans, through the command line, from the check to the scores."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxelseg.__main__ import main

TRAINING = (
    *("--model", "unet_s", "--device", "cpu", "--epochs", "2", "--workers", "1"),
    *("--set", "model.width=4", "--set", "plan.batch_size=2", "--set", "train.steps_per_epoch=3"),
    *("--set", "train.workers=0", "--set", "train.validation_patches=2", "--set", "predict.overlap=0.0"),
)


@pytest.fixture
def voxelseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command line, which must succeed, in this process; returns its standard output."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["voxelseg", *map(str, arguments)])
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    yield run
    signal.signal(signal.SIGTERM, before)


def excerpt(data: Path, folder: Path, patients: tuple[str, ...], box: tuple[slice, ...] | None) -> Path:
    """In `folder`, the data set of these patients' cases alone: links to their files, or what lies in `box` of them."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for file in (file for patient in patients for file in (data / part).glob(f"*{patient}_*.nii.gz")):
            if box is None:
                (folder / part / file.name).symlink_to(file)
            else:
                nibabel.load(file).slicer[box].to_filename(folder / part / file.name)
    description = json.loads((data / "dataset.json").read_text())
    description["numTraining"] = len(list((folder / "labelsTr").iterdir()))
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


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


# The headers of each data set differ in shape alone: these patients have the extremes of each axis.
ACDC = ("Dataset027_ACDC", ("patient005", "patient006", "patient007", "patient008", "patient011"), None)
# Brain, tumour and some air: the surfaces of what a hardly trained network sees in whole heads take minutes to measure.
BRATS = ("Dataset015_BraTS", ("pat0001", "pat0002"), np.s_[20:140, 40:200, 40:104])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "patch", "num_cases", "classes"),
    [
        (ACDC, "[8,96,96]", 10, {"RV", "MYO", "LV"}),
        (BRATS, "[64,64,64]", 2, {"necrosis", "oedema", "non_enhancing", "enhancing"}),
    ],
    ids=["ACDC", "BraTS"],
)
def test_real_data_go_from_check_to_scores(voxelseg, shared_data, tmp_path, source, patch, num_cases, classes):
    name, patients, box = source
    data = excerpt(shared_data / name, tmp_path / name, patients, box)
    work, run, predictions, scores = (tmp_path / part for part in ("work", "run", "predictions", "scores"))
    found = json.loads(voxelseg("check", data, "--json", "--workers", "1"))["problems"]
    assert {problem["code"] for problem in found} == ({"fewer-folds"} if len(patients) < 5 else set())
    voxelseg("plan", data, "--out", work, "--model", "unet_s", "--device", "cpu", "--workers", "1")
    voxelseg("preprocess", work, "--workers", "1")
    voxelseg("train", data, "--out", run, "--work", work, *TRAINING, "--set", f"plan.patch_size={patch}")
    voxelseg("predict", run, "--input", data, "--output", predictions, "--overlap", "0", "--device", "cpu")
    judged = ("--prediction", predictions, "--reference", data / "labelsTr")
    voxelseg("evaluate", *judged, "--out", scores, "--workers", "1")
    references = sorted((data / "labelsTr").glob("*.nii.gz"))
    assert len(references) == num_cases
    summary = json.loads((scores / "summary.json").read_text())
    assert set(summary["classes"]) == classes
    assert (scores / "cases.csv").read_text().count("\n") >= len(references)
    assert {path.name for path in predictions.glob("*.nii.gz")} == {path.name for path in references}
    for reference in references:
        scan = data / "imagesTr" / reference.name.replace(".nii.gz", "_0000.nii.gz")
        assert geometry(predictions / reference.name) == geometry(scan)
        labels = np.unique(np.asarray(nibabel.load(predictions / reference.name).dataobj))
        assert set(labels.tolist()) <= set(range(len(classes) + 1))
