import csv
import json
import math

import pytest
from scored import contestants, evaluation

from voxelseg.compare.comparison import compare
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.compare.files import write_numbers
from voxelseg.compare.scores import score_tables
from voxelseg.compare.settings import CompareSettings


def written(tmp_path, found):
    runs = {one.name: one.runs for one in found if one.runs}
    patients = {case: f"p{place // 2}" for place, case in enumerate(found[0].cases)}
    comparison = compare(score_tables(runs, patients=patients), CompareSettings(resamples=200))
    write_numbers(tmp_path, comparison, found, patients)
    return comparison


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_contestant_run_case_and_class_has_a_row(tmp_path):
    found = contestants({"a": 0.8, "b": 0.7}, seeds=2, num=4)
    written(tmp_path, found)
    scores = rows(tmp_path / "scores.csv")
    assert len(scores) == 2 * 2 * 4 * 2
    first = scores[0]
    assert list(first)[:5] == ["contestant", "run", "case", "patient", "class"]
    assert [first[key] for key in list(first)[:5]] == ["a", "0", "case_00", "p0", "liver"]
    assert float(first["dice"]) == pytest.approx(found[0].runs["0"].scores[0].metrics["dice"])
    assert (first["volume_reference_mm3"], first["volume_prediction_mm3"]) == ("2000", "1900")


def test_every_pair_of_every_table_has_a_row(tmp_path):
    written(tmp_path, contestants({"a": 0.8, "b": 0.7, "c": 0.6}, num=8))
    pairs = rows(tmp_path / "pairs.csv")
    # 3 pairs in 3 columns, each of the mean and of 2 classes.
    assert len(pairs) == 3 * 3 * 3
    first = pairs[0]
    assert [first[key] for key in ("metric", "class", "cases", "patients")] == ["dice", "", "8", "4"]
    assert float(first["low"]) <= float(first["difference"]) <= float(first["high"])


def test_undefined_numbers_are_empty_cells_and_null(tmp_path):
    scores = {"x": (math.nan, 0.5), "y": (0.4, 0.6), "z": (0.3, 0.5)}
    found = [Contestant(name=name, runs={"0": evaluation(scores)}) for name in "ab"]
    written(tmp_path, found)
    assert rows(tmp_path / "scores.csv")[0]["dice"] == ""
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["tables"][0]["pairs"][0]["nemenyi_p"] is None


def test_the_record_has_costs_and_who_failed(tmp_path):
    found = contestants({"a": 0.8, "b": 0.7}, num=6, cost=Cost(parameters=7))
    written(tmp_path, [*found, Contestant(name="c", runs={}, fault="out of memory")])
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [one["name"] for one in content["contestants"]] == ["a", "b", "c"]
    assert content["contestants"][0]["cost"]["parameters"] == 7
    assert content["contestants"][2]["fault"] == "out of memory"
    assert content["conclusions"]
