import json
import math

import pytest

from voxelseg.report.facts import config_facts, dataset_facts, duration, plan_facts, provenance_facts, text_of
from voxelseg.report.run import Run, read_run


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (45.2, "45 s"),
        (750, "12 min 30 s"),
        (3720, "1 h 02 min"),
        (59.7, "1 min"),
        (10800.0, "3 h"),
        (math.nan, "–"),
    ],
)
def test_durations_have_two_units_at_most(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("patch_size", [8, 16, 24], "8 × 16 × 24"),
        ("strides", [[1, 1, 1], [2, 2, 2]], "1 × 1 × 1; 2 × 2 × 2"),
        ("scaling_range", [0.7, 1.4], "0.7 to 1.4"),
        ("noise_std", [0.0, 0.1], "0 to 0.1"),
        ("betas", [0.9, 0.999], "0.9, 0.999"),
        ("num_blocks", [2, 2, 4], "2, 2, 4"),
        ("budget_s", 10800.0, "3 h"),
        ("budget_s", None, "–"),
        ("mirror_axes", [], "none"),
        ("tta", True, "yes"),
        ("lr", 1e-5, "1e-05"),
        ("", {"kind": "zscore", "window": None}, "kind zscore"),
        ("", {"kind": "ct", "window": [-991.0, 362.0], "mean": 99.5}, "kind ct, window -991 to 362, mean 99.5"),
        ("", "text", "text"),
    ],
)
def test_json_values_are_written_for_readers(key, value, expected):
    assert text_of(value, key) == expected


def test_data_set_is_summed_up(run_folder):
    facts = dict(dataset_facts(read_run(run_folder)))
    assert facts["Classes"] == "liver (1), spleen (2)"
    assert facts["Cases"] == "3"
    assert facts["Voxel spacing D × H × W (mm)"] == "4 × 1.1 × 0.9"


def test_spread_of_shapes_is_given_when_cases_differ():
    cases = {"a": {"shape": [10, 20, 30]}, "b": {"shape": [12, 20, 40]}, "c": {"shape": [11, 20, 30]}}
    run = Run(None, {"fingerprint": {"cases": cases}}, ())
    assert dict(dataset_facts(run)) == {"Shape D × H × W": "median 11 × 20 × 30, from 10 × 20 × 30 to 12 × 20 × 40"}


def test_plan_names_its_axes_channels_and_notes(run_folder):
    facts, notes = plan_facts(read_run(run_folder))
    assert dict(facts)["Mirrored axes"] == "H (posterior–anterior)"
    assert dict(facts)["Normalization of MR"] == "kind zscore"
    assert dict(facts)["Patch"] == "8 × 16 × 24"
    assert notes == ["D is coarse."]


def test_mirrored_axes_follow_the_order_of_the_plan():
    facts, _ = plan_facts(Run(None, {"plan": {"axes": [2, 0, 1], "mirror_axes": [0]}}, ()))
    assert dict(facts)["Mirrored axes"] == "D (left–right)"


def test_configuration_has_the_keys_that_set_takes(run_folder):
    assert dict(config_facts(read_run(run_folder))) == {
        "train.lr": "0.001",
        "train.optimizer": "adamw",
        "augmentation.mirror": "yes",
    }


def test_provenance_has_command_versions_and_seed(run_folder):
    facts = dict(provenance_facts(read_run(run_folder)))
    assert facts["Command"].startswith("voxelseg train")
    assert facts["Libraries"] == "python 3.11.7, torch 2.13.0"
    assert facts["Seed"] == "7"
    assert "Plan" not in facts


def test_an_empty_record_gives_no_facts():
    run = Run(None, {}, ())
    assert (dataset_facts(run), plan_facts(run), config_facts(run), provenance_facts(run)) == ([], ([], []), [], [])


def test_the_weights_that_a_fold_started_from_are_named_with_what_to_beware_of(run_folder):
    transfer = {
        "path": "OTHER/fold_0/model.safetensors",
        "what": "mednext_s",
        "share": 0.9964,
        "warnings": ["Trained on the channels CT, here MR."],
    }
    assert "Fold 0 started from" not in dict(provenance_facts(read_run(run_folder)))
    (run_folder / "fold_0" / "transfer.json").write_text(json.dumps(transfer))
    assert dict(provenance_facts(read_run(run_folder)))["Fold 0 started from"] == (
        "OTHER/fold_0/model.safetensors (mednext_s), 99.6% of the weights without heads. "
        "Trained on the channels CT, here MR."
    )
