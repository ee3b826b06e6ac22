from pathlib import Path

import pytest
from scored import evaluation

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.patients import patients_of, read_patients
from voxelseg.errors import DataError
from voxelseg.evaluate.held_out import CaseFiles


def contestant(*cases, **more):
    return Contestant(name="a", runs={"0": evaluation(dict.fromkeys(cases, (0.5, 0.5)))}, **more)


def test_a_name_says_whose_a_case_is_if_nobody_else_does():
    assert patients_of([contestant("sub-1_ses-1", "x")]) == {"sub-1_ses-1": "sub-1", "x": "x"}


def test_what_the_files_say_goes_before_the_name():
    files = {"sub-1_ses-1": CaseFiles((), Path("l"), Path("p"), "Ann")}
    assert patients_of([contestant("sub-1_ses-1", files=files)]) == {"sub-1_ses-1": "Ann"}


def test_a_table_goes_before_all_and_knows_cases_by_their_ids():
    held_out_twice = contestant("x (fold 0)", "x (fold 1)", origins={"x (fold 0)": "x", "x (fold 1)": "x"})
    assert patients_of([held_out_twice], {"x": "Bob"}) == {"x (fold 0)": "Bob", "x (fold 1)": "Bob"}


def test_cases_that_the_table_lacks_are_named():
    with pytest.raises(DataError, match="the patients of b, c are not given"):
        patients_of([contestant("a", "b", "c")], {"a": "A"})


def table(tmp_path, text):
    path = tmp_path / "patients.csv"
    path.write_text(text)
    return path


def test_a_table_of_patients_is_read(tmp_path):
    path = table(tmp_path, "patient,site,case\nA,1,a\n B ,1,b\nA,2,c\n")
    assert read_patients(path) == {"a": "A", "b": "B", "c": "A"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case;patient\na;A\n", r"found the columns \['case;patient'\], expected case and patient"),
        ("", r"found the columns \[\]"),
        ("case,patient\na,\n", "line 2 has case 'a' and patient ''"),
        ("case,patient\na,A\na,B\n", "line 3 has case 'a' and patient 'B', an earlier one patient 'A'"),
        ("case,patient\na\n", "line 2 has case 'a' and patient ''"),
    ],
)
def test_a_table_that_says_no_patient_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_patients(table(tmp_path, text))


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        read_patients(tmp_path / "none.csv")
