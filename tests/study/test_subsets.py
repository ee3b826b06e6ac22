import pytest

from voxelseg.data.dataset import Case
from voxelseg.errors import ConfigError
from voxelseg.study.subsets import check_shares, nested_subsets, patient_order, patients_of_share

ALL = frozenset({"ball", "rod"})


def cases_of(num_patients, scans_each=1):
    return [
        Case(f"p{patient:02d}_{scan}", (), patient=f"p{patient:02d}")
        for patient in range(num_patients)
        for scan in range(scans_each)
    ]


def test_smaller_shares_lie_within_larger_ones_and_patients_stay_together():
    cases = cases_of(8, scans_each=2)
    found = nested_subsets(cases, {case.id: ALL for case in cases}, (10, 25, 100), seed=3)
    sets = [set(found[share].cases) for share in (10, 25, 100)]
    assert [len(one) for one in sets] == [2, 4, 16]  # 0.8, 2 and 8 patients of two scans
    assert sets[0] < sets[1] < sets[2]
    patients = {case.split("_")[0] for case in found[25].cases}
    assert set(found[25].cases) == {f"{patient}_{scan}" for patient in patients for scan in range(2)}
    assert found[25].num_patients == 2


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_cases():
    cases = cases_of(20)
    classes_of = {case.id: ALL for case in cases}
    draws = [nested_subsets(cases, classes_of, (25,), seed)[25].cases for seed in range(4)]
    assert len(set(draws)) == 4
    assert nested_subsets(cases[::-1], classes_of, (25,), 2)[25].cases == draws[2]


def test_the_first_patients_have_each_class_where_that_is_possible():
    classes = {f"p{number}": frozenset({"ball"}) for number in range(9)} | {"rare": frozenset({"rod"})}
    for seed in range(5):
        assert "rare" in patient_order(classes, seed)[:2]
        assert sorted(patient_order(classes, seed)) == sorted(classes)


def test_if_everyone_has_each_class_the_order_is_the_drawn_one():
    classes = {f"p{number}": ALL for number in range(9)}
    firsts = {patient_order(classes, seed)[0] for seed in range(40)}
    assert len(firsts) > 5


def test_classes_that_too_few_patients_lack_are_named():
    cases = cases_of(4)
    classes_of = {case.id: {"ball"} if number else {"rod"} for number, case in enumerate(cases)}
    found = nested_subsets(cases, classes_of, (25, 50), seed=0)
    assert len(found[25].absent) == 1
    assert found[50].absent == ()


def test_shares_are_rounded_to_whole_patients():
    assert [patients_of_share(share, 166) for share in (5, 10, 25, 100)] == [8, 17, 42, 166]  # 8.3, 16.6, 41.5
    assert patients_of_share(5, 10) == 1  # 0.5, rounded up


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((5, 100), r"5 % of 4 training patients is less than half a patient.*The smallest share here is 13 %"),
        ((25, 30), "25 % and 30 % of 4 training patients are both 1"),
        ((0,), "share 0: expected percent"),
        ((101,), "share 101"),
    ],
)
def test_impossible_shares_are_refused(shares, message):
    with pytest.raises(ConfigError, match=message):
        check_shares(shares, 4)


def test_possible_shares_are_not():
    check_shares((5, 10, 25, 100), 16)
