import json
import math

import pytest

from voxelseg.errors import DataError
from voxelseg.report.run import read_run


def test_folds_are_read_in_the_order_of_their_numbers(two_fold_run):
    assert [fold.name for fold in read_run(two_fold_run).folds] == ["0", "1", "10"]


def test_scores_of_all_folds_are_pooled(two_fold_run):
    run = read_run(two_fold_run)
    assert run.evaluation is not None
    assert run.evaluation.cases == ("case_00", "case_01", "case_10", "case_11")
    assert run.held_out["case_11"].fold.name == "1"
    assert run.folds[2].evaluation is None


def test_a_case_held_out_in_two_folds_keeps_both_scores(overlapping_run):
    run = read_run(overlapping_run)
    evaluation = run.evaluation
    assert evaluation is not None
    assert evaluation.cases == ("case_00 (fold 0)", "case_01", "case_00 (fold 1)", "case_11")
    dice = evaluation.values("dice", "liver")
    assert dice["case_00 (fold 0)"] == 1.0
    assert dice["case_00 (fold 1)"] == pytest.approx(5 / 8)  # boxes of 8 columns, 3 apart
    assert evaluation.spread("dice", "liver").n == 4
    assert (run.held_out["case_00 (fold 1)"].case, run.held_out["case_00 (fold 1)"].fold.name) == ("case_00", "1")


def test_damaged_scores_of_a_fold_are_made_again_by_training(run_folder):
    (run_folder / "fold_0" / "validation" / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"summary\.json: not valid JSON.*`voxelseg train` command again"):
        read_run(run_folder)


def test_curves_leave_out_epochs_without_a_value(run_folder):
    fold = read_run(run_folder).folds[0]
    assert fold.curve("loss") == ([0, 1, 2, 3], [1.0, 0.5, pytest.approx(1 / 3), 0.25])
    assert fold.curve("mean_dice") == ([1, 3], pytest.approx([0.5, 0.7]))
    assert fold.class_curve("spleen") == ([1, 3], pytest.approx([0.4, 0.6]))
    assert fold.class_curve("pancreas") == ([], [])
    assert (fold.steps, fold.elapsed_s) == (40, 120.0)


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_repeated_epoch_counts_once(run_folder):
    log = run_folder / "fold_0" / "log.jsonl"
    again = {"event": "epoch", "epoch": 3, "step": 40, "elapsed_s": 150.0, "loss": 9.0}
    log.write_text(log.read_text() + json.dumps(again) + '\n{"event": "epoch", "epo')
    fold = read_run(run_folder).folds[0]
    assert fold.curve("loss")[1][-1] == 9.0
    assert len(fold.epochs) == 4
    assert fold.elapsed_s == 150.0


def test_lines_that_are_no_epochs_are_left_out(run_folder):
    log = run_folder / "fold_0" / "log.jsonl"
    log.write_text('3\n{"event": "epoch", "epoch": "x"}\n{"event": "epoch", "epoch": 0, "validation_dice": 3}\n')
    fold = read_run(run_folder).folds[0]
    assert len(fold.epochs) == 1
    assert fold.class_curve("liver") == ([], [])


def test_an_unfinished_run_has_curves_and_no_scores(unfinished_run):
    run = read_run(unfinished_run)
    assert run.evaluation is None
    assert len(run.folds[0].epochs) == 2


def test_a_fold_that_has_only_begun_is_empty(run_folder):
    (run_folder / "fold_1").mkdir()
    fold = read_run(run_folder).folds[1]
    assert (fold.epochs, fold.evaluation, fold.steps) == ((), None, 0)
    assert math.isnan(fold.elapsed_s)


def test_predictions_are_found_after_the_run_was_moved(run_folder, tmp_path):
    pairs_file = run_folder / "fold_0" / "validation" / "pairs.json"
    pairs = json.loads(pairs_file.read_text())
    pairs[0]["prediction"] = str(run_folder / "fold_0" / "validation" / pairs[0]["prediction"])
    pairs_file.write_text(json.dumps(pairs))
    moved = run_folder.rename(tmp_path / "moved")
    files = read_run(moved).folds[0].files
    assert all(one.prediction.is_file() for one in files.values())


def test_folders_that_are_no_runs_are_refused(tmp_path, run_folder):
    with pytest.raises(DataError, match=r"run\.json: file not found.*voxelseg train"):
        read_run(tmp_path)
    (run_folder / "run.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object, found list"):
        read_run(run_folder)
    (run_folder / "run.json").write_text('{"dataset": "here", "plan": null, "config": {}}')
    with pytest.raises(DataError, match="expected an object under dataset"):
        read_run(run_folder)


@pytest.mark.parametrize("content", ['[{"case": "a"}]', "3", '["a"]', '[{"case": "a", "images": 1, "label": "l"}]'])
def test_a_damaged_list_of_files_is_a_data_error(run_folder, content):
    (run_folder / "fold_0" / "validation" / "pairs.json").write_text(content)
    with pytest.raises(DataError, match=r"pairs\.json: expected a list of objects"):
        read_run(run_folder)


def test_the_best_epoch_is_the_last_that_was_the_best_so_far(run_folder):
    assert read_run(run_folder).folds[0].best_epoch is None
    log = run_folder / "fold_0" / "log.jsonl"
    lines = [{"event": "epoch", "epoch": epoch, "best": epoch in (0, 2)} for epoch in range(4)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(run_folder).folds[0].best_epoch == 2


def test_a_cross_validation_counts_only_for_the_scores_that_it_is_of(cross_validated_run):
    run = read_run(cross_validated_run)
    assert run.cross_validation is not None
    assert run.cross_validation.pooled.cases == run.evaluation.cases
    assert run.num_folds == 2
    (cross_validated_run / "fold_1" / "validation" / "summary.json").unlink()
    assert read_run(cross_validated_run).cross_validation is None


def test_notes_of_the_cross_validation_are_those_of_the_scores(cross_validated_run):
    summary = cross_validated_run / "cross_validation" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "notes": ["3 cases are held out in no fold."]}))
    assert read_run(cross_validated_run).evaluation.notes == ("3 cases are held out in no fold.",)


def test_a_record_without_labels_costs_only_the_cross_validation(cross_validated_run):
    record = cross_validated_run / "run.json"
    info = json.loads(record.read_text())
    del info["dataset"]["labels"]["ignore"]
    record.write_text(json.dumps(info))
    assert read_run(cross_validated_run).cross_validation is None


def test_later_stages_begin_at_the_first_epoch_with_another_name(run_folder):
    assert read_run(run_folder).folds[0].later_stages == {}
    log = run_folder / "fold_0" / "log.jsonl"
    stages = ["kernel 3", "kernel 3", "kernel 5", "kernel 5"]
    lines = [{"event": "epoch", "epoch": 2 * epoch, "stage": name} for epoch, name in enumerate(stages)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(run_folder).folds[0].later_stages == {4: "kernel 5"}
