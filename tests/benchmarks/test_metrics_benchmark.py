import json

import metrics
import numpy as np
import pytest


def test_all_organs_are_there_and_predicted_nearly_right():
    reference, prediction = metrics.make_scan((48, 80, 72), seed=0)
    assert np.unique(reference).tolist() == list(range(len(metrics.ORGANS) + 1))
    assert 0.5 < (reference == prediction)[reference > 0].mean() < 1.0


def test_a_mask_that_reaches_beyond_the_image_is_cut_off():
    label_map = np.zeros((4, 5, 6), np.uint8)
    metrics.put(label_map, np.ones((3, 3, 3), bool), 2, (0, 2, 5))  # from -1, 1, 4
    assert np.argwhere(label_map == 2).min(axis=0).tolist() == [0, 1, 4]
    assert np.argwhere(label_map == 2).max(axis=0).tolist() == [1, 3, 5]


def test_both_sides_are_timed_on_the_same_scores(tmp_path, capsys):
    found = metrics.main(["--shape", "32,64,48", "--repeats", "1", "--out", str(tmp_path / "metrics.json")])
    assert found.dice_apart < 1e-6
    assert found.mm_apart < 1e-4
    assert found.ratio == pytest.approx(found.monai_s / found.ours_s)
    assert "times" in capsys.readouterr().out
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert (written["shape"], set(written["scores"])) == ([32, 64, 48], set(metrics.ORGANS))


@pytest.mark.parametrize("arguments", [["--shape", "200,512"], ["--shape", "a,b,c"], ["--repeats", "0"]])
def test_impossible_options_are_refused(arguments):
    with pytest.raises(SystemExit):
        metrics.parse(arguments)
