import json
import threading
import time

import pytest
from designs import designed, finish

from voxelseg.benchmark.design import Cell, wait_for_others
from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.length import Length
from voxelseg.errors import ConfigError
from voxelseg.files import locked


def test_cells_come_in_whole_seeds_and_folds(tmp_path):
    names = [(cell.seed, cell.fold, cell.entrant.name) for cell in designed(tmp_path).cells]
    assert names[:5] == [(0, 0, "unet"), (0, 0, "uxnet"), (0, 1, "unet"), (0, 1, "uxnet"), (1, 0, "unet")]
    assert len(names) == 8


def test_settings_are_those_of_all_then_the_own_ones_and_never_of_the_plan(tmp_path):
    design = designed(tmp_path, "unet:train.workers=1:width=8")
    assert design.settings_of(design.entrants[0]) == [
        *("train.steps_per_epoch=3", "train.epochs=1"),
        *("train.workers=0", "train.workers=1", "model.width=8"),
    ]


def test_an_outcome_is_that_of_the_held_out_cases_with_what_it_took(tmp_path):
    design = designed(tmp_path)
    cell = Cell(design.entrants[0], 0, 0)
    assert design.outcome(cell) is None
    folder = finish(design, "unet", 0, 0, dice=0.5, seconds=4.0)
    found = design.outcome(cell)
    assert found.scores.case_means("dice") == {"a": 0.5, "b": 0.5}
    assert (found.steps, found.training_s) == (3, 4.0)
    assert found.seconds_per_case == 2.5  # 2 s and 3 s
    (folder / "validation" / "prediction.json").write_text("damaged")
    assert design.outcome(cell).seconds_per_case is None
    (folder / "validation" / "cases.csv").write_text("damaged")
    assert design.outcome(cell) is None


def test_what_is_recorded_once_is_kept_and_added_to(tmp_path):
    designed(tmp_path, "unet", reasons={"unet": {"divisor": [2, 2, 2]}}).record({"created": "first"})
    designed(tmp_path, "uxnet", reasons={"uxnet": {"divisor": [4, 4, 4]}}).record({"created": "second"})
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert list(record["contestants"]) == ["unet", "uxnet"]
    assert record["reasons"] == {"unet": {"divisor": [2, 2, 2]}, "uxnet": {"divisor": [4, 4, 4]}}
    assert record["held_out"] == {"0": ["a", "b"], "1": ["c"]}
    assert record["created"] == "second"
    for changes, name in [
        ({"length": Length(steps=4)}, "length"),
        ({"settings": ()}, "settings"),
        ({"plan": designed(tmp_path).plan.changed(patch_size=[16, 24, 48])}, "plan"),
        ({"models": "unet=unet:width=8"}, "contestant unet"),
        ({"held_out": {0: {"a": "anna"}, 1: {"c": "carl"}}}, "held-out cases of fold 0"),
        ({"trained_on": {0: ["d"], 1: ["a", "b"]}}, "training cases of fold 0"),
    ]:
        with pytest.raises(ConfigError, match=rf"other settings \({name};"):
            designed(tmp_path, **changes).record({})


def test_trainings_of_which_nothing_is_noted_are_not_taken_over(tmp_path):
    finish(designed(tmp_path), "unet", 0, 0)
    with pytest.raises(ConfigError, match=r"has trainings in 'cells', but no benchmark.json"):
        designed(tmp_path).record({})


def test_the_ends_of_pre_trainings_are_waited_for_too(tmp_path):
    design = designed(tmp_path, (Entrant(name="learnt", model="logonet", pretrain="simmim"),))
    folder = design.pretraining_folder(design.entrants[0], 1)
    held, ended = threading.Event(), threading.Event()

    def hold():
        with locked(folder):
            held.set()
            time.sleep(0.3)
            ended.set()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    wait_for_others(design)
    assert ended.is_set()
    holder.join()
