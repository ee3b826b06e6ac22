import os
from pathlib import Path

import pytest
from scored import drawn

from voxelseg.compare.contestants import Contestant, read_contestants
from voxelseg.errors import ConfigError


@pytest.fixture
def scored(tmp_path):
    """Folders of scores: a/seed_0, a/seed_1, b/seed_0 and b/validation."""
    folders = {}
    for place, name in enumerate(("a/seed_0", "a/seed_1", "b/seed_0", "b/validation")):
        folders[name] = tmp_path / name
        drawn(0.8 + 0.01 * place, num=3, seed=place).write(folders[name])
    return folders


def names(*texts):
    return [one.name for one in read_contestants([str(text) for text in texts])]


def test_a_contestant_is_called_after_its_folder(scored):
    assert names(scored["a/seed_0"], scored["a/seed_1"]) == ["seed_0", "seed_1"]


def test_as_many_folders_above_are_named_as_tell_all_apart(scored):
    assert names(scored["a/seed_0"], scored["b/seed_0"], scored["a/seed_1"]) == ["a/seed_0", "b/seed_0", "seed_1"]


def test_folders_that_everybody_has_do_not_name_one(scored):
    assert names(scored["b/validation"]) == ["b"]


def test_scores_after_a_postprocessing_are_called_after_their_run(tmp_path):
    for run in ("a", "b"):
        drawn(0.8, num=2).write(tmp_path / run / "cross_validation" / "postprocessed")
    assert names(*(tmp_path / run / "cross_validation" / "postprocessed" for run in ("a", "b"))) == ["a", "b"]


def test_what_lies_in_one_run_is_told_apart_by_the_folders_in_it(tmp_path):
    before = tmp_path / "a" / "cross_validation"
    after = before / "postprocessed"
    for folder in (before, after):
        drawn(0.8, num=2).write(folder)
    assert names(before, after) == ["a/cross_validation", "a/cross_validation/postprocessed"]
    assert names(f"before={before}", after) == ["before", "a"]


def test_several_seeds_are_called_after_what_their_paths_have_in_common(scored):
    (found,) = read_contestants([f"{scored['a/seed_0']},{scored['a/seed_1']}"])
    assert (found.name, list(found.runs)) == ("a", ["0", "1"])


def test_a_name_may_be_given(scored):
    (found,) = read_contestants([f" Our best={scored['a/seed_0']}"])
    assert found.name == "Our best"


def test_a_path_may_hold_the_signs_that_divide(tmp_path):
    folder = tmp_path / "lr=0.1,wd=0"
    drawn(0.8, num=2).write(folder)
    assert names(folder) == ["lr=0.1,wd=0"]
    assert names(f"A={folder}") == ["A"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "no folder nowhere"),
        ("A=", "no folder is given"),
        ("=x", "before the first '='"),
        ("a\tb=x", "printable"),
        (f"{'n' * 81}=x", "1 to 80"),
    ],
)
def test_what_names_no_folder_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read_contestants([text])


def test_what_is_given_twice_is_refused(scored):
    a, b = scored["a/seed_0"], scored["b/seed_0"]
    with pytest.raises(ConfigError, match=r"given twice: .*seed_0\. Give each contestant once"):
        read_contestants([str(a), str(a)])
    with pytest.raises(ConfigError, match="several contestants are called X"):
        read_contestants([f"X={a}", f"X={b}"])
    with pytest.raises(ConfigError, match="Each seed counts once"):
        read_contestants([f"X={a},{a}"])


def test_cases_of_all_runs_are_those_of_a_contestant():
    runs = {"0": drawn(0.8, num=2), "1": drawn(0.8, num=3)}
    assert Contestant(name="a", runs=runs).cases == ("case_00", "case_01", "case_02")


@pytest.mark.parametrize("text", ["x" * 5000, f"name={'x' * 5000}", "a\0b"])
def test_what_could_be_no_path_is_no_folder(text):
    with pytest.raises(ConfigError, match="no folder"):
        read_contestants([text])


def test_a_file_is_no_folder(scored):
    with pytest.raises(ConfigError, match=r"no folder .*cases\.csv"):
        read_contestants([str(scored["a/seed_0"] / "cases.csv")])


def test_a_folder_whose_name_is_no_text_is_called_by_marks(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run_\xff"))
    drawn(0.8, num=3).write(folder)
    assert names(folder) == ["run_\ufffd"]
