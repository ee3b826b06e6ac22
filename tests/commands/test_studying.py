import json
import shutil

import pytest

from voxelseg import commands
from voxelseg.errors import CheckpointError, ConfigError

SETTINGS = ("train.workers=0", "train.steps_per_epoch=1", "train.validation_patches=1", "plan.patch_size=[16,24,16]")


def study(data, out, start, **changes):
    arguments = {
        "start": start,
        "shares": "50,100",
        "seeds": "0",
        "model": "unet_s",
        "epochs": 1,
        "device": "cpu",
        "settings": [*SETTINGS, "model.width=4", "plan.batch_size=2"],
        "workers": 1,
        "threads": 1,
    }
    return commands.label_study(data, out, **(arguments | changes))


@pytest.fixture
def two_held_out(tmp_path):
    """Folds of the tiny data set of which the first holds two cases out."""
    path = tmp_path / "folds.json"
    ids = [f"tiny_{number}" for number in range(4)]
    path.write_text(json.dumps([{"train": ids[:2], "val": ids[2:]}, {"train": ids[1:], "val": ids[:1]}]))
    return path


@pytest.mark.slow
def test_starts_are_compared_and_what_is_finished_is_kept(tiny_msd, tiny_run, two_held_out, tmp_path):
    out = tmp_path / "study"
    start = ["scratch", f"run={tiny_run.folder}", f"twin={tiny_run.folder}"]
    found = study(tiny_msd, out, start, splits=two_held_out)
    assert not found.faults
    assert len(found.outcomes) == 6
    assert {path.name for path in out.iterdir()} >= {"study.json", "table.csv", "cases.csv", "study.md", "figure.png"}
    small = json.loads((out / "subsets" / "50_seed_0.json").read_text())
    assert small[0]["val"] == ["tiny_2", "tiny_3"]
    assert len(small[0]["train"]) == 1
    splits = {(out / "runs" / name / "50_seed_0" / "splits.json").read_text() for name in ("scratch", "run")}
    assert len(splits) == 1  # the same cases for both starts
    assert any("run was trained with the labels of" in note for note in found.notes)
    assert sum("held-out cases were among those that the weights were trained on" in note for note in found.notes) == 1
    assert any(note.startswith("run, twin: ") for note in found.notes)  # said once of both
    written = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("model.safetensors")}
    assert len(written) == 6
    again = study(tiny_msd, out, start, splits=two_held_out)
    assert again.points == found.points
    assert {path: path.stat().st_mtime_ns for path in written} == written
    with pytest.raises(ConfigError, match="holds trainings with other settings"):
        study(tiny_msd, out, start, splits=two_held_out, epochs=2)
    (out / "runs" / "run" / "50_seed_0" / "fold_0" / "log.jsonl").unlink()
    lost = study(tiny_msd, out, start, splits=two_held_out).faults
    assert "Delete that folder to train it again" in lost["run, 50 %, seed 0"]


@pytest.mark.slow
def test_a_training_that_fails_is_named_and_tried_again(tiny_msd, tiny_run, two_held_out, tmp_path):
    out = tmp_path / "study"
    broken = out / "runs" / "scratch" / "100_seed_0" / "fold_0"
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"damaged")
    start = ["scratch", f"run={tiny_run.folder}"]
    found = study(tiny_msd, out, start, splits=two_held_out, shares="100")
    assert list(found.faults) == ["scratch, 100 %, seed 0"]
    assert "model.safetensors" in found.faults["scratch, 100 %, seed 0"]
    assert len(found.outcomes) == 1
    assert "no finished training" in found.conclusions[0]
    shutil.rmtree(broken)
    assert not study(tiny_msd, out, start, splits=two_held_out, shares="100").faults


def test_what_cannot_be_studied_is_refused_before_anything_is_trained(tiny_msd, tiny_run, two_held_out, tmp_path):
    out, start = tmp_path / "study", ["scratch", str(tiny_run.folder)]
    for message, changes in {
        r"fold 1 holds out one patient only": {"splits": two_held_out, "fold": 1},
        r"fold 7: the data set has folds 0 to 1": {"splits": two_held_out, "fold": 7},
        r"5 % of 2 training patients is less than half a patient": {"splits": two_held_out, "shares": "5"},
        r"--shares '5,x'": {"shares": "5,x"},
        r"--shares 5,5: names a share twice": {"shares": "5,5"},
        r"--seeds '0,a'": {"seeds": "0,a"},
        r"--seeds 0,0: names a seed twice": {"seeds": "0,0"},
        r"--jobs 0": {"jobs": 0},
        r"--threads 0": {"threads": 0},
        r"there is no nowhere": {"start": ["scratch", "nowhere"]},
        r"--set transfer.init: --start says": {"settings": ["transfer.init=x"]},
        r"train has no 'speed'": {"settings": ["train.speed=3"]},
    }.items():
        with pytest.raises(ConfigError, match=message):
            study(tiny_msd, out, **({"start": start} | changes))
    assert not (out / "runs").exists()


def test_weights_of_another_network_are_refused_before_anything_is_trained(tiny_msd, tiny_run, two_held_out, tmp_path):
    with pytest.raises(CheckpointError, match="of the weights of this"):
        study(tiny_msd, tmp_path / "out", ["scratch", str(tiny_run.folder)], splits=two_held_out, model="mednext_xs")
    assert not (tmp_path / "out" / "runs").exists()
