import pytest

from voxelseg.data.convert.folds import fixed_split, nnunet_folds
from voxelseg.data.convert.public import HeldOut
from voxelseg.data.splits import Split

IDS = [f"case_{number:02d}" for number in range(12)]


def test_twelve_cases_are_divided_as_nnunet_does():
    # RandomState(12345) puts 0 to 11 into the order 8 0 3 | 7 11 10 | 6 9 | 4 1 | 5 2: 12 = 3 + 3 + 2 + 2 + 2
    expected = [(0, 3, 8), (7, 10, 11), (6, 9), (1, 4), (2, 5)]
    folds = nnunet_folds(list(reversed(IDS)))
    assert [fold.validation for fold in folds] == [tuple(IDS[number] for number in part) for part in expected]
    for fold in folds:
        assert fold.train == tuple(one for one in IDS if one not in fold.validation)


@pytest.mark.parametrize("count", [5, 30, 201])
def test_folds_are_those_of_scikit_learn(count):
    selection = pytest.importorskip("sklearn.model_selection")
    ids = [f"img{number:04d}" for number in range(count)]
    theirs = selection.KFold(n_splits=5, shuffle=True, random_state=12345).split(ids)
    ours = nnunet_folds(ids)
    for fold, (train, validation) in zip(ours, theirs, strict=True):
        assert fold == Split(tuple(ids[i] for i in train), tuple(ids[i] for i in validation))


def test_a_fixed_division_leaves_unused_cases_out():
    division = HeldOut(name="paper", validation=("case_03", "case_09"), unused=("case_00",), about="Table 1.")
    found = fixed_split(IDS, division)
    assert found is not None
    assert found.validation == ("case_03", "case_09")
    assert found.train == tuple(one for one in IDS if one not in ("case_00", "case_03", "case_09"))


def test_a_fixed_division_needs_cases_on_both_sides():
    division = HeldOut(name="paper", validation=("case_03",), about="Table 1.")
    assert fixed_split(["case_01", "case_02"], division) is None
    assert fixed_split(["case_03"], division) is None
