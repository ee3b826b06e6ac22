import dataclasses
import json
import shutil

import pytest
import torch

from voxelseg.checkpoint import load_checkpoint
from voxelseg.errors import BusyError, CheckpointError, VoxelsegError
from voxelseg.evaluate import read_evaluation
from voxelseg.files import locked, sha256_of_file
from voxelseg.io import read_label, read_volume, write_volume
from voxelseg.train.fitting import patch_source
from voxelseg.train.fold import train_fold, validate_fold
from voxelseg.volume import Volume


@pytest.fixture
def own(tiny_msd, train_tiny, tmp_path):
    """A run of one fold with a data set of its own, to be changed."""
    data = shutil.copytree(tiny_msd, tmp_path / "data")
    return train_tiny(data, tmp_path / "run", epochs=1)


def times(folder, pattern):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def test_a_fold_leaves_a_model_a_log_and_scored_predictions(own):
    folder = own.fold_folder(0)
    held_out = own.splits[0].validation
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "best.safetensors",
        "training_state.pt",
        "log.jsonl",
        "validation",
        ".lock",
    }
    assert {path.name for path in (folder / "validation").iterdir()} == {
        *(f"{case}.nii.gz" for case in held_out),
        *("prediction.json", "pairs.json", "cases.csv", "summary.json", ".lock"),
    }
    (pair,) = json.loads((folder / "validation" / "pairs.json").read_text())
    assert (pair["case"], pair["prediction"]) == (held_out[0], f"{held_out[0]}.nii.gz")


def test_the_model_file_says_how_it_came_about(own):
    provenance = load_checkpoint(own.model_file(0)).provenance
    assert (provenance["fold"], provenance["steps"], provenance["run"]["seed"]) == (0, 2, 0)
    best = load_checkpoint(own.best_file(0)).provenance  # after the only epoch, so at the same moment
    assert [best[key] for key in ("epochs", "steps")] == [provenance[key] for key in ("epochs", "steps")] == [1, 2]
    case = own.splits[0].train[0]
    files = [own.dataset.root / part / f"{case}.nii.gz" for part in ("imagesTr", "labelsTr")]
    assert provenance["train_cases_sha256"][case] == [sha256_of_file(file) for file in files]
    assert set(provenance["train_cases_sha256"]) == set(own.splits[0].train)


def test_a_finished_fold_is_kept_and_its_scores_are_read_back(own):
    folder = own.fold_folder(0)
    before = times(folder, "**/*")
    assert train_fold(own, 0, {}) == own.model_file(0)  # no stored case is needed
    assert validate_fold(own, 0).mean("dice") >= 0
    assert times(folder, "**/*") == before


def test_a_reference_that_was_corrected_is_scored_again(own):
    case = own.splits[0].validation[0]
    prediction = read_label(own.fold_folder(0) / "validation" / f"{case}.nii.gz")
    scan = read_volume(own.dataset.root / "imagesTr" / f"{case}.nii.gz")
    write_volume(own.dataset.root / "labelsTr" / f"{case}.nii.gz", Volume(prediction.array, scan.grid))
    assert validate_fold(own, 0).mean("dice") == 1.0  # now the prediction is the reference
    assert validate_fold(own, 0).mean("dice") == 1.0


def test_a_retrained_fold_is_predicted_and_scored_again(own, tiny_run):
    validation = own.fold_folder(0) / "validation"
    before = times(validation, "*.nii.gz")
    shutil.copy(tiny_run.folder / "fold_1" / "model.safetensors", own.model_file(0))
    validate_fold(own, 0)
    assert times(validation, "*.nii.gz").keys() == before.keys()
    assert times(validation, "*.nii.gz") != before


def test_a_missing_prediction_is_made_again(own):
    validation = own.fold_folder(0) / "validation"
    (prediction,) = validation.glob("*.nii.gz")
    content = prediction.read_bytes()
    prediction.unlink()
    validate_fold(own, 0)
    assert prediction.read_bytes() == content


def test_a_damaged_model_file_is_reported_and_not_built_upon(own):
    own.model_file(0).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged .* delete it and train again"):
        train_fold(own, 0, {})


def test_a_model_file_of_another_run_does_not_finish_a_fold(own, train_tiny, tmp_path):
    other = train_tiny(own.dataset.root, tmp_path / "other", epochs=1, seed=5)
    shutil.copy(other.model_file(0), own.model_file(0))
    with pytest.raises(CheckpointError, match=r"model.safetensors: is not of this run and fold"):
        train_fold(own, 0, {})


def test_damaged_scores_are_made_again(own):
    expected = validate_fold(own, 0)
    (own.fold_folder(0) / "validation" / "cases.csv").write_text("damaged")
    assert validate_fold(own, 0).mean("dice") == pytest.approx(expected.mean("dice"))
    assert read_evaluation(own.fold_folder(0) / "validation").classes == expected.classes


def test_a_fold_is_trained_by_one_process(own, tmp_path):
    with locked(own.fold_folder(0)), pytest.raises(VoxelsegError, match="another voxelseg process"):
        train_fold(own, 0, {})


def test_a_fold_is_validated_by_one_process(own):
    """Another one would replace the label maps while they are scored, if it has other settings of prediction."""
    busy = []

    def look(done, case):
        with pytest.raises(BusyError), locked(own.fold_folder(0)):
            raise AssertionError
        busy.append(case)

    shutil.rmtree(own.fold_folder(0) / "validation")
    validate_fold(own, 0, progress=look)
    assert busy


def test_a_deleted_model_file_comes_back_from_the_saved_state(own, train_tiny):
    before = load_checkpoint(own.model_file(0)).fingerprint()
    own.model_file(0).unlink()
    train_tiny(own.dataset.root, own.folder, epochs=1)
    assert load_checkpoint(own.model_file(0)).fingerprint() == before


def test_background_that_normalisation_leaves_at_0_is_masked(own, prepared):
    brain = own.plan.changed(normalization=[{"kind": "zscore_nonzero"}])
    for plan, masked in ((own.plan, ()), (brain, (0,))):
        source = patch_source(dataclasses.replace(own, plan=plan), 0, prepared.stored)
        assert source.masked_channels == masked


def test_memory_that_runs_out_is_one_message_with_two_remedies_and_the_fold_goes_on(own, prepared):
    shutil.rmtree(own.fold_folder(0))

    def take_too_much(_):
        torch.empty(2**55)

    message = r"fold_0: the memory ran out \(tried to allocate \d+ bytes\).*same command continues.*--memory-gb"
    with pytest.raises(VoxelsegError, match=message):
        train_fold(own, 0, prepared.stored, on_progress=take_too_much)
    assert train_fold(own, 0, prepared.stored).is_file()


def test_other_errors_of_torch_are_passed_on(own, prepared):
    shutil.rmtree(own.fold_folder(0))

    def fail(_):
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        train_fold(own, 0, prepared.stored, on_progress=fail)


def test_other_settings_of_prediction_give_new_predictions_or_scores_of_the_same_model(own, train_tiny):
    folder = own.fold_folder(0)
    case = f"{own.splits[0].validation[0]}.nii.gz"
    before = times(folder, "**/*")

    def written_anew(*settings):
        train_tiny(own.dataset.root, own.folder, epochs=1, settings=settings)
        now = times(folder, "**/*")
        return {name for name in (case, "summary.json", "model.safetensors") if now[name] != before[name]}

    assert written_anew() == set()
    assert written_anew("predict.tolerance_mm=2.5") == {"summary.json"}
    assert json.loads((folder / "validation" / "summary.json").read_text())["tolerance_mm"] == 2.5
    assert written_anew("predict.tta=true") == {case, "summary.json"}


def test_best_weights_that_are_gone_are_named_with_what_to_do(own, train_tiny):
    own.best_file(0).unlink()
    with pytest.raises(
        CheckpointError, match=r"best\.safetensors: not there.*predict\.checkpoint=last.*delete the folder"
    ):
        train_tiny(own.dataset.root, own.folder, epochs=1, settings=["predict.checkpoint=best"])


def test_a_regions_model_trains_and_predicts(tiny_msd, train_tiny, tmp_path):
    data = shutil.copytree(tiny_msd, tmp_path / "data")
    for folder, name in (("imagesTr", "tiny_{}_0000"), ("labelsTr", "tiny_{}")):
        for number in range(4):
            (data / folder / f"tiny_{number}.nii.gz").rename(data / folder / f"{name.format(number)}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "whole": [1, 2], "rod": [2]},
        "regions_class_order": [1, 2],
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(description))
    run = train_tiny(data, tmp_path / "run", epochs=1)
    evaluation = validate_fold(run, 0)
    assert evaluation.classes == ("whole", "rod")
    assert load_checkpoint(run.model_file(0)).labels.num_outputs == 2
