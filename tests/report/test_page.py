import json
import re

import pytest
from checked_page import Checked

from voxelseg.errors import DataError, VoxelsegError
from voxelseg.report import write_report


def report(run, tmp_path):
    page = Checked()
    page.feed(write_report(run, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    page.words = re.sub(r"\s+", " ", " ".join(page.text))
    return page


def test_report_shows_scores_pictures_curves_and_provenance(run_folder, tmp_path):
    page = report(run_folder, tmp_path)
    for words in (
        "Two <boxes>",
        "Segmentation with mednext_s, fold 0",
        "2 classes, 3 held-out cases",
        "2 min",
        "40 steps",
        "Worst: case_02",
        "Median: case_01",
        "Best: case_00",
        "Learning rate",
        "voxelseg train DATA --out RUN --model mednext_s",
        "train.optimizer",
        "D is coarse.",
    ):
        assert words in page.words
    assert sum(attributes.get("class") == "picture" for _, attributes in page.seen) == 18
    assert "Folds" not in page.words


def test_report_asks_for_nothing_outside_itself(run_folder, tmp_path):
    page = report(run_folder, tmp_path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.seen}
    for _, attributes in page.seen:
        for key, value in attributes.items():
            if key in ("src", "href", "xlink:href"):
                assert value.startswith(("data:", "#"))
    style = (tmp_path / "report.html").read_text().partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_two_cases_are_the_worst_and_the_best(make_run, tmp_path):
    page = report(make_run([0, 2]), tmp_path)
    assert "Worst and best case" in page.words
    assert "Worst: case_01" in page.words
    assert "Best: case_00" in page.words
    assert "Median:" not in page.words


def test_a_single_case_is_called_so(make_run, tmp_path):
    page = report(make_run([1]), tmp_path)
    assert "Only case: case_00" in page.words
    assert "Ranked" not in page.words
    assert not re.search("Best:|Worst:|Worst, median and best", page.words)


def test_cases_without_a_class_are_counted(run_folder, tmp_path):
    page = report(run_folder, tmp_path)
    assert "Absent in both" in page.words
    assert re.search(r"Best: case_00 mean Dice 1\.000", page.words)


def test_folds_are_pooled_and_listed(two_fold_run, tmp_path):
    page = report(two_fold_run, tmp_path)
    assert "4 held-out cases" in page.words
    assert "Not validated yet and left out of the scores: fold 10." in page.words
    assert "Folds" in page.words
    assert "fold 1" in page.words


def test_a_cross_validation_is_on_the_first_screen_with_its_interval(cross_validated_run, tmp_path):
    page = report(cross_validated_run, tmp_path)
    first_screen = page.words.partition("Scores by class")[0]
    for words in (
        "95 % interval 0.",  # beside the mean Dice
        "2 classes, 4 held-out cases",
        "Postprocessed Dice",
        "on the cases that the postprocessing was chosen on",
        "4 held-out cases of 4 patients, each predicted by the network of the fold that held its patient out",
        "Means of the 2 folds: Dice 0.",
        "only the largest component of each of these is kept: spleen",
        "Predictions as they are",
        "After the postprocessing",
        "all classes no 0.800 0.700 0 4 spleen yes 0.600 0.650 2 1",
    ):
        assert words in first_screen, words
    assert "not pooled" not in page.words


def test_scores_that_are_newer_than_the_cross_validation_are_said_to_be_so(cross_validated_run, tmp_path):
    scores = cross_validated_run / "fold_1" / "validation" / "cases.csv"
    heading, first, *rest = scores.read_text().splitlines(keepends=True)
    case, name, _, *others = first.split(",")
    scores.write_text("".join([heading, ",".join([case, name, "0.123", *others]), *rest]))
    page = report(cross_validated_run, tmp_path)
    assert "The folds were not pooled since they were scored" in page.words
    assert "95 % interval" not in page.words


def test_folds_that_were_not_begun_are_named_once_several_are(two_fold_run, tmp_path):
    splits = [{"train": ["a"], "val": ["b"]}] * 12
    (two_fold_run / "splits.json").write_text(json.dumps(splits))
    assert "Not trained yet: fold 2, 3, 4, 5, 6, 7, 8, 9, 11 of 12." in report(two_fold_run, tmp_path).words


def test_the_weights_that_predict_are_named(run_folder, tmp_path):
    assert "with the weights of the last epoch" in report(run_folder, tmp_path).words
    record = json.loads((run_folder / "run.json").read_text())
    record["config"]["predict"] = {"checkpoint": "best"}
    (run_folder / "run.json").write_text(json.dumps(record))
    assert "with the weights of the best running validation" in report(run_folder, tmp_path).words


def test_an_unfinished_run_is_reported_with_its_curves(unfinished_run, tmp_path):
    page = report(unfinished_run, tmp_path)
    assert "No fold has been validated yet" in page.words
    assert "Learning curves" in page.words
    assert "Scores by class" not in page.words


def test_a_run_without_any_epoch_is_reported(unfinished_run, tmp_path):
    (unfinished_run / "fold_0" / "log.jsonl").unlink()
    page = report(unfinished_run, tmp_path)
    assert "Training has not finished its first epoch" in page.words
    assert "Learning curves" not in page.words


def test_scores_without_a_log_are_reported_without_curves(run_folder, tmp_path):
    (run_folder / "fold_0" / "log.jsonl").unlink()
    page = report(run_folder, tmp_path)
    assert "Without learning curves, since log.jsonl is gone: fold 0." in page.words
    assert "no scores yet" not in page.words
    assert "Scores by class" in page.words


def test_a_case_that_two_folds_held_out_counts_for_each(overlapping_run, tmp_path):
    page = report(overlapping_run, tmp_path)
    assert "4 held-out cases" in page.words
    assert "1 case was held out in several folds" in page.words
    rows = re.findall(r"(case_\w+) (\d) (0\.\d+|1\.000) ", page.words.partition("Dice of all cases, worst first")[2])
    assert sorted((case, fold) for case, fold, _ in rows) == [
        ("case_00", "0"),
        ("case_00", "1"),
        ("case_01", "0"),
        ("case_11", "1"),
    ]
    assert len({mean for case, _, mean in rows if case == "case_00"}) == 2  # shifts of 0 and 3 voxels


def test_scans_that_are_gone_are_named_in_place_of_pictures(run_folder, tmp_path):
    (tmp_path / "data" / "images" / "case_02.nii.gz").unlink()
    page = report(run_folder, tmp_path)
    assert re.search(r"No pictures: \S*case_02\.nii\.gz: file not found", page.words)
    assert sum(attributes.get("class") == "picture" for _, attributes in page.seen) == 12


@pytest.mark.parametrize("damage", ["no pairs", "no labels"])
def test_missing_records_only_cost_the_pictures(run_folder, tmp_path, damage):
    if damage == "no pairs":
        (run_folder / "fold_0" / "validation" / "pairs.json").unlink()
    else:
        content = json.loads((run_folder / "run.json").read_text())
        del content["dataset"]["labels"]
        (run_folder / "run.json").write_text(json.dumps(content))
    page = report(run_folder, tmp_path)
    assert page.words.count("No pictures:") == 3
    assert "Scores by class" in page.words


def test_a_bare_record_is_enough(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "an unnamed model" in report(tmp_path / "run", tmp_path).words


def test_a_folder_gets_report_html(run_folder, tmp_path):
    assert write_report(run_folder, tmp_path) == tmp_path / "report.html"


def test_a_folder_that_is_no_run_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(DataError, match=r"run\.json"):
        write_report(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(run_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxelsegError, match="cannot be written"):
        write_report(run_folder, tmp_path / "file" / "report.html")
