import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_page import Checked

from voxelseg.errors import DataError
from voxelseg.files import append_json_line, sha256_of_file, write_json
from voxelseg.report import write_report

SCORES = {
    "score": 0.4,
    "accuracy": 0.4,
    "accuracy of the nearest visible slice": 0.3,
    "accuracy of the class prior": 0.1,
}
RECORD = {
    "method": "masked-clusters",
    "trained": "all",
    "num_classes": 14,
    "slice_axis": 0,
    "clusters": [80, 120],
    "label_entropy": [0.9, 0.7],
    "largest_cluster": [0.05, 0.15],
}


@pytest.fixture
def pre(tmp_path):
    """A finished pre-training with pictures and a probe."""
    folder = tmp_path / "pre"
    folder.mkdir()
    write_json(
        folder / "pretraining.json",
        {
            "command": "voxelseg pretrain SCANS --out PRE",
            "voxelseg": "0.1.0",
            "method": "masked-clusters",
            "model": "mednext_s",
            "seed": 3,
            "config": {
                "model": {"width": 8, "checkpointing": True},
                "masked_clusters": {"num_clusterers": 2, "temperature": 0.1},
                "pretrain": {"slice_axis": 0},
            },
            "plan": {"axes": [0, 1, 2], "spacing_mm": [3.0, 1.0, 1.0], "patch_size": [8, 16, 24], "notes": ["Coarse."]},
            "scans": {
                "name": "Many <scans>",
                "layout": "folder",
                "root": "SCANS",
                "num_scans": 10,
                "channels": ["CT"],
                "held_out": ["a", "b"],
            },
            "fingerprint": {"cases": {}},
        },
    )
    for epoch in range(3):
        scores = {**SCORES, "accuracy": 0.2 + 0.1 * epoch, "score": 0.2 + 0.1 * epoch}
        event = {"event": "epoch", "epoch": epoch, "step": 5 * (epoch + 1), "elapsed_s": 60.0 * (epoch + 1)}
        values = {"loss": 2.0 - epoch / 2, "lr": 1e-4, "validation_loss": 2.1 - epoch / 2, "validation_scores": scores}
        append_json_line(folder / "log.jsonl", {**event, **values})
    header = {"voxelseg": json.dumps({"pretraining": RECORD})}
    save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors", metadata=header)
    scan = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float16)
    np.savez_compressed(folder / "pictures.npz", Scan=scan, Masked=scan * 0, Labels=np.eye(4))
    difference = {"mean": 0.2, "low": 0.1, "high": 0.3}
    recall = {"background": 0.9, "liver": None}
    accuracy = {"pre-trained": 0.8, "fresh": 0.6}
    probe = {"accuracy": accuracy, "recall": {"pre-trained": recall, "fresh": recall}, "difference": difference}
    counts = {"cases_fitted": 4, "cases_scored": 3, "voxels_fitted": 400, "voxels_scored": 300, "chance": 0.5}
    about = {"data": "Livers", "weights_sha256": sha256_of_file(folder / "model.safetensors"), "notes": ["Seen."]}
    write_json(folder / "probe.json", {**about, **counts, "probes": {"linear": probe}})
    return folder


def words_of(folder, tmp_path):
    page = Checked()
    page.feed(write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return re.sub(r"\s+", " ", " ".join(page.text))


def test_the_page_says_what_was_learnt_and_what_to_run_next(pre, tmp_path):
    words = words_of(pre, tmp_path)
    for part in (
        "Many <scans>",
        "Pre-training of mednext_s by masked-clusters",
        "Accuracy on held-out crops: 0.4, better than what is reached without learning",
        "2 clusterers with 80 to 120 clusters",
        "0.800",  # mean entropy, (0.9 + 0.7) / 2
        "Across D, slice",
        "fitted on 400 voxels of 4 cases of Livers",
        "+0.200 [+0.100, +0.300]",
        "Seen.",
        "3 min 15 steps",
        "Scans learnt from 8 2 more held out",
        "the whole network but its heads",
        f"voxelseg train DATA --out RUN --model mednext_s --init {pre} --set model.width=8",
        "--set model.checkpointing=true",
        f"voxelseg label-study DATA --out DIR --start scratch --start {pre}",
        f"voxelseg probe {pre} --data DATA",
        "masked_clusters.temperature",
        "Coarse.",
        "voxelseg pretrain SCANS --out PRE",
    ):
        assert part in words, part


def test_the_commands_to_run_next_repeat_what_was_set_of_network_plan_and_masks(pre, tmp_path):
    info = json.loads((pre / "pretraining.json").read_text())
    info["config"]["plan"] = {"spacing_mm": [3.0, 1.0, 1.0]}
    info["config"]["sparse"] = {"layers": ["decoder*"], "sparsity": 0.5, "update_every": 7}
    write_json(pre / "pretraining.json", info)
    words = words_of(pre, tmp_path)
    assert words.count("--set 'plan.spacing_mm=[3.0, 1.0, 1.0]'") == 2  # train and label-study
    assert words.count("""--set 'sparse.layers=["decoder*"]' --set sparse.sparsity=0.5""") == 2
    assert "sparse.update_every=7" not in words  # how kernels move is a matter of each training


def test_an_unfinished_pre_training_is_reported_as_far_as_it_is(pre, tmp_path):
    for name in ("model.safetensors", "pictures.npz", "probe.json"):
        (pre / name).unlink()
    words = words_of(pre, tmp_path)
    assert "Not finished: 3 epochs so far" in words
    assert "Pseudo-labels" not in words
    (pre / "log.jsonl").unlink()
    assert "has not finished its first epoch" in words_of(pre, tmp_path)


def test_a_probe_of_other_weights_is_not_shown(pre, tmp_path):
    header = {"voxelseg": json.dumps({"pretraining": RECORD})}
    save_file({"weight": np.ones(2, np.float32)}, pre / "model.safetensors", metadata=header)
    assert "fitted on" not in words_of(pre, tmp_path)


@pytest.mark.parametrize("name", ["pretraining.json", "model.safetensors", "pictures.npz", "probe.json"])
def test_damaged_files_are_named(pre, tmp_path, name):
    (pre / name).write_bytes(b"[]")
    with pytest.raises(DataError, match=name):
        write_report(pre, tmp_path / "report.html")
