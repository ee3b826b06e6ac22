import json
from dataclasses import replace

import numpy as np
import pytest
from scored import drawn, evaluation

from voxelseg.compare.contestants import read_contestants
from voxelseg.compare.cost import Cost
from voxelseg.compare.patients import patients_of
from voxelseg.compare.sources import mean_cost, read_source, references_in, references_of
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import DataError
from voxelseg.evaluate import evaluate_pairs
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
SHAPE = (5, 9, 11)
AFFINE = np.diag([0.9, 1.1, 4.0, 1.0])  # D, H, W = 4, 1.1, 0.9 mm


def save(path, array, *, affine=AFFINE):
    d, h, w = array.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(array[None], Grid(shape_ijk=(w, h, d), affine_ijk=affine)))


def label_map(shift=0, *, value=2):
    """Liver and, beside it, spleen, moved along W by `shift` voxels."""
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:7, 1 + shift : 5 + shift] = 1
    found[1:4, 2:7, 6 + shift : 9 + shift] = value
    return found


@pytest.fixture
def references(tmp_path):
    for case in ("a", "b", "c"):
        save(tmp_path / "references" / f"{case}.nii.gz", label_map())
    return tmp_path / "references"


def tool(tmp_path, name, **maps):
    for case, array in maps.items():
        save(tmp_path / name / f"{case}.nii.gz", array)
    return tmp_path / name


def test_label_maps_are_scored_and_what_is_missing_is_noted(tmp_path, references):
    folder = tool(tmp_path, "tool", a=label_map(), b=label_map(1), extra=label_map())
    found = read_source(folder, references_in(references))
    assert found.scores.cases == ("a", "b")
    # The liver is 4 voxels wide; moved by one, 3 of 4 + 4 are common: Dice 2 * 3 / 8.
    assert found.scores.values("dice", "1") == {"a": 1.0, "b": pytest.approx(0.75)}
    assert found.notes == (
        "1 reference has no prediction: c.",
        "Left out because they have no reference: extra.",
    )
    assert found.files["a"].images == ()
    assert found.labels.names == ("1", "2")


def test_several_tolerances_give_a_column_each(tmp_path, references):
    folder = tool(tmp_path, "tool", a=label_map())
    found = read_source(folder, references_in(references, tolerances_mm=(1.0, 3.0)))
    assert {"surface_dice", "surface_dice_3mm"} <= {one.key for one in found.scores.columns}


def test_a_value_that_no_reference_has_is_a_mistake_of_the_tool(tmp_path, references):
    folder = tool(tmp_path, "tool", a=label_map(), b=label_map(value=7))
    with pytest.raises(DataError, match=r"b\.nii\.gz: label values \[7\] are not in"):
        read_source(folder, references_in(references))


def test_a_prediction_on_another_grid_is_named(tmp_path, references):
    moved = AFFINE.copy()
    moved[0, 3] = 5.0
    save(tmp_path / "tool" / "a.nii.gz", label_map(), affine=moved)
    with pytest.raises(DataError, match=r"a\.nii\.gz: not on the grid of .*references"):
        read_source(tmp_path / "tool", references_in(references))


def test_label_maps_without_references_are_refused(tmp_path):
    with pytest.raises(DataError, match="--reference, a folder of label maps, or --data"):
        read_source(tool(tmp_path, "tool", a=label_map()), None)


def test_names_that_do_not_match_are_shown(tmp_path, references):
    with pytest.raises(DataError, match="found x; references are a, b, c"):
        read_source(tool(tmp_path, "tool", x=label_map()), references_in(references))


def test_references_that_are_all_empty_are_refused(tmp_path):
    save(tmp_path / "references" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match="no reference has a value other than 0"):
        references_in(tmp_path / "references")


def data_set(tmp_path):
    for case in ("sub-1_ses-1", "sub-1_ses-2"):
        save(tmp_path / "data" / "images" / f"{case}.nii.gz", label_map().astype(np.float32))
        save(tmp_path / "data" / "labels" / f"{case}.nii.gz", label_map())
    return read_dataset(tmp_path / "data")


def test_a_data_set_says_where_scans_are_and_whose(tmp_path):
    folder = tool(tmp_path, "tool", **{"sub-1_ses-1": label_map(1)})
    found = read_source(folder, references_of(data_set(tmp_path)))
    files = found.files["sub-1_ses-1"]
    assert files.images == (tmp_path / "data" / "images" / "sub-1_ses-1.nii.gz",)
    assert found.scores.patients == {"sub-1_ses-1": "sub-1"}


def test_a_data_set_describes_references_that_lie_elsewhere(tmp_path):
    dataset = data_set(tmp_path)
    save(tmp_path / "others" / "sub-1_ses-1.nii.gz", label_map())
    found = references_in(tmp_path / "others", dataset=dataset)
    assert (found.labels, found.patients) == (dataset.labels, {"sub-1_ses-1": "sub-1"})


def describe(folder, **patients):
    content = {"labels": {"background": 0, "liver": 1, "spleen": 2}, "patients": patients}
    (folder / "dataset.json").write_text(json.dumps(content))


def test_the_description_beside_references_says_whose_the_cases_are(tmp_path, references):
    describe(tmp_path, a="Ann", b="Ann", elsewhere="Bob")
    found = read_source(tool(tmp_path, "tool", a=label_map(), c=label_map()), references_in(references))
    assert (found.scores.patients, found.labels) == ({"a": "Ann"}, LABELS)


def test_the_description_beside_references_goes_before_a_data_set(tmp_path):
    dataset = data_set(tmp_path)
    for case in ("sub-1_ses-1", "sub-1_ses-2"):
        save(tmp_path / "others" / f"{case}.nii.gz", label_map())
    describe(tmp_path / "others", **{"sub-1_ses-1": "Ann"})
    found = references_in(tmp_path / "others", dataset=dataset)
    assert found.patients == {"sub-1_ses-1": "Ann", "sub-1_ses-2": "sub-1"}


def write_run(tmp_path, *, seed=3, scored=("0", "1")):
    """A run of three folds, of which the last is in training."""
    run = tmp_path / "run"
    for place, name in enumerate(("0", "1", "2")):
        fold = run / f"fold_{name}"
        fold.mkdir(parents=True)
        epochs = [{"event": "epoch", "epoch": one, "step": 10 * (one + 1), "elapsed_s": 60.0} for one in range(2)]
        (fold / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [{"event": "start"}, *epochs]))
        if name in scored:
            case = f"case_{place}"
            save(tmp_path / "labels" / f"{case}.nii.gz", label_map())
            save(fold / "validation" / f"{case}.nii.gz", label_map(1))
            entry = {"case": case, "patient": "p", "images": [], "label": str(tmp_path / "labels" / f"{case}.nii.gz")}
            pairs = [{**entry, "prediction": f"{case}.nii.gz"}]
            (fold / "validation" / "pairs.json").write_text(json.dumps(pairs))
            files = (case, fold / "validation" / f"{case}.nii.gz", tmp_path / "labels" / f"{case}.nii.gz")
            evaluate_pairs([files], fold / "validation", labels=LABELS)
    record = {"seed": seed, "model": "unet_s", "dataset": {"labels": LABELS.to_dict(), "channels": ["CT"]}}
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_the_folds_of_a_run_are_pooled(tmp_path):
    found = read_source(write_run(tmp_path), None)
    assert found.scores.cases == ("case_0", "case_1")
    assert (found.seed, found.labels, found.channel) == ("3", LABELS, "CT")
    assert "Folds without scores are left out: 2." in found.notes
    assert found.scores.patients == {"case_0": "p", "case_1": "p"}
    assert (found.cost.training_s, found.cost.steps) == (60.0, 20.0)
    assert [event["event"] for event in found.logs["0"]] == ["start", "epoch", "epoch"]


def test_a_run_without_any_scores_is_refused(tmp_path):
    with pytest.raises(DataError, match="no fold has scores yet"):
        read_source(write_run(tmp_path, scored=()), None)


def test_what_a_benchmark_measured_is_taken(tmp_path):
    run = write_run(tmp_path)
    (run / "cost.json").write_text(json.dumps(Cost(parameters=5, latency_s=0.5).to_dict()))
    cost = read_source(run, None).cost
    assert (cost.parameters, cost.latency_s, cost.steps) == (5, 0.5, 20.0)


def test_runs_of_one_contestant_are_called_by_their_seeds(tmp_path):
    first, second = write_run(tmp_path / "one", seed=4), write_run(tmp_path / "two", seed=7)
    (found,) = read_contestants([f"net={first},{second}"])
    assert list(found.runs) == ["4", "7"]
    assert list(found.logs) == [f"seed {seed}, fold {fold}" for seed in (4, 7) for fold in (0, 1)]


def test_equal_seeds_are_numbered_instead(tmp_path):
    first, second = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    (found,) = read_contestants([f"net={first},{second}"])
    assert list(found.runs) == ["0", "1"]


def test_a_folder_that_is_none_of_these_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match=r"nor label maps\. It has the folders runs\."):
        read_source(tmp_path, None)


def test_evaluations_are_read_with_their_notes(tmp_path):
    drawn(0.8, num=2).write(tmp_path)
    found = read_source(tmp_path, None)
    assert (found.scores.cases, found.files, found.cost) == (("case_00", "case_01"), {}, None)


def test_an_evaluation_says_whose_its_cases_are(tmp_path):
    replace(drawn(0.8, num=2), patients={"case_00": "Ann"}).write(tmp_path)
    assert read_source(tmp_path, None).scores.patients == {"case_00": "Ann"}


def test_the_validation_of_a_fold_says_so_in_the_record_of_its_files(tmp_path):
    found = read_source(write_run(tmp_path) / "fold_0" / "validation", None)
    assert found.scores.patients == {"case_0": "p"}


def test_cases_that_a_cross_validation_names_with_their_folds_are_known_by_their_ids(tmp_path):
    evaluation({"sub-1 (fold 0)": (0.5, 0.5), "x": (0.5, 0.5)}).write(tmp_path)
    (found,) = read_contestants([str(tmp_path)])
    assert patients_of([found]) == {"sub-1 (fold 0)": "sub-1", "x": "x"}


def test_the_mean_cost_is_over_what_is_known():
    # (10 + 30) / 2 s; the steps of one training only are known.
    found = mean_cost([Cost(parameters=4, training_s=10.0, steps=2.0), Cost(parameters=4, training_s=30.0)])
    assert (found.parameters, found.training_s, found.steps, found.seconds_per_case) == (4, 20.0, 2.0, None)
    assert mean_cost([]) is None


def test_a_folder_that_cannot_be_listed_is_said(tmp_path):
    with pytest.raises(DataError, match=r"gone: cannot be read .*Give a folder that you may read"):
        read_source(tmp_path / "gone", None)
