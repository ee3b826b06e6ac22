import json
from dataclasses import replace
from pathlib import Path

import pytest

from voxelseg.data import Case, make_splits, read_dataset, read_splits, splits_of
from voxelseg.data.splits import possible_folds, wanted_folds, write_splits
from voxelseg.errors import DataError


def cases(*ids, patients=None, folds=None):
    return [
        Case(
            name,
            (Path(f"{name}.nii.gz"),),
            patient=(patients or {}).get(name, ""),
            fold=(folds or {}).get(name),
        )
        for name in ids
    ]


def numbered(count):
    return cases(*(f"case_{number:03d}" for number in range(count)))


def test_every_case_is_held_out_once_and_trained_on_otherwise():
    some = numbered(23)
    splits = make_splits(some)
    assert sorted(len(split.validation) for split in splits) == [4, 4, 5, 5, 5]
    assert sorted(one for split in splits for one in split.validation) == [case.id for case in some]
    for split in splits:
        assert sorted(split.train + split.validation) == [case.id for case in some]


def test_folds_depend_on_the_seed_and_not_on_the_order_of_cases():
    some = numbered(23)
    assert make_splits(some) == make_splits(some[::-1])
    assert make_splits(some) != make_splits(some, seed=1)


def test_cases_of_one_patient_share_a_fold():
    some = cases(*(f"patient{p:03d}_frame{f:02d}" for p in range(16) for f in (1, 12)))
    for split in make_splits(some):
        assert not {one[:10] for one in split.train} & {one[:10] for one in split.validation}
        assert len(split.validation) in (6, 8)  # 16 patients of two cases: 3 or 4 patients to a fold


def test_patients_with_many_cases_do_not_make_a_fold_too_large():
    patients = {f"c{i}": "big" for i in range(6)} | {f"c{i}": f"p{i}" for i in range(6, 12)}
    splits = make_splits(cases(*patients, patients=patients), num_folds=2)
    assert [len(split.validation) for split in splits] == [6, 6]


def test_given_folds_are_kept_and_the_rest_fills_up():
    some = cases("a", "b", "c", "d", "e", folds={"a": 1, "b": 1})
    splits = make_splits(some, num_folds=2)
    assert {"a", "b"} <= set(splits[1].validation)
    assert sorted(len(split.validation) for split in splits) == [2, 3]


def test_a_given_fold_takes_all_cases_of_the_patient():
    some = cases("a", "b", "c", patients={"a": "anna", "b": "anna"}, folds={"a": 0})
    assert make_splits(some, num_folds=2)[0].validation == ("a", "b")


def test_folds_given_to_every_case_set_their_number():
    some = cases("a", "b", "c", folds={"a": 0, "b": 1, "c": 2})
    assert [split.validation for split in make_splits(some)] == [("a",), ("b",), ("c",)]
    assert possible_folds(some, 5) == (3, "the cases' own folds number 3")


def test_fewer_patients_than_folds_give_as_many_folds_as_patients():
    assert len(make_splits(cases("a", "b"))) == 2
    assert possible_folds(cases("a", "b"), 5) == (2, "2 patients allow no more than 2 folds")
    assert possible_folds(numbered(5), 5) == (5, "")


def test_fewer_patients_than_folds_of_which_some_are_given():
    # a and b are held out together, so three patients make two folds
    some = cases("a", "b", "c", folds={"a": 0, "b": 0})
    assert [split.validation for split in make_splits(some)] == [("a", "b"), ("c",)]


@pytest.mark.parametrize(
    ("some", "num_folds", "words"),
    [
        (cases("a"), 5, "1 case: training needs a held-out case"),
        ([], 5, "0 case: training needs"),
        (cases("a", "b", patients={"a": "anna", "b": "anna"}), 5, "2 cases of one patient.*'patients' table"),
        (cases("a", "b"), 1, "at least 2"),
        (cases("a", "b", folds={"a": 7}), 5, "asks for fold 7"),
        (cases("a", "b", folds={"a": 0, "b": 0}), 5, "every case is in fold 0"),
        (cases("a", "b", folds={"a": 1, "b": 2}), 5, "no case is held out in fold 0.*Number the folds from 0"),
        (cases("a", "b", "c", patients={"a": "p", "b": "p"}, folds={"a": 0, "b": 1}), 5, "patient p is in folds 0, 1"),
    ],
)
def test_impossible_folds_are_refused(some, num_folds, words):
    with pytest.raises(DataError, match=words):
        make_splits(some, num_folds=num_folds)


def test_written_folds_are_read_again(tmp_path):
    some = numbered(7)
    splits = make_splits(some)
    write_splits(tmp_path / "splits.json", splits)
    assert read_splits(tmp_path / "splits.json", some) == splits


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "not valid JSON"),
        ("{}", "expected a list of folds"),
        ("[]", "expected a list of folds"),
        ('[{"train": ["a"]}]', "expected a list of folds"),
        ('[{"train": ["a"], "val": [3]}]', "expected a list of folds"),
        ('[{"train": ["a"], "val": []}]', "fold 0 has no case under 'val'"),
        ('[{"train": ["a", "a"], "val": ["b"]}]', "names cases twice under 'train': a"),
        ('[{"train": ["a", "x"], "val": ["b"]}]', "unknown cases: x"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "same cases: b"),
        ('[{"train": ["a"], "val": ["b", "d"]}, {"train": ["b"], "val": ["c"]}]', "fold 1 .* same patients: pair"),
    ],
)
def test_wrong_split_files_are_refused(tmp_path, content, words):
    some = cases("a", "b", "c", "d", patients={"b": "pair", "c": "pair"})
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match=words):
        read_splits(tmp_path / "splits.json", some)


def test_all_faults_of_a_split_file_are_named_at_once(tmp_path):
    (tmp_path / "splits.json").write_text('[{"train": ["a", "x"], "val": ["a"]}, {"train": [], "val": ["b"]}]')
    with pytest.raises(DataError, match=r"unknown cases: x.*same cases: a.*no case under 'train'"):
        read_splits(tmp_path / "splits.json", cases("a", "b"))


def test_a_data_set_s_own_split_file_goes_before_the_draw(tiny):
    data = tiny(4)
    dataset = read_dataset(data.root)
    assert len(splits_of(dataset)) == 4
    fold = {"train": data.ids[:2], "val": data.ids[2:]}
    (data.root / "splits_final.json").write_text(json.dumps([fold]))
    assert splits_of(dataset)[0].validation == ("case_02", "case_03")


def test_folds_of_real_patients_do_not_mix(shared_data):
    dataset = read_dataset(shared_data / "Dataset027_ACDC")
    patient = {case.id: case.patient for case in dataset.cases}
    assert len(set(patient.values())) == 16
    for split in splits_of(dataset):
        assert not {patient[one] for one in split.train} & {patient[one] for one in split.validation}
    assert splits_of(replace(dataset, cases=dataset.cases[::-1])) == splits_of(dataset)


def test_more_folds_than_usual_are_drawn_where_cases_ask_for_them(tiny):
    folds = {f"case_{number:03d}": number for number in range(10)}
    some = cases(*(f"case_{number:03d}" for number in range(12)), folds=folds)
    dataset = replace(read_dataset(tiny(4).root), cases=tuple(some))
    splits = splits_of(dataset)
    assert len(splits) == 10
    assert all(f"case_{number:03d}" in splits[number].validation for number in range(10))
    assert len(splits_of(replace(dataset, cases=tuple(numbered(12))))) == 5


def test_a_date_in_the_place_of_a_fold_is_refused():
    some = cases("a", "b", "c", folds={"a": 20230101, "b": 0, "c": 0})
    with pytest.raises(DataError, match="asks for fold 20230101, but 3 cases make 3 folds at most"):
        make_splits(some, num_folds=wanted_folds(some))
