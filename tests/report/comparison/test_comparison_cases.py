from dataclasses import replace

import numpy as np
import pytest
from scored import contestants

from voxelseg.compare.comparison import compare
from voxelseg.compare.scores import score_tables
from voxelseg.compare.settings import CompareSettings
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.evaluate.held_out import CaseFiles
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.report.comparison.cases import cases_section
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
SHAPE = (5, 9, 11)


def save(path, array):
    d, h, w = array.shape
    write_volume(path, Volume(array[None], Grid(shape_ijk=(w, h, d), affine_ijk=np.diag([0.9, 1.1, 4.0, 1.0]))))
    return path


def label_map(shift):
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:7, 1 + shift : 6 + shift] = 1
    found[1:4, 2:7, 6 + shift : 8 + shift] = 2
    return found


@pytest.fixture
def with_files(tmp_path, make_material):
    """Material of two contestants whose label maps of every case are there."""
    label = save(tmp_path / "label.nii.gz", label_map(0))
    scan = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    found = []
    for shift, one in enumerate(contestants({"a": 0.8, "b": 0.7}, num=10, labels=LABELS), start=1):
        prediction = save(tmp_path / f"{one.name}.nii.gz", label_map(shift))
        files = dict.fromkeys(one.cases, CaseFiles((scan,), label, prediction))
        found.append(replace(one, files=files))
    return make_material(found)


def test_the_worst_cases_of_the_best_are_listed_worst_first(material):
    section = cases_section(material)
    worst, apart = section.tables
    place = worst.headings.index(material.best.name)
    scores = [float(row[place].text) for row in worst.rows]
    assert scores == sorted(scores)
    assert len(scores) == 8
    assert worst.hint == "4 more cases in scores.csv."
    ranges = [np.ptp([float(cell.text) for cell in row[1:]]) for row in apart.rows]
    assert ranges[0] == max(ranges)


def test_without_files_there_are_no_pictures_and_it_is_said_why(material):
    section = cases_section(material)
    assert section.pictures == ()
    assert "only scores were compared" in section.remarks[0]


def test_contestants_are_shown_on_the_same_slices(with_files):
    pictures = cases_section(with_files).pictures
    worst = [one for one in pictures if one.title.startswith("Worst case of a: ")]
    assert [one.title.rpartition(", ")[2] for one in worst] == ["a", "b"]
    places = [[view.caption.partition(",")[0] for view in one.views] for one in worst]
    assert places[0] == places[1]
    assert [view.name for view in worst[0].views] == ["axial", "coronal", "sagittal"]


def test_scans_are_shown_only_if_they_may_be(with_files):
    section = cases_section(replace(with_files, with_pictures=False))
    assert (section.pictures, section.sentences, section.remarks) == ((), (), ())


def test_a_file_that_is_gone_is_named_in_place_of_the_pictures(with_files, tmp_path):
    (tmp_path / "b.nii.gz").unlink()
    pictures = cases_section(with_files).pictures
    assert all(one.views == () for one in pictures)
    assert "b.nii.gz: file not found" in pictures[0].fault


def test_a_contestant_without_files_is_named(with_files):
    a, b = with_files.contestants
    found = cases_section(replace(with_files, contestants=[a, replace(b, files={})])).pictures
    assert found[0].fault == "Where the label maps of b lie is not known: their scores came alone."


@pytest.fixture
def with_missing(make_material):
    """b, the best, has no prediction of case_05 in either run, and none of case_07 in one."""
    a, b = contestants({"a": 0.6, "b": 0.9})
    runs = {
        seed: replace(run, scores=tuple(one for one in run.scores if one.case not in ("case_05", lacks)))
        for (seed, run), lacks in zip(b.runs.items(), ("case_05", "case_07"), strict=True)
    }
    return make_material([a, replace(b, runs=runs)], missing="worst")


def test_a_missing_prediction_is_listed_with_what_it_counts_as(with_missing):
    worst, apart = cases_section(with_missing).tables
    assert with_missing.best.name == "b"
    first, second, *_ = worst.rows
    assert (first[0].text, first[1].text) == ("case_05", "0.000, no prediction")
    whole = with_missing.compared["b"].runs["0"].case_means("dice")["case_07"]
    assert (second[0].text, second[1].text) == ("case_07", f"{whole / 2:.3f}, no prediction in 1 of 2 runs")
    assert apart.rows[0][0].text == "case_05"
    listed = [with_missing.primary.case_means["b"][f"case_{place:02}"] for place in range(12)]
    assert np.mean(listed) == pytest.approx(with_missing.best.mean)


def test_in_place_of_the_picture_of_a_missing_prediction_that_is_said(with_files):
    a, b = with_files.contestants
    runs = {
        seed: replace(run, scores=tuple(one for one in run.scores if one.case != "case_05"))
        for seed, run in a.runs.items()
    }
    lacking = replace(a, runs=runs, files={case: one for case, one in a.files.items() if case != "case_05"})
    tables = score_tables({"a": lacking.runs, "b": b.runs})
    comparison = compare(tables, CompareSettings(resamples=200, missing="worst"))
    found = replace(with_files, comparison=comparison, scores=tables, contestants=[lacking, b])
    pictures = {one.title: one for one in cases_section(found).pictures}
    assert found.best.name == "a"
    assert pictures["Worst case of a: case_05, a"].fault == "a has no prediction of case_05."
    assert pictures["Worst case of a: case_05, b"].views


def test_patients_are_shown_where_cases_are_not_patients(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, num=10)
    patients = {case: f"p{place // 2}" for place, case in enumerate(found[0].cases)}
    assert cases_section(make_material(found, patients=patients)).tables[0].headings == ("Case", "Patient", "a", "b")


def test_a_single_contestant_is_in_no_disagreement(make_material):
    (table,) = cases_section(make_material(contestants({"a": 0.8}))).tables
    assert table.title == "Worst cases of a: Dice"
