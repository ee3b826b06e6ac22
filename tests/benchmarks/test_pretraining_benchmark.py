import json

import numpy as np
import pretraining as script
import pytest

TINY = [*["--threads", "1", "--repeats", "1", "--slices", "96", "--clusters", "8", "--side", "12"]]
TINY += ["--crop-slices", "10", "--clusterers", "2", "--head-crop", "8", "8", "16", "--head-clusterers", "2"]
TINY += ["--features", "3"]


def test_the_paper_s_head_costs_what_the_specification_says():
    # 6.18 TMAC, 8.53 million weights, 10.2 GiB for the backward pass
    found = script.counted_head("paper", script.PAPER_CROP, script.PAPER_CLUSTERERS, 14)
    assert found["gmacs"] == pytest.approx(6180, rel=1e-3)
    assert found["parameters_m"] == pytest.approx(8.53, rel=1e-3)
    assert found["kept_mb"] / 1024**3 * 1e6 == pytest.approx(10.2, rel=5e-3)


def test_the_slice_head_is_thousands_of_times_cheaper():
    paper, light = (script.counted_head(name, script.PAPER_CROP, 80, 14) for name in ("paper", "slice"))
    assert light["gmacs"] < paper["gmacs"] / 5000
    assert light["kept_mb"] < paper["kept_mb"] / 1000


def test_slices_are_smooth_along_a_volume_and_the_same_each_time():
    rows = script.random_slices(60, 16, seed=0)
    assert rows.shape == (60, 256)
    np.testing.assert_array_equal(rows, script.random_slices(60, 16, seed=0))
    steps = np.square(np.diff(rows, axis=0)).mean(axis=1)
    assert steps[:47].max() < steps[47] / 2  # slice 48 begins another volume


def test_as_many_slices_are_masked_as_in_the_paper():
    assert int(script.masked_slices(96).sum()) == 37


@pytest.mark.parametrize("form", ["released", "voxelseg"])
def test_fits_and_labels_are_measured(form):
    given = {"threads": 1, "device": "cpu", "slices": 96, "clusters": 8, "side": 12, "crop_slices": 10, "clusterers": 2}
    task = script.Task(part="fit", form=form, head_crop=(8, 8, 16), head_clusterers=2, features=3, **given)
    fitted, labelled = script._measured_fit(task), script._measured_labels(task)
    assert fitted["seconds"] > 0
    assert fitted["empty"] == 0
    assert labelled["seconds"] > 0
    assert labelled.get("equal", 1.0) == 1.0


@pytest.mark.slow
def test_all_parts_are_measured_in_processes_of_their_own_and_written(tmp_path, capsys):
    out = tmp_path / "pretraining.json"
    script.main([*TINY, "--out", str(out)])
    written = json.loads(out.read_text())
    assert set(written["fit"]) == set(written["labels"]) == {"released", "voxelseg"}
    assert written["labels"]["voxelseg"]["equal"] == 1
    assert [row["head"] for row in written["heads"]] == ["paper", "slice"] * 2
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in written["heads"][2:])
    assert "equal labels" in capsys.readouterr().out
