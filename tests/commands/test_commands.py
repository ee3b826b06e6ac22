import dataclasses
import inspect
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from voxelseg import commands
from voxelseg.checkpoint import load_checkpoint, save_checkpoint
from voxelseg.cli import COMMANDS, DATA_COMMANDS
from voxelseg.data.labels import NO_LABELS
from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.io import read_label, read_volume
from voxelseg.plan.plan import read_plan
from voxelseg.plan.planner import override_plan
from voxelseg.preprocess.store import StoredCase
from voxelseg.preprocess.work import WorkFolder
from voxelseg.recipes import find_recipe


def test_every_command_is_a_documented_function_of_the_same_name_with_the_same_arguments():
    of_functions = {name.replace("-", "_"): command for name, command in COMMANDS.items()}
    of_functions |= {f"{name}_data": command for name, command in DATA_COMMANDS.items()}
    assert set(commands.__all__) == set(of_functions)
    for name, command in of_functions.items():
        function = getattr(commands, name)
        assert function.__name__ == name
        assert function.__doc__
        options = set(inspect.signature(command).parameters) - {"as_json", "list_grids"}
        arguments = set(inspect.signature(function).parameters) - {"console"}
        assert options == arguments - ({"seed"} if name == "demo" else set()), name


def test_unknown_commands_are_no_attributes():
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        _ = commands.fly
    assert dir(commands) == sorted(commands.__all__)


@pytest.mark.parametrize(
    ("script", "absent"),
    [
        ("import voxelseg.cli", ["torch", "matplotlib", "numpy", "scipy"]),
        ("from voxelseg.commands import check", ["torch", "matplotlib"]),
        ("from voxelseg.commands import evaluate", ["torch", "matplotlib"]),
        ("from voxelseg.commands import report", ["torch"]),
        ("from voxelseg.commands import predict, train", ["matplotlib"]),
    ],
)
def test_a_command_does_not_wait_for_what_it_does_not_use(script, absent):
    check = f"{script}; import sys; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- plan and preprocess


def test_plan_then_preprocess_then_train_use_one_work_folder(tiny_msd, train_tiny, tmp_path):
    work = tmp_path / "work"
    planned = commands.plan(tiny_msd, work, model="unet_s", device="cpu", workers=1)
    assert {path.name for path in work.iterdir()} >= {"fingerprint.json", "plan.json", "work.json"}
    stored = commands.preprocess(work, workers=1)
    assert set(stored) == {f"tiny_{number}" for number in range(4)}
    assert all(isinstance(case, StoredCase) for case in stored.values())
    before = {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*")}
    run = train_tiny(tiny_msd, tmp_path / "run", work=work, epochs=1)
    assert not (tmp_path / "run" / "work").exists()
    assert run.plan.changed(notes=()) == planned.changed(
        patch_size=(16, 24, 16), batch_size=2, mirror_axes=(1,), notes=()
    )
    assert {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*")} == before


def test_overrides_of_a_training_do_not_leak_into_the_shared_work_folder(tiny_msd, train_tiny, tmp_path):
    work = tmp_path / "work"
    first = train_tiny(tiny_msd, tmp_path / "one", work=work, epochs=1, settings=["plan.batch_size=3"])
    second = train_tiny(tiny_msd, tmp_path / "two", work=work, epochs=1)
    assert (first.plan.batch_size, second.plan.batch_size) == (3, 2)


def test_a_plan_changed_by_hand_is_what_is_trained(tiny_msd, train_tiny, tmp_path):
    work = tmp_path / "work"
    commands.plan(tiny_msd, work, model="unet_s", device="cpu", workers=1)
    plan = json.loads((work / "plan.json").read_text())
    (work / "plan.json").write_text(json.dumps({**plan, "spacing_mm": [2.5, 1.25, 1.25]}))
    assert train_tiny(tiny_msd, tmp_path / "run", work=work, epochs=1).plan.spacing_mm == (2.5, 1.25, 1.25)


def test_settings_of_the_plan_command_go_into_the_plan(tiny_msd, tmp_path):
    planned = commands.plan(tiny_msd, tmp_path, device="cpu", workers=1, settings=["plan.batch_size=5"])
    assert planned.batch_size == 5
    assert json.loads((tmp_path / "plan.json").read_text())["batch_size"] == 5


def test_a_plan_for_a_recipe_is_the_one_that_it_trains_with(tiny_msd, tmp_path):
    recipe = find_recipe("e2enet_s80_btcv")
    planned = commands.plan(tiny_msd, tmp_path, recipe=recipe.name, memory_gb=1000, workers=1)
    assert list(planned.patch_size) == recipe.settings["plan"]["patch_size"]
    work = WorkFolder(tmp_path)
    measured = work.fingerprint(work.dataset(), workers=1)
    trained = override_plan(planned, measured, recipe.config([]).plan)
    assert trained.changed(notes=()) == planned.changed(notes=())
    with pytest.raises(ConfigError, match="is a training of e2enet, not of mednext_s"):
        commands.plan(tiny_msd, tmp_path, recipe=recipe.name, model="mednext_s")


def test_a_plan_changed_by_hand_is_put_aside_when_planned_again(tiny_msd, tmp_path, caplog):
    first = commands.plan(tiny_msd, tmp_path, device="cpu", workers=1, settings=["plan.batch_size=5"])
    commands.plan(tiny_msd, tmp_path, device="cpu", workers=1, settings=["plan.batch_size=5"])
    assert not (tmp_path / "plan.outdated.json").exists()
    commands.plan(tiny_msd, tmp_path, device="cpu", workers=1)
    assert read_plan(tmp_path / "plan.outdated.json") == first
    assert "planned again; the plan before is kept as plan.outdated.json" in caplog.text


@pytest.mark.parametrize(
    "setting", ["train.lr=5", "augmentation.noise=0", "predict.tta=true", "transfer.freeze=[encoder]"]
)
def test_settings_that_decide_nothing_in_a_plan_are_refused(tiny_msd, tmp_path, setting):
    with pytest.raises(ConfigError, match=rf"{setting.partition('=')[0]}: decides nothing in a plan"):
        commands.plan(tiny_msd, tmp_path, device="cpu", workers=1, settings=[setting])


@pytest.mark.slow
def test_probing_finds_a_plan_that_fits_and_says_what_each_trial_took(tiny_msd, tmp_path):
    console = Console(record=True, width=200)
    settings = ["model.width=4", "plan.patch_size=[16,24,16]", "train.ema=0.9"]
    planned = commands.plan(
        tiny_msd,
        tmp_path / "work",
        model="unet_s",
        device="cpu",
        memory_gb=0.5,
        probe=True,
        settings=settings,
        workers=1,
        console=console,
    )
    assert planned == read_plan(tmp_path / "work" / "plan.json")
    assert planned.patch_size == (16, 24, 16)
    assert any("found by training steps on cpu" in note for note in planned.notes)
    shown = console.export_text()
    assert "Training steps within 0.5 GB" in shown
    assert "16 x 24 x 16" in shown


def test_probing_a_cpu_needs_a_budget_and_real_settings(tiny_msd, tmp_path):
    with pytest.raises(ConfigError, match="--probe on a CPU needs --memory-gb"):
        commands.plan(tiny_msd, tmp_path, device="cpu", probe=True)
    with pytest.raises(ConfigError, match=r"train\.lr: decides nothing in a plan"):
        commands.plan(tiny_msd, tmp_path, device="cpu", probe=True, memory_gb=1, settings=["train.lr=1"])
    with pytest.raises(ConfigError, match=r"train\.ema: decides nothing in a plan"):
        commands.plan(tiny_msd, tmp_path, device="cpu", settings=["train.ema=0.9"])


def test_a_data_set_is_no_work_folder(tiny_msd, tmp_path):
    before = sorted(tiny_msd.rglob("*"))
    with pytest.raises(DataError, match="nothing was planned here"):
        commands.preprocess(tiny_msd, workers=1)
    with pytest.raises(DataError, match=r"is a data set\. Choose another folder"):
        commands.plan(tiny_msd, tiny_msd, device="cpu", workers=1)
    assert sorted(tiny_msd.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------------ train


def test_a_finished_run_run_again_changes_nothing_and_says_its_result(tiny_run, train_tiny, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    train_tiny(tiny_run.data, folder, fold="0,1")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_setting_for_a_finished_run_is_refused_before_anything_changes(tiny_run, train_tiny, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ConfigError, match=r"config\.train\.lr was 0\.001, now 0\.5"):
        train_tiny(tiny_run.data, folder, settings=["train.lr=0.5"])
    with pytest.raises(ConfigError, match=r"plan\.spacing_mm was .*now \[3"):
        train_tiny(tiny_run.data, folder, settings=["plan.spacing_mm=[3,3,3]"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_further_fold_joins_the_run(tiny_msd, train_tiny, tmp_path):
    train_tiny(tiny_msd, tmp_path, fold="1", epochs=1)
    run = train_tiny(tiny_msd, tmp_path, fold="0", epochs=1)
    assert run.model_file(0).is_file()
    assert run.model_file(1).is_file()


def test_a_budget_sets_the_length(tiny_msd, train_tiny, tmp_path):
    from voxelseg.commands.training import train

    run = train(
        tiny_msd,
        tmp_path,
        model="unet_s",
        budget="0.4s",
        device="cpu",
        workers=1,
        settings=["model.width=2", "plan.patch_size=[16,16,16]", "train.workers=0", "train.validation_patches=0"],
    )
    events = [json.loads(line) for line in (run.fold_folder(0) / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "end"
    assert events[-1]["elapsed_s"] < 0.6


def test_a_patch_is_rounded_up_to_what_the_network_takes(tiny_msd, train_tiny, tmp_path):
    run = train_tiny(tiny_msd, tmp_path, epochs=1, settings=["plan.patch_size=[10,20,7]"])
    assert all(size % step == 0 for size, step in zip(run.plan.patch_size, run.build_model().divisor, strict=True))
    assert run.plan.patch_size >= (10, 20, 7)


def test_volumes_smaller_than_the_patch_are_trained_and_predicted(tiny_msd, train_tiny, tmp_path):
    run = train_tiny(tiny_msd, tmp_path, epochs=1, settings=["plan.patch_size=[32,32,32]"])
    assert list((run.fold_folder(0) / "validation").glob("*.nii.gz"))


@pytest.mark.slow
def test_what_the_data_do_not_share_with_those_of_a_recipe_is_said_and_they_are_trained(tiny_msd, tmp_path, caplog):
    run = commands.train(
        tiny_msd,
        tmp_path / "run",
        recipe="mednext_s_k3_btcv",
        epochs=1,
        device="cpu",
        workers=1,
        settings=[
            *("plan.patch_size=[16,16,16]", "plan.batch_size=1", "predict.tta=false", "train.steps_per_epoch=1"),
            *("train.workers=0", "train.validation_patches=1"),
        ],
    )
    assert "Recipe mednext_s_k3_btcv was made for 13 classes" in caplog.text
    assert (run.model, run.config.train.epochs) == ("mednext_s", 1)
    assert run.model_file(0).is_file()


def test_given_folds_are_used(tiny_msd, train_tiny, tmp_path):
    folds = [{"train": ["tiny_0", "tiny_1"], "val": ["tiny_3"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    run = train_tiny(tiny_msd, tmp_path / "run", splits=tmp_path / "folds.json", epochs=1)
    assert run.splits[0].validation == ("tiny_3",)


# ---------------------------------------------------------------------------------------------------------- predict


def test_predictions_of_a_data_set_have_each_scan_s_geometry(tiny_run, tiny_msd, tmp_path):
    paths = commands.predict(tiny_run.folder, tiny_msd, tmp_path, device="cpu", probabilities=True)
    assert set(paths) == {"tiny_4", "tiny_5"}
    for case, path in paths.items():
        scan, label = read_volume(tiny_msd / "imagesTs" / f"{case}.nii.gz"), read_label(path)
        assert label.grid.to_dict() == scan.grid.to_dict()
        values = read_volume(tmp_path / "probabilities" / f"{case}.nii.gz").array
        np.testing.assert_allclose(values.sum(axis=0), 1.0, atol=1e-5)
        np.testing.assert_array_equal(values.argmax(axis=0), label.array[0])


def test_all_trained_folds_are_averaged_unless_some_are_named(tiny_run, tiny_msd, tmp_path):
    scan = tiny_msd / "imagesTs" / "tiny_4.nii.gz"
    values = {}
    for fold in ("0", "1", None):
        out = tmp_path / str(fold)
        commands.predict(tiny_run.folder, scan, out, fold=fold, probabilities=True, device="cpu")
        values[fold] = read_volume(out / "probabilities" / "tiny_4.nii.gz").array
    np.testing.assert_allclose(values[None], (values["0"] + values["1"]) / 2, atol=1e-6)
    assert (values["0"] != values["1"]).any()


def test_a_model_file_alone_is_enough(tiny_run, tiny_msd, tmp_path):
    scan = tiny_msd / "imagesTs" / "tiny_4.nii.gz"
    lone = shutil.copy(tiny_run.model, tmp_path / "clinic.safetensors")
    of_file = commands.predict(lone, scan, tmp_path / "a", device="cpu")
    of_run = commands.predict(tiny_run.folder, scan, tmp_path / "b", fold="0", device="cpu")
    np.testing.assert_array_equal(read_label(of_file["tiny_4"]).array, read_label(of_run["tiny_4"]).array)


@pytest.mark.parametrize("option", [{"fold": "0"}, {"checkpoint": "best"}])
def test_what_chooses_among_model_files_is_refused_where_one_is_named(tiny_run, tiny_msd, tmp_path, option):
    with pytest.raises(ConfigError, match=rf"is one model file.*Leave out --{next(iter(option))}\."):
        commands.predict(tiny_run.model, tiny_msd, tmp_path / "out", device="cpu", **option)


def recorded(out):
    return json.loads((out / "prediction.json").read_text())["settings"]


def test_scans_are_predicted_as_the_held_out_cases_were_unless_told_otherwise(tiny_run, tiny_msd, tmp_path):
    folder, scan = shutil.copytree(tiny_run.folder, tmp_path / "run"), tiny_msd / "imagesTs" / "tiny_4.nii.gz"
    run = json.loads((folder / "run.json").read_text())
    run["config"]["predict"] |= {"overlap": 0.25, "tta": True, "weighting": "constant", "of_a_later_version": 3}
    (folder / "run.json").write_text(json.dumps(run))
    commands.predict(folder, scan, tmp_path / "a", device="cpu")
    found = recorded(tmp_path / "a")
    assert (found["overlap"], found["tta"], found["weighting"]) == (0.25, True, "constant")
    commands.predict(folder, scan, tmp_path / "b", device="cpu", tta=False, overlap=0.0)
    assert (recorded(tmp_path / "b")["overlap"], recorded(tmp_path / "b")["tta"]) == (0.0, False)
    commands.predict(tiny_run.model, scan, tmp_path / "c", device="cpu")  # remembers how its training began
    assert recorded(tmp_path / "c")["overlap"] == 0.5


def test_impossible_settings_in_a_run_s_record_are_named(tiny_run, tiny_msd, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["config"]["predict"]["overlap"] = 7
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(CheckpointError, match=r"impossible settings of `predict`: overlap"):
        commands.predict(folder, tiny_msd, tmp_path / "out", device="cpu")


def test_the_weights_of_the_best_epoch_may_predict(tiny_run, tiny_msd, tmp_path):
    scan = tiny_msd / "imagesTs" / "tiny_4.nii.gz"
    commands.predict(tiny_run.folder, scan, tmp_path / "best", device="cpu", checkpoint="best")
    best = [load_checkpoint(tiny_run.folder / f"fold_{fold}" / "best.safetensors").fingerprint() for fold in (0, 1)]
    assert recorded(tmp_path / "best")["models"] == best
    with pytest.raises(ConfigError, match="expected last or best"):
        commands.predict(tiny_run.folder, scan, tmp_path / "out", device="cpu", checkpoint="newest")
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    (folder / "fold_1" / "best.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"fold_1/best\.safetensors: not there.*--checkpoint last"):
        commands.predict(folder, scan, tmp_path / "out", device="cpu", checkpoint="best")


def test_scans_are_never_overwritten_by_their_label_maps(tiny_run, tiny_msd, tmp_path):
    scans = shutil.copytree(tiny_msd / "imagesTs", tmp_path / "scans")
    before = {path: path.read_bytes() for path in scans.iterdir()}
    link = tmp_path / "link"
    link.symlink_to(scans)
    for source, out in ((scans, scans), (scans / "tiny_4.nii.gz", scans), (scans, link), (link, scans)):
        with pytest.raises(ConfigError, match="holds the scans themselves"):
            commands.predict(tiny_run.folder, source, out, device="cpu")
    assert {path: path.read_bytes() for path in scans.iterdir()} == before


def test_an_output_folder_inside_the_scans_folder_is_no_scan(tiny_run, tiny_msd, tmp_path):
    scans = shutil.copytree(tiny_msd / "imagesTs", tmp_path / "scans")
    for _ in range(2):
        paths = commands.predict(tiny_run.folder, scans, scans / "out", device="cpu")
        assert set(paths) == {"tiny_4", "tiny_5"}


def test_runs_and_folds_that_are_not_there_are_named(tiny_run, tiny_msd, tmp_path):
    with pytest.raises(DataError, match="not found"):
        commands.predict(tmp_path / "nothing", tiny_msd, tmp_path / "out")
    with pytest.raises(DataError, match="holds no trained model"):
        commands.predict(tmp_path, tiny_msd, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"fold 3 is not trained; trained are 0, 1"):
        commands.predict(tiny_run.folder, tiny_msd, tmp_path / "out", fold="0,3")
    with pytest.raises(ConfigError, match="Leave out --fold"):
        commands.predict(tiny_run.model, tiny_msd, tmp_path / "out", fold="0")


def test_what_a_pre_training_left_predicts_nothing_and_says_what_to_do(tiny_run, tiny_msd, tmp_path):
    trained = load_checkpoint(tiny_run.model)
    pretraining = {"method": "simmim", "num_classes": 14, "trained": "all"}
    left = dataclasses.replace(trained, pretraining=pretraining, labels=NO_LABELS)
    save_checkpoint(tmp_path / "pre" / "model.safetensors", left)
    for named in (tmp_path / "pre", tmp_path / "pre" / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"is pre-trained only, by simmim.*voxelseg train DATA .*--init "):
            commands.predict(named, tiny_msd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------- evaluate and report


def test_predictions_are_scored_and_reported(tiny_run, tiny_msd, tmp_path):
    commands.predict(tiny_run.folder, tiny_msd, tmp_path / "predictions", device="cpu")
    evaluation = commands.evaluate(tmp_path / "predictions", tiny_msd / "labelsTs", tmp_path / "scores", workers=1)
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert set(summary["mean"]) >= {"dice", "surface_dice", "hd95_mm"}
    assert set(summary["classes"]) == {"ball", "rod"} == set(evaluation.classes)
    page = commands.report(tiny_run.folder, tmp_path / "report.html")
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_probabilities_that_predict_wrote_are_scored_beside_the_label_maps(tiny_run, tiny_msd, tmp_path):
    commands.predict(tiny_run.folder, tiny_msd, tmp_path / "predictions", probabilities=True, device="cpu")
    found = commands.evaluate(
        tmp_path / "predictions",
        tiny_msd / "labelsTs",
        tmp_path / "scores",
        tolerance_mm=[1.0, 3.0],
        probabilities=tmp_path / "predictions" / "probabilities",
        workers=1,
    )
    assert 0 < found.mean("ece") < 1
    assert 0 < found.mean("brier") < 1
    assert found.mean("surface_dice") < found.mean("surface_dice_3mm")


def test_references_without_prediction_are_left_out_only_when_allowed(tiny_msd, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    shutil.copy(tiny_msd / "labelsTs" / "tiny_4.nii.gz", predictions)
    with pytest.raises(DataError, match=r"tiny_5.*--allow-missing"):
        commands.evaluate(predictions, tiny_msd / "labelsTs", tmp_path / "out", workers=1)
    scored = commands.evaluate(predictions, tiny_msd / "labelsTs", tmp_path / "out", workers=1, allow_missing=True)
    assert scored.mean("dice") == 1.0


def test_models_are_listed_with_their_sizes_and_costs(only_networks):
    only_networks("mednext_s", "mednext_m", "unet")
    found = {one["name"]: one for one in commands.models(32)}
    assert found["mednext_s"]["parameters"] == 5_551_310
    assert found["mednext_s"]["size"] == [32, 32, 32]
    larger = {one["name"]: one for one in commands.models("32, 64, 32")}
    for cost in ("macs", "training_bytes", "prediction_bytes"):
        assert found["mednext_s"][cost] < larger["mednext_s"][cost]
        assert found["mednext_s"][cost] < found["mednext_m"][cost]
    assert larger["unet"]["macs"] == 2 * found["unet"]["macs"]
    assert {"divisor", "source", "summary"} <= found["unet"].keys()


def test_networks_whose_library_is_not_installed_are_left_out_and_named(only_networks, monkeypatch, capsys):
    only_networks("unet_s", "vnet")
    monkeypatch.setitem(sys.modules, "monai.networks", None)  # importing it is an ImportError
    assert [one["name"] for one in commands.models(32)] == ["unet_s"]
    assert capsys.readouterr().out == ""
    commands.models(32, console=Console())
    assert 'Left out, until you pip install "voxelseg[baselines]": vnet.' in capsys.readouterr().out


def test_a_training_from_other_weights_shows_what_became_of_them(tiny_run, train_tiny, tmp_path):
    console = Console(record=True, width=160)
    run = train_tiny(tiny_run.data, tmp_path / "run", epochs=1, init=tiny_run.folder, console=console)
    text = " ".join(console.export_text().split())  # a title as wide as the table, however long the path
    assert f"Weights from {tiny_run.model} (unet_s)" in text
    assert "100.0% of the weights without heads." in text
    assert (run.fold_folder(0) / "transfer.json").is_file()
    console = Console(record=True, width=160)
    train_tiny(tiny_run.data, tmp_path / "run", epochs=1, init=tiny_run.folder, console=console)
    assert "Weights from" not in console.export_text()


def test_without_a_console_warnings_of_such_a_training_are_logged(tiny_run, train_tiny, tmp_path, caplog):
    other = tiny_run.folder / "fold_1" / "model.safetensors"  # trained on what fold 0 holds out
    train_tiny(tiny_run.data, tmp_path / "run", epochs=1, init=other)
    assert f"{other}: 1 of 1 held-out cases were among those" in caplog.text


def test_weights_that_do_not_fit_are_refused_before_a_run_is_made(tiny_run, train_tiny, tmp_path):
    with pytest.raises(CheckpointError, match=r"model.safetensors \(unet_s\) has .*transfer.least_share"):
        train_tiny(tiny_run.data, tmp_path / "run", init=tiny_run.folder, model="mednext_xs")
    with pytest.raises(ConfigError, match="no finished model of fold 2"):
        train_tiny(tiny_run.data, tmp_path / "run", init=tiny_run.folder, fold="0,2")
    assert not (tmp_path / "run" / "run.json").exists()
    train_tiny(tiny_run.data, tmp_path / "run", epochs=1, init=tiny_run.folder)  # the right weights go there


def test_patterns_that_choose_nothing_are_refused_before_a_run_is_made(tiny_msd, train_tiny, tmp_path):
    for setting in ("transfer.freeze=[nothing.*]", "transfer.lr_factors={nothing.*: 0.1}", "transfer.freeze=['*']"):
        with pytest.raises(ConfigError, match=r"transfer.(freeze|lr_factors): "):
            train_tiny(tiny_msd, tmp_path / "run", settings=[setting])
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "work" / "store").exists()
