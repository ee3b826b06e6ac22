import json
import re
from pathlib import Path

import against_nnunet
import nibabel as nib
import numpy as np
import pytest

from voxelseg.data import Split, read_dataset
from voxelseg.data.dataset import Dataset
from voxelseg.errors import ConfigError, DataError

SHAPE = (5, 7, 6)  # of the files, so D, H, W are 6, 7, 5
SPACING = (1.0, 2.0, 3.0)


def _save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1.0])), path)
    return path


def _label(shift: int = 0) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:5, 1 + shift : 3 + shift] = 1  # 2 * 3 * 2 = 12 voxels
    return label


def _dataset(root: Path, *, ids: tuple[str, ...] = ("a", "b", "c"), channels: int = 1) -> Dataset:
    rng = np.random.default_rng(0)
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    for name in ids:
        _save(root / "imagesTr" / f"{name}.nii.gz", rng.normal(size=shape).astype(np.float32))
        _save(root / "labelsTr" / f"{name}.nii.gz", _label())
    description = {
        "name": "Tiny",
        "modality": {str(index): f"MRI{index}" for index in range(channels)},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in ids],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return read_dataset(root)


def _benchmark(tmp_path: Path, **changes: object) -> "against_nnunet.Benchmark":
    dataset = _dataset(tmp_path / "data")
    options = against_nnunet.parse([str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--threads", "1"])
    for name, value in changes.items():
        setattr(options, name, value)
    return against_nnunet.Benchmark(dataset=dataset, splits=[Split(("c",), ("a", "b"))], options=options)


def test_saved_label_maps_of_the_held_out_cases_are_scored(tmp_path):
    benchmark = _benchmark(tmp_path)
    predictions = benchmark.folder("nnunet") / "validation"
    _save(predictions / "a.nii.gz", _label())
    _save(predictions / "b.nii.gz", _label(shift=1))  # half of the 12 voxels are common: 2 * 6 / 24
    scores = benchmark.score("nnunet", "validation")
    assert scores.case_means("dice") == {"a": 1.0, "b": 0.5}
    (predictions / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b\.nii\.gz"):
        benchmark.score("nnunet", "validation")


def test_finished_contestant_is_kept_only_under_the_same_settings(tmp_path, monkeypatch):
    benchmark = _benchmark(tmp_path)
    ran = []
    monkeypatch.setattr(
        against_nnunet.Benchmark, "run_nnunet", lambda *_: ran.append("nnunet") or {"predictions": "validation"}
    )
    first = benchmark.finish("nnunet")
    assert benchmark.finish("nnunet") == first
    assert ran == ["nnunet"]
    benchmark.options.minutes = 7.0
    with pytest.raises(ConfigError, match=r"other settings \(minutes\)"):
        benchmark.finish("nnunet")


def test_a_comparison_says_which_contestants_ran_at_another_commit(tmp_path, monkeypatch, capsys):
    benchmark = _benchmark(tmp_path)
    figures = {"steps": 9, "seconds_per_step": 1.5, "training_seconds": 13.5, "wall_seconds": 20.0}
    for name in ("voxelseg", "nnunet"):
        monkeypatch.setattr(  # the trainings take the minutes
            against_nnunet.Benchmark, f"run_{name}", lambda *_: {**figures, "predictions": "validation"}
        )
        for case in ("a", "b"):
            _save(benchmark.folder(name) / "validation" / f"{case}.nii.gz", _label())
    against_nnunet.compare(benchmark, ["voxelseg", "nnunet"])
    same = capsys.readouterr().out
    assert f"\ncommit: {against_nnunet.machine()['commit'] or 'unknown'}\n" in same
    assert "not the same" not in same
    finished = benchmark.folder("nnunet") / "finished.json"
    record = json.loads(finished.read_text())
    record["machine"]["commit"] = "0123abc"
    finished.write_text(json.dumps(record))
    against_nnunet.compare(benchmark, ["voxelseg", "nnunet"])
    assert re.search(r"\ncommit: not the same: mednext_s \w+(-dirty)?, nnunet 0123abc\n", capsys.readouterr().out)
    compared = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert compared["contestants"]["nnunet"]["machine"]["commit"] == "0123abc"


def test_records_without_a_commit_are_called_unknown():
    assert against_nnunet.one_or_each({"ours": None, "theirs": None}) == "unknown"
    assert against_nnunet.one_or_each({"ours": "abc", "theirs": None}) == "not the same: ours abc, theirs unknown"


def test_label_keeps_voxelseg_runs_apart(tmp_path):
    benchmark = _benchmark(tmp_path, label="wide")
    assert benchmark.folder("voxelseg").name == "wide"
    assert benchmark.folder("nnunet").name == "nnunet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contestants", "voxelseg,monai"], r"unknown contestants \['monai'\]"),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--threads", "100000"], "--threads must be from 1 to"),
        (["--label", "nnunet"], "Choose another --label"),
        (["--fold", "9"], "--fold must be from 0 to 2"),
    ],
)
def test_impossible_options_end_with_one_message_and_code_2(tmp_path, capsys, arguments, message):
    _dataset(tmp_path / "data")
    command = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--threads", "1", *arguments]
    assert against_nnunet.main(command) == 2
    assert re.search(message, capsys.readouterr().err)
