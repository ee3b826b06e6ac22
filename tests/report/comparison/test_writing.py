import csv
import json
import subprocess
import sys

import pytest
from scored import contestants, drawn

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.settings import CompareSettings
from voxelseg.errors import ConfigError, DataError
from voxelseg.files import LOCK_FILE, locked
from voxelseg.report.comparison import write_comparison

SETTINGS = CompareSettings(resamples=200)


def write(out, found, **more):
    patients = {case: case for one in found for case in one.cases}
    with locked(out):
        return write_comparison(found, out, patients=patients, **{"settings": SETTINGS, **more})


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {LOCK_FILE}


def test_page_numbers_and_figures_are_written(tmp_path):
    write(tmp_path, contestants({"a": 0.8, "b": 0.7, "c": 0.6}))
    figures = ("scores", "classes", "differences", "ranks", "rank_stability")
    assert names(tmp_path) == {
        *("report.html", "comparison.md", "comparison.json", "scores.csv", "pairs.csv"),
        *(f"figures/{name}{suffix}" for name in figures for suffix in (".svg", ".png")),
        "figures/drawings.json",
    }
    text = (tmp_path / "comparison.md").read_text()
    assert all(f"(figures/{name}.png)" in text for name in figures)
    assert json.loads((tmp_path / "comparison.json").read_text())["contestants"][0]["name"] == "a"


def test_the_same_again_gives_the_same_files(tmp_path):
    found = contestants({"a": 0.8, "b": 0.7})
    write(tmp_path / "one", found)
    write(tmp_path / "two", found)
    for name in ("comparison.json", "scores.csv", "pairs.csv", "figures/scores.svg", "figures/scores.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_drawings_that_another_comparison_left_are_removed_and_nothing_else(tmp_path):
    own = {f"figures/anatomy{suffix}" for suffix in (".png", ".svg", ".txt")}
    (tmp_path / "figures").mkdir()
    for name in own:
        (tmp_path / name).write_text("mine")
    write(tmp_path, contestants({"a": 0.8, "b": 0.7, "c": 0.6}))
    write(tmp_path, contestants({"a": 0.8}))
    assert {name for name in names(tmp_path) if name.startswith("figures/")} == {
        *(f"figures/{name}{suffix}" for name in ("scores", "classes") for suffix in (".svg", ".png")),
        "figures/drawings.json",
        *own,
    }


@pytest.mark.parametrize("content", ["{", "3", '["../anatomy", 3, {}]'])
def test_a_list_of_drawings_that_is_not_ours_removes_nothing(tmp_path, content):
    (tmp_path / "figures").mkdir()
    (tmp_path / "anatomy.png").write_text("mine")
    (tmp_path / "figures" / "drawings.json").write_text(content)
    write(tmp_path, contestants({"a": 0.8}))
    assert (tmp_path / "anatomy.png").is_file()
    assert json.loads((tmp_path / "figures" / "drawings.json").read_text()) == ["scores", "classes"]


def test_warnings_stand_at_the_top(tmp_path):
    found = write(tmp_path, contestants({"a": 0.8, "b": 0.7}), warnings=["Not equal: a on X; b on Y."])
    assert "Not equal: a on X; b on Y." in found.notes
    for name, heading in (("report.html", "<h2"), ("comparison.md", "\n## ")):
        assert "Not equal: a on X; b on Y." in (tmp_path / name).read_text().partition(heading)[0], name


def test_the_metric_that_is_asked_for_ranks(tmp_path):
    found = write(tmp_path, contestants({"a": 0.8, "b": 0.7}), metric="hd95_mm")
    assert found.primary.column.key == "hd95_mm"
    assert "Ranked by HD95 (mm)" in (tmp_path / "report.html").read_text()
    with (tmp_path / "pairs.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["metric"] == "hd95_mm"


def test_a_metric_that_not_all_have_is_refused(tmp_path):
    found = [
        Contestant(name="a", runs={"0": drawn(0.8)}),
        Contestant(name="b", runs={"0": drawn(0.7).only(drawn(0.7).columns[:1])}),
    ]
    with pytest.raises(ConfigError, match=r"not all contestants were scored by hd95_mm\. What all have: dice\."):
        write(tmp_path, found, metric="hd95_mm")
    with pytest.raises(ConfigError, match="scored by surface_dice"):
        write(tmp_path, found, settings=CompareSettings(margins={"surface_dice": 0.1}))


def test_without_any_scores_every_reason_is_named(tmp_path):
    found = [Contestant(name="a", runs={}, fault="diverged"), Contestant(name="b", runs={}, fault="killed")]
    with pytest.raises(DataError, match=r"no contestant has scores.*\n- a: diverged\n- b: killed"):
        write(tmp_path, found)


def test_missing_predictions_are_refused_unless_it_is_said_what_they_count_as(tmp_path):
    found = [Contestant(name="a", runs={"0": drawn(0.8, num=12)}), Contestant(name="b", runs={"0": drawn(0.7, num=10)})]
    with pytest.raises(DataError, match="b has no prediction of 2 cases that others have: case_10, case_11"):
        write(tmp_path, found)
    assert write(tmp_path, found, settings=CompareSettings(resamples=200, missing="leave-out")).primary.num_cases == 10
    worst = CompareSettings(resamples=200, missing="worst")
    assert write(tmp_path, found, settings=worst).primary.num_cases == 12


def test_the_report_does_not_wait_for_torch():
    script = "import voxelseg.report.comparison, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
