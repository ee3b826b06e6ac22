from dataclasses import replace

import pytest
from scored import evaluation

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.patients import are_own, patients_of, read_patients
from voxelseg.errors import DataError


def contestant(*cases, name="a", patients=None, **more):
    scores = replace(evaluation(dict.fromkeys(cases, (0.5, 0.5))), patients=patients or {})
    return Contestant(name=name, runs={"0": scores}, **more)


def test_a_name_says_whose_a_case_is_if_nobody_else_does():
    assert patients_of([contestant("sub-1_ses-1", "x")]) == {"sub-1_ses-1": "sub-1", "x": "x"}


def test_what_the_scores_say_goes_before_the_name():
    found = contestant("sub-1_ses-1", "x", patients={"sub-1_ses-1": "Ann"})
    assert patients_of([found]) == {"sub-1_ses-1": "Ann", "x": "x"}


def test_scores_that_were_not_told_leave_it_to_others():
    """A data set without a table of patients calls each as its case, and so do the scores of a training on it."""
    untold, told = contestant("x", name="a", patients={"x": "x"}), contestant("x", name="b", patients={"x": "Ann"})
    for order in ([untold, told], [told, untold]):
        assert patients_of(order) == {"x": "Ann"}
    assert patients_of([told], dataset={"x": "x"}) == {"x": "Ann"}


def test_a_data_set_goes_before_the_scores_and_may_lack_cases():
    found = contestant("x", "y", "sub-1_a", patients={"x": "Ann", "y": "Ann"})
    assert patients_of([found], dataset={"x": "Bob"}) == {"x": "Bob", "y": "Ann", "sub-1_a": "sub-1"}


def test_scores_that_contradict_each_other_are_refused_unless_the_data_set_decides():
    both = [contestant("x", name="a", patients={"x": "Ann"}), contestant("x", name="b", patients={"x": "Bob"})]
    with pytest.raises(DataError, match=r"different patients: x is of Ann for a and of Bob for b.*--patients"):
        patients_of(both)
    assert patients_of(both, dataset={"x": "Eve"}) == {"x": "Eve"}
    assert patients_of(both, {"x": "Eve"}) == {"x": "Eve"}


def test_cases_are_their_own_patients_if_nobody_says_anything_else():
    assert are_own(patients_of([contestant("x", "y")]))
    assert not are_own(patients_of([contestant("sub-1_a", "y")]))
    assert not are_own(patients_of([contestant("x")]))  # of a single case it need not be said


def test_a_table_goes_before_all_and_knows_cases_by_their_ids():
    held_out_twice = contestant("x (fold 0)", "x (fold 1)", origins={"x (fold 0)": "x", "x (fold 1)": "x"})
    assert patients_of([held_out_twice], {"x": "Bob"}) == {"x (fold 0)": "Bob", "x (fold 1)": "Bob"}


def test_a_table_may_name_a_case_as_the_scores_do():
    held_out_twice = contestant("x (fold 0)", origins={"x (fold 0)": "x"})
    assert patients_of([held_out_twice], {"x (fold 0)": "Bob"}) == {"x (fold 0)": "Bob"}


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
