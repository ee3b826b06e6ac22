import json

import pytest

from voxelseg.evaluate import ClassScore, Evaluation
from voxelseg.metrics import METRICS
from voxelseg.train.finished import read_finished_fold


@pytest.fixture
def fold(tmp_path):
    """Folder of a fold that held out the cases a and b."""
    scores = [ClassScore(case, "liver", dict.fromkeys(METRICS, 0.5), 1.0, 1.0) for case in "ab"]
    Evaluation(tuple(scores), 1.0).write(tmp_path / "validation")
    epochs = [{"event": "epoch", "epoch": number, "step": 3 * number, "elapsed_s": 2.0 * number} for number in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ({"event": "start"}, *epochs)))
    (tmp_path / "validation" / "prediction.json").write_text(json.dumps({"seconds": {"a": 2.0, "b": 3.0}}))
    return tmp_path


def test_a_finished_fold_has_its_scores_its_last_step_and_the_time_of_a_prediction(fold):
    found = read_finished_fold(fold, ["b", "a"])
    assert found.scores.case_means("dice") == {"a": 0.5, "b": 0.5}
    assert (found.steps, found.training_s, found.seconds_per_case) == (6, 4.0, 2.5)
    assert [event["event"] for event in found.log] == ["start", "epoch", "epoch"]


def test_what_was_not_noted_is_none(fold):
    (fold / "validation" / "prediction.json").write_text("damaged")
    assert read_finished_fold(fold, ["a", "b"]).seconds_per_case is None


@pytest.mark.parametrize("file", ["validation/summary.json", "validation/cases.csv", "log.jsonl"])
def test_a_fold_that_lacks_a_file_is_not_finished(fold, file):
    (fold / file).unlink()
    assert read_finished_fold(fold, ["a", "b"]) is None


def test_a_fold_that_scored_other_cases_is_not_finished(fold):
    assert read_finished_fold(fold, ["a", "c"]) is None
