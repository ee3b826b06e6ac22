"""A run folder as training leaves it, made of tiny phantoms."""

import json

import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.evaluate import evaluate_pairs, read_evaluation
from voxelseg.evaluate.components import Candidate
from voxelseg.evaluate.cross_validation import CrossValidation, FoldScores, scores_state
from voxelseg.evaluate.intervals import bootstrap_intervals
from voxelseg.evaluate.pooling import pool
from voxelseg.files import write_json
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
SHAPE_DHW = (7, 18, 22)
AFFINE = np.diag([0.9, 1.1, 4.0, 1.0])  # D, H, W = 4, 1.1, 0.9 mm


def save(path, array):
    d, h, w = array.shape
    write_volume(path, Volume(array[None], Grid(shape_ijk=(w, h, d), affine_ijk=AFFINE)))


def phantom(shift=0, spleen=True):
    """Label map with two boxes, moved along W by `shift` voxels."""
    label = np.zeros(SHAPE_DHW, np.uint8)
    label[1:6, 4:14, 3 + shift : 11 + shift] = 1
    if spleen:
        label[2:5, 6:11, 13 + shift : 18 + shift] = 2
    return label


def write_fold(run, scans, name, shifts, *, epochs=4, validated=True, cases=()):
    """Fold whose held-out cases, named `cases` if given, are predicted `shifts` voxels off."""
    fold = run / f"fold_{name}"
    fold.mkdir(parents=True)
    lines = [{"event": "start"}]
    for epoch in range(epochs):
        dice = {"liver": 0.5 + 0.1 * epoch, "spleen": 0.3 + 0.1 * epoch} if epoch % 2 else None
        lines.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "step": 10 * (epoch + 1),
                "elapsed_s": 30.0 * (epoch + 1),
                "loss": 1.0 / (epoch + 1),
                "lr": 1e-3 * (1 - epoch / epochs),
                "validation_loss": 1.1 / (epoch + 1) if dice else None,
                "validation_dice": dice,
                "mean_dice": 0.4 + 0.1 * epoch if dice else None,
            }
        )
    (fold / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not validated:
        return fold
    pairs = []
    for index, shift in enumerate(shifts):
        case = cases[index] if cases else f"case_{name}{index}"
        label = phantom(spleen=index != 1)
        noise = np.random.default_rng(index).normal(scale=20, size=SHAPE_DHW)
        save(scans / "images" / f"{case}.nii.gz", (40 * label + noise).astype(np.float32))
        save(scans / "labels" / f"{case}.nii.gz", label)
        save(fold / "validation" / f"{case}.nii.gz", phantom(shift, spleen=index != 1))
        pairs.append(
            {
                "case": case,
                "images": [str(scans / "images" / f"{case}.nii.gz")],
                "label": str(scans / "labels" / f"{case}.nii.gz"),
                "prediction": f"{case}.nii.gz",
            }
        )
    write_json(fold / "validation" / "pairs.json", pairs)
    files = [(pair["case"], fold / "validation" / pair["prediction"], pair["label"]) for pair in pairs]
    evaluate_pairs(files, fold / "validation", labels=LABELS)
    return fold


def write_run_file(run):
    cases = {f"case_{index}": {"shape": list(SHAPE_DHW), "spacing_mm": [4.0, 1.1, 0.9]} for index in range(3)}
    write_json(
        run / "run.json",
        {
            "command": "voxelseg train DATA --out RUN --model mednext_s",
            "created": "2031-05-06T07:08:09+00:00",
            "voxelseg": "0.1.0",
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "device": "cpu (2 threads)",
            "model": "mednext_s",
            "seed": 7,
            "dataset": {
                "name": "Two <boxes>",
                "layout": "msd",
                "root": "DATA",
                "num_cases": 3,
                "channels": ["MR"],
                "labels": LABELS.to_dict(),
            },
            "config": {"train": {"lr": 0.001, "optimizer": "adamw"}, "augmentation": {"mirror": True}},
            "plan": {
                "channels": ["MR"],
                "axes": [0, 1, 2],
                "spacing_mm": [4.0, 1.1, 0.9],
                "normalization": [{"kind": "zscore", "window": None}],
                "patch_size": [8, 16, 24],
                "mirror_axes": [1],
                "notes": ["D is coarse."],
            },
            "fingerprint": {"cases": cases},
        },
    )


@pytest.fixture
def run_folder(make_run):
    """Run with one validated fold; case_00 is predicted best, case_02 worst."""
    return make_run([0, 1, 3])


@pytest.fixture
def make_run(tmp_path):
    """Makes a run whose only fold has a held-out case for each of the given shifts."""

    def make(shifts):
        write_fold(tmp_path / "run", tmp_path / "data", "0", shifts)
        write_run_file(tmp_path / "run")
        return tmp_path / "run"

    return make


@pytest.fixture
def overlapping_run(tmp_path):
    """Run with two validated folds that both held case_00 out."""
    run = tmp_path / "run"
    write_fold(run, tmp_path / "data", "0", [0, 1])
    write_fold(run, tmp_path / "data", "1", [3, 1], cases=("case_00", "case_11"))
    write_run_file(run)
    return run


@pytest.fixture
def two_fold_run(tmp_path):
    """Run with two validated folds and one in training."""
    run = tmp_path / "run"
    write_fold(run, tmp_path / "data", "0", [0, 1])
    write_fold(run, tmp_path / "data", "1", [2, 3])
    write_fold(run, tmp_path / "data", "10", [], epochs=2, validated=False)
    write_run_file(run)
    return run


@pytest.fixture
def cross_validated_run(tmp_path):
    """Run with two validated folds that are pooled; a postprocessing was chosen that changes nothing in the scores."""
    run = tmp_path / "run"
    write_fold(run, tmp_path / "data", "0", [0, 1])
    write_fold(run, tmp_path / "data", "1", [2, 3])
    write_run_file(run)
    write_json(run / "splits.json", [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}])
    folders = {name: run / f"fold_{name}" / "validation" for name in "01"}
    folds = {name: read_evaluation(folder) for name, folder in folders.items()}
    pooled, _ = pool(folds)
    intervals = bootstrap_intervals(pooled, {case: case for case in pooled.cases})
    CrossValidation(
        inputs={name: scores_state(folder) for name, folder in folders.items()},
        folds={
            name: FoldScores(len(one.cases), {column.key: one.mean(column.key) for column in one.columns})
            for name, one in folds.items()
        },
        patients=4,
        pooled=pooled,
        intervals=intervals,
        postprocessing=Postprocessing(classes=("spleen",)),
        candidates=(Candidate("all classes", False, 0.8, 0.7, 0, 4), Candidate("spleen", True, 0.6, 0.65, 2, 1)),
        postprocessed=pooled,
        postprocessed_intervals=intervals,
    ).write(run / "cross_validation")
    return run


@pytest.fixture
def unfinished_run(tmp_path):
    """Run in its first fold, before any validation."""
    run = tmp_path / "run"
    write_fold(run, tmp_path / "data", "0", [], epochs=2, validated=False)
    write_run_file(run)
    return run
