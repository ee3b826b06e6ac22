import csv
import json

import numpy as np
import pytest
from rich.console import Console
from scored import drawn

from voxelseg import commands
from voxelseg.commands.comparing import comparison_table
from voxelseg.errors import BusyError, ConfigError, DataError
from voxelseg.files import locked
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.volume import Volume

SHAPE = (5, 9, 14)


def label_map(shift):
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:7, 1 + shift : 6 + shift] = 1
    return found


def save(path, array):
    d, h, w = array.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(array[None], Grid(shape_ijk=(w, h, d), affine_ijk=np.diag([0.9, 1.1, 4.0, 1.0]))))


@pytest.fixture
def tools(tmp_path):
    """References of eight cases, and label maps of two tools, the second one worse."""
    for case in range(8):
        for folder, shift in (("references", 0), ("good", case % 2), ("bad", 2 + case % 3)):
            save(tmp_path / folder / f"case_{case}.nii.gz", label_map(shift))
    return tmp_path


def test_label_maps_of_tools_are_scored_and_compared(tools, capsys):
    console = Console(stderr=True, width=200)
    found = commands.compare(
        [str(tools / "good"), f"worse={tools / 'bad'}"],
        tools / "out",
        reference=tools / "references",
        margin=["0.01", "hd95_mm=0.5"],
        workers=1,
        console=console,
    )
    assert found.contestants == ("good", "worse")
    # 15 voxels, half of the cases moved by one of 5: Dice 1 and 0.8, 0.9 on average.
    assert found.primary.standing("good").mean == pytest.approx(0.9)
    assert found.primary.pair("good", "worse").verdict == "better"
    assert (found.settings.margin, found.settings.margins) == (0.01, {"hd95_mm": 0.5})
    assert "Wrote" in capsys.readouterr().err
    assert (tools / "out" / "report.html").is_file()


def test_scores_are_compared_over_the_patients_of_a_table(tmp_path):
    for place, name in enumerate("ab"):
        drawn(0.8, num=6, seed=place).write(tmp_path / name)
    with (tmp_path / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "patient"), *((f"case_{one:02}", f"p{one % 3}") for one in range(6))])
    texts = [str(tmp_path / name) for name in "ab"]
    found = commands.compare(texts, tmp_path / "out", patients=tmp_path / "patients.csv")
    assert (found.primary.num_cases, found.primary.num_patients) == (6, 3)


def pairs_of_scans(tools):
    """Say in the description above the references that each two cases are of one patient."""
    patients = {f"case_{case}": f"p{case // 2}" for case in range(8)}
    content = {"labels": {"background": 0, "organ": 1}, "patients": patients}
    (tools / "dataset.json").write_text(json.dumps(content))


def test_patients_of_the_description_beside_the_references_reach_the_statistics(tools):
    pairs_of_scans(tools)
    texts = [str(tools / name) for name in ("good", "bad")]
    found = commands.compare(texts, tools / "out", reference=tools / "references", workers=1)
    assert (found.primary.num_cases, found.primary.num_patients) == (8, 4)


def test_patients_go_with_the_scores_that_evaluate_writes(tools):
    pairs_of_scans(tools)
    for name in ("good", "bad"):
        commands.evaluate(tools / name, tools / "references", tools / "scores" / name, workers=1)
    (tools / "dataset.json").unlink()
    texts = [str(tools / "scores" / name) for name in ("good", "bad")]
    found = commands.compare(texts, tools / "out")
    assert (found.primary.num_cases, found.primary.num_patients) == (8, 4)
    assert "taken for a patient of its own" not in (tools / "out" / "report.html").read_text()


def test_that_nobody_said_whose_the_cases_are_is_told_once(tools, capsys):
    texts = [str(tools / name) for name in ("good", "bad")]
    console = Console(stderr=True, width=200)
    commands.compare(texts, tools / "out", reference=tools / "references", workers=1, console=console)
    for file in ("report.html", "comparison.md"):
        assert (tools / "out" / file).read_text().count("Every case is taken for a patient of its own.") == 1
    assert "If some are of one patient, say so: --patients" in capsys.readouterr().err


def test_cases_that_the_data_set_lacks_are_said_and_keep_the_patients_of_their_names(tmp_path):
    for case in ("case_00", "case_01"):
        for folder in ("images", "labels"):
            save(tmp_path / "data" / folder / f"{case}.nii.gz", label_map(0))
    for place, name in enumerate("ab"):
        drawn(0.8, num=4, seed=place).write(tmp_path / name)
    found = commands.compare([str(tmp_path / name) for name in "ab"], tmp_path / "out", data=tmp_path / "data")
    assert found.primary.num_patients == 4
    (note,) = (note for note in found.notes if "--data" in note)
    assert "data (--data) does not have case_02, case_03" in note


def test_the_table_for_the_terminal_has_the_answer(tmp_path):
    for place, name in enumerate("ab"):
        drawn(0.8 - 0.1 * place, num=12, seed=place).write(tmp_path / name)
    found = commands.compare([str(tmp_path / name) for name in "ab"], tmp_path / "out")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(comparison_table(found))
    text = capture.get()
    assert "Dice of 12 cases" in text
    assert "a is better than b: Dice +0." in text
    assert "worse" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"margin": ["x"]}, "margin 'x': expected a number"),
        ({"margin": ["0.1", "0.2"]}, "margin '0.2': expected one number for all ratios"),
        ({"margin": ["=0.2"]}, "margin '=0.2'"),
        ({"margin": ["dicee=0.1"]}, "no metric 'dicee'"),
        ({"margin": ["-1"]}, "must be a positive number"),
        ({"metric": "dise"}, "no metric 'dise'"),
        ({"missing": "guess"}, "missing must be one of refuse, worst, leave-out"),
        ({"tolerance_mm": [1.0, 1.0]}, "tolerance_mm must be one number, or several different ones"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_scored(tools, more, message):
    with pytest.raises(ConfigError, match=message):
        commands.compare([str(tools / "good")], tools / "out", reference=tools / "references", **more)
    assert not (tools / "out").exists()


def test_nothing_to_compare_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to compare"):
        commands.compare([], tmp_path / "out")


def test_a_folder_that_another_process_holds_is_refused(tools):
    with locked(tools / "out"), pytest.raises(BusyError):
        commands.compare([str(tools / "good")], tools / "out", reference=tools / "references")


def test_label_maps_that_cannot_be_scored_leave_the_folder_as_it_was(tools):
    commands.compare([str(tools / "good")], tools / "out", reference=tools / "references")
    before = json.loads((tools / "out" / "comparison.json").read_text())
    save(tools / "bad" / "case_3.nii.gz", np.full(SHAPE, 9, np.uint8))
    with pytest.raises(DataError, match=r"case_3\.nii\.gz: label values \[9\]"):
        commands.compare([str(tools / "bad")], tools / "out", reference=tools / "references")
    assert json.loads((tools / "out" / "comparison.json").read_text()) == before
