import json
import sys

import pytest
import training as script


def small(recipe, form="plain", **changes):
    values = {"patch": (32, 32, 64), "batch": 1, "width": 4, "device": "cpu", "threads": 1, "steps": 1, **changes}
    return script.Task(recipe=recipe, form=form, **values)


@pytest.mark.parametrize("recipe", script.RECIPES)
def test_every_recipe_takes_a_step_of_the_size_that_is_asked_for(recipe):
    stepper, shape, num_classes = script._prepared(small(recipe), script.torch.device("cpu"))
    assert shape == (1, 1, 32, 32, 64)
    assert num_classes == {"uxnet_flare21": 5, "e2enet_s80_amos22": 16}.get(recipe, 14)
    assert sum(parameter.numel() for parameter in stepper.model.parameters()) < 1e6  # 5 to 60 million as published


@pytest.mark.parametrize("recipe", script.RECIPES)
def test_patch_and_batch_are_the_recipe_s_unless_given(recipe):
    edge = 128 if "mednext" in recipe or "e2enet" in recipe else 96
    assert script._size(small(recipe, patch=None, batch=None)) == ((edge,) * 3, 4 if "logonet" in recipe else 2)


def test_published_seconds_are_those_of_the_epochs_and_hours_that_are_printed():
    seconds = {(one.network, one.machine): one.seconds for one in script.PUBLISHED}
    assert seconds["MedNeXt S k3", "A100"] == pytest.approx(0.468)  # 117 s of 250 steps
    assert seconds["nnU-Net", "A100 40 GB PCIe"] == pytest.approx(0.1296)  # 9 h of 250,000 steps


def test_memory_that_ran_out_is_a_row_without_numbers():
    row = script._row(small("logonet_btcv"), [([1.0], 5.0), None])
    assert row.step_s is None
    assert script._line(row, row).endswith("the memory ran out")


def test_a_line_has_the_median_and_the_ratios_to_plain():
    plain = script._row(small("logonet_btcv"), [([4.0], 200.0)])
    ours = script._row(small("logonet_btcv", form="voxelseg"), [([1.0, 2.0], 90.0), ([9.0], 100.0)])
    assert (ours.step_s, ours.step_min_s, ours.peak_mb, ours.steps) == (2.0, 1.0, 100.0, 3)
    assert script._line(ours, plain).split()[-6:] == ["2.000", "1.000", "2.00", "0.03", "100", "0.50"]


@pytest.mark.slow
def test_the_forms_are_measured_in_processes_of_their_own_and_written(tmp_path, capsys):
    out = tmp_path / "training.json"
    size = ["--patch", "32", "32", "32", "--batch", "1", "--width", "4", "--steps", "1", "--repeats", "1"]
    script.main(["--recipe", "mednext_s_k3_btcv", *size, "--out", str(out)])
    assert "voxelseg" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["form"] for row in rows] == ["plain", "plain, kept", "voxelseg"]
    assert all(row["step_s"] > 0 and row["peak_mb"] > 1 for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's memory so")
def test_a_form_that_needs_more_than_it_may_hold_has_run_out():
    task = small("logonet_btcv", patch=(96, 96, 96), width=16, memory_gb=1.5)  # about 3 GB
    assert script._measured_apart(task) is None
