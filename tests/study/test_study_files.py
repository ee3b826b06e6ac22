import csv
import io
import json

import pytest
from rich.console import Console
from studies import design_of, finish

from voxelseg.study.figure import draw, write_figure
from voxelseg.study.results import collect
from voxelseg.study.tables import study_table, write_study


@pytest.fixture
def study(tmp_path):
    design = design_of(tmp_path)
    for share in (25.0, 100.0):
        for seed in (0, 1):
            finish(design, "scratch", share, seed, [0.5, 0.6, 0.7, 0.5, 0.6, 0.7])
            if (share, seed) != (100.0, 1):
                finish(design, "mae", share, seed, [0.55, 0.6, 0.8, 0.5, 0.65, 0.7])
    return collect(design, {"mae, 100 %, seed 1": "error: | broken |"})


def test_the_table_has_a_line_for_each_share_and_start(study):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(study_table(study))
    text = console.export_text()
    lines = [line for line in text.splitlines() if "│" in line]
    assert [line.split()[1] for line in lines] == ["25", "scratch", "mae", "100", "scratch", "mae"]
    assert "0.633  0.633" in lines[2]  # of both seeds: (0.55 + 0.6 + 0.8 + 0.5 + 0.65 + 0.7) / 6
    assert "mae and scratch cannot be told apart" in text
    assert "Failed: mae, 100 %, seed 1" in text


def test_names_and_shares_are_not_broken_in_a_narrow_terminal(tmp_path):
    design = design_of(tmp_path, starts=("masked-clusters",))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(study_table(collect(design, {})))
    text = console.export_text()
    assert "masked-clusters" in text
    assert "100 % (8 cases)" in text


def test_the_files_say_the_same(study, tmp_path):
    paths = write_study(study)
    assert [path.name for path in paths] == ["study.json", "table.csv", "cases.csv", "study.md"]
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["points"][1] == {
        "start": "mae",
        "share": 25.0,
        "dice": pytest.approx(3.8 / 6),
        "interval": record["points"][1]["interval"],
        "seeds": {"0": pytest.approx(3.8 / 6), "1": pytest.approx(3.8 / 6)},
    }
    assert [one["state"] for one in record["trainings"]].count("failed") == 1
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["start"] for row in rows] == ["scratch", "mae"] * 2
    assert float(rows[1]["difference"]) == pytest.approx(0.2 / 6)  # 0.05 + 0.1 + 0.05
    assert rows[0]["difference"] == ""
    cases = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert len(cases) == 7 * 6  # seven finished trainings
    assert cases[0]["dice"] == "0.5"
    text = (tmp_path / "study.md").read_text()
    assert "![Dice against the share of labels](figure.png)" in text
    assert "- 25 % of the labels (2 cases): mae and scratch cannot be told apart (+0.033" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| 25 % (")}
    assert len(widths) == 1


def test_the_figure_has_a_line_for_each_start_and_no_two_look_alike(study, tmp_path):
    paths = write_figure(study)
    assert [path.name for path in paths] == ["figure.png", "figure.svg"]
    assert all(path.stat().st_size > 5000 for path in paths)
    dice, against = draw(study).axes
    assert dice.get_legend_handles_labels()[1] == ["scratch", "mae"]
    looks = {(line.get_color(), line.get_marker()) for line in dice.lines if line.get_marker() in "os^Dv"}
    assert len(looks) == 2
    bars = [container.lines[0] for container in against.containers]
    assert [float(bar.get_ydata()[0]) for bar in bars] == pytest.approx([0.2 / 6, 0.2 / 6])  # one for each share
    assert [bar.get_markerfacecolor() for bar in bars] == ["white", "white"]  # neither is told apart


def test_a_study_in_which_a_start_has_nothing_yet_can_be_drawn(tmp_path):
    design = design_of(tmp_path, starts=("mae", "rubik", "simclr", "simmim", "clusters", "other", "eighth"))
    finish(design, "scratch", 25.0, 0, [0.5] * 6)
    assert len(write_figure(collect(design, {}))) == 2
