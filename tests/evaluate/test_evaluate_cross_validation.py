import json
import math
from dataclasses import replace

import pytest

from voxelseg import files
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.evaluate import ClassScore, Evaluation, read_evaluation
from voxelseg.evaluate.components import Candidate
from voxelseg.evaluate.cross_validation import CrossValidation, FoldScores, read_cross_validation, scores_state
from voxelseg.evaluate.intervals import bootstrap_intervals
from voxelseg.metrics import METRICS
from voxelseg.predict.postprocess import Postprocessing

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
NAN = math.nan


def evaluation(liver, spleen):
    values = {"liver": liver, "spleen": spleen}
    scores = (
        ClassScore(f"c{number}", name, dict.fromkeys(METRICS, dice), 1.0, 1.0)
        for name, of_class in values.items()
        for number, dice in enumerate(of_class)
    )
    return Evaluation(tuple(scores), 1.0, ("a note",))


def found(**changes):
    pooled, after = evaluation([0.5, 0.7, 0.9], [NAN, NAN, NAN]), evaluation([0.6, 0.7, 0.9], [NAN, NAN, NAN])
    patients = {case: case for case in pooled.cases}
    made = CrossValidation(
        inputs={"0": "abc", "1": "def"},
        folds={"0": FoldScores(2, dict.fromkeys(METRICS, 0.6)), "1": FoldScores(1, dict.fromkeys(METRICS, 0.9))},
        patients=3,
        pooled=pooled,
        intervals=bootstrap_intervals(pooled, patients),
        postprocessing=Postprocessing(classes=("liver",)),
        candidates=(Candidate("liver", True, 0.7, 11 / 15, 1, 0), Candidate("spleen", False, NAN, NAN, 0, 0)),
        postprocessed=after,
        postprocessed_intervals=bootstrap_intervals(after, patients),
    )
    return replace(made, **changes)


def same(one, other):
    """NaN equals NaN."""
    return repr(one) == repr(other)


def test_all_that_is_written_comes_back(tmp_path):
    found().write(tmp_path)
    assert same(read_cross_validation(tmp_path, LABELS), found())


def test_its_scores_are_evaluation_files(tmp_path):
    found().write(tmp_path)
    assert read_evaluation(tmp_path).mean("dice") == pytest.approx(0.7)
    assert read_evaluation(tmp_path / "postprocessed").mean("dice") == pytest.approx(2.2 / 3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["fold_std"]["dice"] == pytest.approx(0.15 * math.sqrt(2))  # of 0.6 and 0.9
    assert summary["intervals"]["classes"]["spleen"]["dice"] == [None, None]


def test_a_postprocessing_that_removes_nothing_leaves_no_scores_of_it(tmp_path):
    found().write(tmp_path)
    none = found(postprocessing=Postprocessing(), postprocessed=None, postprocessed_intervals={})
    none.write(tmp_path)
    assert not (tmp_path / "postprocessed").exists()
    assert same(read_cross_validation(tmp_path, LABELS), none)


def test_nothing_is_read_where_nothing_was_written(tmp_path):
    assert read_cross_validation(tmp_path, LABELS) is None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("postprocessing.json", {"inputs": {"0": "xyz", "1": "def"}}),
        ("postprocessing.json", {"chosen": {"foreground": True, "classes": ["lung"], "neighbours": 26}}),
        ("postprocessing.json", {"candidates": [{"name": "liver"}]}),
        ("summary.json", {"intervals": {}}),
        ("summary.json", {"folds": 3}),
    ],
    ids=["other scores", "unknown class", "candidates", "intervals", "folds"],
)
def test_damaged_files_are_refused_with_what_makes_them_again(tmp_path, file, change):
    found().write(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(DataError, match=r"damaged.*Run the same `voxelseg train` command again"):
        read_cross_validation(tmp_path, LABELS)


def test_the_state_of_scores_changes_with_them(tmp_path):
    evaluation([0.5], [0.6]).write(tmp_path)
    before = scores_state(tmp_path)
    evaluation([0.5], [0.6]).write(tmp_path)
    assert scores_state(tmp_path) == before
    evaluation([0.5], [0.7]).write(tmp_path)
    assert scores_state(tmp_path) != before


def test_another_tolerance_changes_the_state_of_scores_that_it_leaves_as_they_are(tmp_path):
    evaluation([0.5], [0.6]).write(tmp_path)
    before = scores_state(tmp_path)
    replace(evaluation([0.5], [0.6]), tolerance_mm=1.2).write(tmp_path)
    assert scores_state(tmp_path) != before


@pytest.mark.parametrize("lost", ["cases.csv", "summary.json", "postprocessing.json"])
def test_nothing_is_read_of_what_was_not_written_to_its_end(tmp_path, monkeypatch, lost):
    """As a report may find it that is written while, or after the process was killed."""
    found().write(tmp_path)
    write = files.atomic_path

    def full_disk(path):
        if path.name == lost:
            raise VoxelsegError("full disk")
        return write(path)

    monkeypatch.setattr(files, "atomic_path", full_disk)
    with pytest.raises(VoxelsegError, match="full disk"):
        found(postprocessing=None, candidates=(), postprocessed=None).write(tmp_path)
    assert read_cross_validation(tmp_path, LABELS) is None


def test_the_spread_of_a_single_fold_is_undefined():
    assert math.isnan(found(folds={"0": FoldScores(3, dict.fromkeys(METRICS, 0.7))}).fold_std("dice"))
