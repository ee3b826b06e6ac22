import json
import logging
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from voxelseg import commands
from voxelseg.checkpoint import load_checkpoint, store_postprocessing
from voxelseg.errors import BusyError, CheckpointError
from voxelseg.evaluate import read_evaluation
from voxelseg.evaluate.cross_validation import OPTIMISM, read_cross_validation
from voxelseg.files import locked, write_json
from voxelseg.io import read_label, write_volume
from voxelseg.predict.postprocess import outside_largest
from voxelseg.preprocess.work import WorkFolder
from voxelseg.train.cross_validation import cross_validate, scored_folds
from voxelseg.train.fold import train_fold
from voxelseg.volume import Volume

FOLDS = [
    {"train": ["tiny_0", "tiny_1"], "val": ["tiny_2", "tiny_3"]},
    {"train": ["tiny_2", "tiny_3"], "val": ["tiny_0", "tiny_1"]},
]
KEEP_ROD = {"foreground": False, "classes": ["rod"], "neighbours": 26}


@pytest.fixture(scope="module")
def train_two(tiny_msd, train_tiny, tmp_path_factory):
    """`train_tiny` on two folds."""
    splits = tmp_path_factory.mktemp("folds") / "folds.json"
    write_json(splits, FOLDS)

    def train(out, **changes):
        return train_tiny(tiny_msd, out, **{"epochs": 1, "splits": splits, **changes})

    train.splits = splits
    return train


@pytest.fixture(scope="module")
def trained(train_two, tmp_path_factory):
    """A cross-validated run; not to be changed."""
    return train_two(tmp_path_factory.mktemp("trained") / "run", fold="all")


@pytest.fixture
def run(train_two, trained, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return train_two(tmp_path / "run", fold="all")


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def predict_with_fragments(run):
    """Replace the predictions of all held-out cases by their reference with a lone voxel of the rod in a corner."""
    for fold, split in enumerate(run.splits):
        for case in split.validation:
            reference = read_label(run.dataset.root / "labelsTr" / f"{case}.nii.gz")
            label_map = reference.array.copy()
            assert label_map[0, 0, 0, 0] == 0
            label_map[0, 0, 0, 0] = 2
            path = run.fold_folder(fold) / "validation" / f"{case}.nii.gz"
            write_volume(path, Volume(label_map, reference.grid))


def stored(run):
    return [load_checkpoint(run.model_file(fold)).postprocessing for fold in range(len(run.splits))]


def test_scores_of_all_folds_are_pooled_each_case_once(trained):
    folder = trained.folder / "cross_validation"
    assert {path.name for path in folder.iterdir()} >= {"cases.csv", "summary.json", "postprocessing.json"}
    pooled = read_evaluation(folder)
    assert sorted(pooled.cases) == ["tiny_0", "tiny_1", "tiny_2", "tiny_3"]
    folds = [read_evaluation(trained.fold_folder(fold) / "validation") for fold in (0, 1)]
    for name in ("ball", "rod"):
        assert pooled.values("dice", name) == {**folds[0].values("dice", name), **folds[1].values("dice", name)}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["folds"]["1"] == {"cases": 2, "mean": {m: pytest.approx(folds[1].mean(m)) for m in summary["mean"]}}
    low, high = summary["intervals"]["mean"]["dice"]
    assert low <= pooled.mean("dice") <= high
    assert summary["patients"] == 4


def test_the_same_command_again_changes_nothing(run, train_two):
    before = times(run.folder)
    train_two(run.folder, fold="all")
    assert times(run.folder) == before


def test_what_is_found_is_read_back(trained):
    found = cross_validate(trained, scored_folds(trained))
    assert found == read_cross_validation(trained.folder / "cross_validation", trained.dataset.labels)
    assert found.fold_std("dice") == pytest.approx(
        np.std([scores.mean("dice") for scores in scored_folds(trained).values()], ddof=1)
    )


def test_folds_trained_one_by_one_in_any_order_are_pooled_by_the_last(trained, train_two, tmp_path, capsys):
    train_two(tmp_path / "run", fold="1", console=Console())
    assert not (tmp_path / "run" / "cross_validation").exists()
    assert "Not finished" not in capsys.readouterr().out  # one fold is all that was asked for
    train_two(tmp_path / "run", fold="0")
    for name in ("cases.csv", "postprocessing.json", "summary.json"):
        files = [folder / "cross_validation" / name for folder in (trained.folder, tmp_path / "run")]
        assert files[0].read_text() == files[1].read_text()
    weights = [
        load_checkpoint(folder / "fold_1" / "model.safetensors") for folder in (trained.folder, tmp_path / "run")
    ]
    assert weights[0].fingerprint() == weights[1].fingerprint()


def test_a_restart_keeps_the_folds_that_are_done(run, train_two):
    for path in [run.fold_folder(1), run.folder / "cross_validation"]:
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    before = times(run.fold_folder(0))
    model = before.pop(run.model_file(0))
    train_two(run.folder, fold="all")
    after = times(run.fold_folder(0))
    assert after.pop(run.model_file(0)) == model  # it says already what was chosen
    assert after == before
    assert (run.folder / "cross_validation" / "summary.json").is_file()


def test_postprocessing_is_chosen_and_stored_with_the_models_and_predictions_stay(run, train_two):
    models = [load_checkpoint(run.model_file(fold)).fingerprint() for fold in (0, 1)]
    predict_with_fragments(run)
    label_maps = {path: path.read_bytes() for path in run.folder.glob("fold_*/validation/*.nii.gz")}
    train_two(run.folder, fold="all")
    assert stored(run) == [KEEP_ROD] * 2
    folder = run.folder / "cross_validation"
    before, after = read_evaluation(folder), read_evaluation(folder / "postprocessed")
    assert before.mean("dice") < after.mean("dice") == 1.0  # without the lone voxels they are the references
    assert after.mean("hd95_mm") == 0.0
    assert (OPTIMISM in after.notes, OPTIMISM in before.notes) == (True, False)
    assert after.patients == before.patients == {f"tiny_{place}": f"tiny_{place}" for place in range(4)}
    record = json.loads((folder / "postprocessing.json").read_text())
    together, ball, rod = record["candidates"]
    assert (together["chosen"], ball["chosen"], rod["chosen"]) == (False, False, True)  # ball and rod lie apart
    assert (rod["keep_largest_of"], rod["improved"], rod["worsened"]) == ("rod", 4, 0)
    assert "chosen on the cases" in record["note"]
    assert {path: path.read_bytes() for path in label_maps} == label_maps
    assert [load_checkpoint(run.model_file(fold)).fingerprint() for fold in (0, 1)] == models
    unchanged = times(run.folder)
    train_two(run.folder, fold="all")
    assert times(run.folder) == unchanged


def test_scores_of_an_earlier_version_which_say_no_patients_are_pooled_anew(run, train_two):
    cases = run.folder / "cross_validation" / "cases.csv"
    content = cases.read_text()
    cases.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in content.splitlines()))
    train_two(run.folder, fold="all")
    assert cases.read_text() == content


def test_without_a_wish_for_postprocessing_none_is_chosen_and_an_earlier_one_is_taken_back(run, train_two):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    train_two(run.folder, fold="all", settings=["predict.postprocess=false"])
    assert stored(run) == [None, None]
    assert not (run.folder / "cross_validation" / "postprocessed").exists()
    assert read_cross_validation(run.folder / "cross_validation", run.dataset.labels).candidates == ()


def test_predictions_of_new_scans_are_postprocessed_as_was_chosen_and_made_anew_for_another_choice(
    run, train_two, tiny_msd, tmp_path
):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")

    def predicted(**options):
        paths = commands.predict(run.folder, tiny_msd, tmp_path / "out", device="cpu", **options)
        record = json.loads((tmp_path / "out" / "prediction.json").read_text())["settings"]["postprocessing"]
        made = {path: path.stat().st_mtime_ns for path in paths.values()}
        return record, {case: read_label(path).array[0] for case, path in paths.items()}, made

    record, kept, first = predicted()
    assert record == KEEP_ROD
    assert predicted()[2] == first
    record, raw, _ = predicted(postprocess=False)
    assert record is None
    for case, label_map in raw.items():
        expected = np.where(outside_largest(label_map == 2), 0, label_map)
        np.testing.assert_array_equal(kept[case], expected)


def test_a_fold_trained_anew_needs_a_new_choice_before_all_predict_together(run, train_two, tiny_msd, tmp_path):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    run.model_file(1).unlink()
    train_two(run.folder, fold="0")  # does not pool: fold 1 is not finished
    stored_cases = WorkFolder(run.folder / "work").stored_cases(run.dataset, run.plan, workers=1)
    train_fold(run, 1, stored_cases)  # from its saved state, as a process does that is killed before the pooling
    with pytest.raises(CheckpointError, match=r"its postprocessing is not that of .*--no-postprocess"):
        commands.predict(run.folder, tiny_msd, tmp_path / "out", device="cpu")
    commands.predict(run.folder, tiny_msd, tmp_path / "out", device="cpu", postprocess=False)
    train_two(run.folder, fold="1")
    assert stored(run) == [KEEP_ROD] * 2


def test_scores_that_changed_are_pooled_anew(run, train_two):
    predict_with_fragments(run)
    cases = run.folder / "cross_validation" / "cases.csv"
    before = cases.read_text()
    assert scored_folds(run) == {}  # the label maps are newer than the scores
    train_two(run.folder, fold="0")
    assert cases.read_text() == before  # fold 1 is not scored yet
    train_two(run.folder, fold="1")
    assert cases.read_text() != before


def test_a_pooling_that_was_killed_is_finished_by_the_next_command(run, train_two):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    folder = run.folder / "cross_validation"
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for lost in (folder / "postprocessing.json", None):  # before the record is written; before the models are
        if lost is not None:
            lost.unlink()
        store_postprocessing(run.model_file(1), None)
        train_two(run.folder, fold="1")
        assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
        assert stored(run) == [KEEP_ROD] * 2


def test_wherever_the_pooling_is_killed_the_next_one_ends_the_same(run, train_two, monkeypatch):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    folder, replace = run.folder / "cross_validation", Path.replace
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    kills = 0
    while True:
        shutil.rmtree(folder)
        for fold in (0, 1):
            store_postprocessing(run.model_file(fold), None)
        left = kills

        def replace_or_die(path, target):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return replace(path, target)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", replace_or_die)
            cross_validate(run, scored_folds(run))
            break
        cross_validate(run, scored_folds(run))
        assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} == files
        assert stored(run) == [KEEP_ROD] * 2
        kills += 1
    assert kills == 7  # two files before, two after the postprocessing, its record, and two models


@pytest.mark.parametrize("name", ["postprocessing.json", "summary.json", "cases.csv"])
def test_damaged_files_are_made_again(run, train_two, name):
    file = run.folder / "cross_validation" / name
    content = file.read_text()
    file.write_text(content[: len(content) // 2])
    train_two(run.folder, fold="all")
    assert file.read_text() == content


def test_folds_that_another_process_works_on_are_left_to_it(train_two, tmp_path, caplog, capsys):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run" / "fold_0"), caplog.at_level(logging.WARNING):
        run = train_two(tmp_path / "run", fold="all", console=Console())
    assert "another voxelseg process works on fold 0, which is left to it" in caplog.text
    assert "Not finished: fold 0. The process that finishes the last one pools" in capsys.readouterr().out
    assert not run.model_file(0).exists()
    assert run.model_file(1).is_file()
    assert not (run.folder / "cross_validation").exists()


def test_a_single_fold_that_another_process_works_on_is_an_error(train_two, tmp_path):
    with locked(tmp_path / "run" / "fold_0"), pytest.raises(BusyError, match="another voxelseg process"):
        train_two(tmp_path / "run", fold="0")


def test_the_best_weights_may_be_the_ones_that_are_scored_and_postprocessed(run, train_two, tiny_msd, tmp_path):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    train_two(run.folder, fold="all", settings=["predict.checkpoint=best"])  # they are predicted anew
    record = json.loads((run.fold_folder(0) / "validation" / "prediction.json").read_text())
    best = load_checkpoint(run.best_file(0))
    assert record["settings"]["models"] == [best.fingerprint()]
    found = read_cross_validation(run.folder / "cross_validation", run.dataset.labels)
    assert best.postprocessing == found.postprocessing.to_dict()
    assert stored(run) == [KEEP_ROD] * 2  # that of the last weights is still the one of their predictions
    commands.predict(run.folder, tiny_msd, tmp_path, device="cpu")
    settings = json.loads((tmp_path / "prediction.json").read_text())["settings"]
    assert settings["models"][0] == best.fingerprint()


def test_a_choice_is_taken_back_from_the_weights_that_predicted_before_as_well(run, train_two):
    predict_with_fragments(run)
    train_two(run.folder, fold="all")
    assert stored(run) == [KEEP_ROD] * 2
    train_two(run.folder, fold="all", settings=["predict.checkpoint=best", "predict.postprocess=false"])
    assert stored(run) == [None, None]


def test_a_fold_that_was_scored_with_other_settings_is_told_from_one_that_is_not_finished(run, train_two, capsys):
    train_two(run.folder, fold="0", settings=["predict.tta=true"], console=Console())
    shown = capsys.readouterr().out
    assert "Not scored, or with other settings of `predict`: fold 1. The process" in shown
    assert "Not finished" not in shown


def test_another_tolerance_is_pooled_even_where_it_changes_no_score(run, train_two):
    train_two(run.folder, fold="all", settings=["predict.tolerance_mm=1.001"])
    assert read_evaluation(run.folder / "cross_validation").tolerance_mm == 1.001


def test_with_a_single_fold_nothing_is_pooled(tiny_msd, train_tiny, tmp_path):
    write_json(tmp_path / "folds.json", FOLDS[:1])
    train_tiny(tiny_msd, tmp_path / "run", epochs=1, fold="all", splits=tmp_path / "folds.json")
    assert not (tmp_path / "run" / "cross_validation").exists()


@pytest.mark.slow
@pytest.mark.parametrize("folds", [("0", "1"), ("all", "all")])
def test_processes_that_train_at_the_same_time_end_in_one_cross_validation(
    trained, train_two, tiny_msd, tiny_settings, tmp_path, folds
):
    settings = [part for setting in tiny_settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "voxelseg", "train", tiny_msd, "--out", tmp_path / "run", "--model", "unet_s"]
    options = ["--epochs", "1", "--device", "cpu", "--workers", "1", "--splits", train_two.splits, *settings]
    processes = [
        subprocess.Popen([*command, *options, "--fold", fold], stderr=subprocess.PIPE, text=True) for fold in folds
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    for name in ("cases.csv", "postprocessing.json"):
        files = [folder / "cross_validation" / name for folder in (trained.folder, tmp_path / "run")]
        assert files[0].read_text() == files[1].read_text()
