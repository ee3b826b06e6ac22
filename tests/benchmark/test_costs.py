import json
import re
from dataclasses import replace

import pytest

from voxelseg.benchmark import costs
from voxelseg.benchmark.costs import Measuring, measured_costs
from voxelseg.benchmark.fair_plan import Contender
from voxelseg.errors import ConfigError
from voxelseg.plan.plan import read_plan
from voxelseg.train.config import build_config
from voxelseg.train.run import PLAN_FILE


@pytest.fixture
def measuring(tiny_run, monkeypatch):
    monkeypatch.setattr(costs, "ROUNDS", 1)
    return Measuring(data=tiny_run.data, plan=read_plan(tiny_run.folder / PLAN_FILE), device="cpu", threads=1)


@pytest.mark.slow
def test_costs_are_measured_once_and_again_when_the_network_changes(measuring, tmp_path):
    file = tmp_path / "costs.json"
    small = {"small": Contender("unet_s", build_config(["model.width=4"]))}
    first = measured_costs(measuring, small, file)["small"]
    assert first.patch_size == measuring.plan.patch_size
    assert (first.batch_size, first.device, first.threads) == (2, "cpu", 1)
    assert first.macs > 0
    assert first.latency_s > 0
    assert first.step_s > 0
    assert first.training_memory_bytes > 4 * first.parameters
    assert f"{costs.MOST_REPEATS} predictions in 1 turns" in first.notes[0]
    asked = []
    assert measured_costs(measuring, small, file, progress=lambda done, what: asked.append(what)) == {"small": first}
    assert not asked
    wide = {"small": Contender("unet_s", build_config(["model.width=5"])), "other": small["small"]}
    second = measured_costs(measuring, wide, file)
    assert second["small"].parameters > first.parameters
    assert set(json.loads(file.read_text())) == {"small", "other"}


@pytest.mark.slow
def test_what_cannot_be_measured_is_said(measuring, tmp_path):
    measuring = replace(measuring, plan=measuring.plan.changed(patch_size=[16, 32, 16]))  # as MedNeXt needs it
    config = build_config(["model.width=1000000"])  # pointwise convolutions of 2 x 10^12 weights fit nowhere
    found = measured_costs(measuring, {"huge": Contender("mednext_xs", config)}, tmp_path / "costs.json")["huge"]
    assert found.parameters > 10**12
    assert found.latency_s is None
    assert found.training_memory_bytes is None
    assert any(note.startswith("Prediction: the memory ran out") for note in found.notes)
    assert any(note.startswith("Training step: the memory ran out") for note in found.notes)


@pytest.mark.slow
def test_a_network_that_fails_costs_no_more_than_its_own_numbers(measuring, tmp_path):
    elsewhere = replace(measuring, device="hpu")  # no such device here: torch's own error, which is not about memory
    small = Contender("unet_s", build_config(["model.width=4"]))
    found = measured_costs(elsewhere, {"small": small}, tmp_path / "costs.json")["small"]
    assert found.parameters > 0
    assert (found.latency_s, found.step_s) == (None, None)
    for what in ("Prediction", "Training step"):
        assert any(re.match(rf"{what}: \w+Error: ", note) for note in found.notes), found.notes
    unfit = replace(measuring, plan=measuring.plan.changed(patch_size=[16, 20, 16]))  # MedNeXt divides by 16
    found = measured_costs(unfit, {"next": Contender("mednext_xs", small.config)}, tmp_path / "costs.json")["next"]
    assert found.parameters is None
    assert [note.partition(":")[0] for note in found.notes] == ["Prediction", "Counting", "Training step"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("'conv3d' not implemented for 'BFloat16'\nmore"), "RuntimeError: 'conv3d' not implemented for"),
        (KeyError(), "KeyError"),
        (ConfigError("width: 0 is too small."), "width: 0 is too small."),
        (MemoryError(), "the memory ran out"),
        (RuntimeError("CUDA out of memory"), "the memory ran out"),
    ],
)
def test_an_error_becomes_a_line(error, words):
    def failing():
        raise error

    found = costs._found_or_fault(failing)
    assert found.startswith(words)
    assert "\n" not in found


def test_a_damaged_file_counts_for_nothing(tmp_path):
    file = tmp_path / "costs.json"
    for content in ("{", "[]", '{"a": 3}', '{"a": {"measured_for": "x", "cost": {"speed": 3}}}'):
        file.write_text(content)
        assert costs._known(file) == {}
