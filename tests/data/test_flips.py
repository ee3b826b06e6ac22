import numpy as np
import pytest

from voxelseg.data.flips import SCAN_CENTRE, Flip, other_side, suspected_flips


def positions(offsets, names=("liver", "spleen")):
    """Cases whose second class lies `offset` mm right of the first; the scan's centre is in the first."""
    return {
        f"case_{i:02d}": {names[0]: 10.0, names[1]: 10.0 + offset, SCAN_CENTRE: 10.0}
        for i, offset in enumerate(offsets)
    }


def flips(offsets, names=("liver", "spleen"), spacing_mm=1.0):
    return suspected_flips(positions(offsets, names), names, spacing_mm=spacing_mm, width_mm=400.0)


def test_one_case_against_nine_is_suspected():
    assert flips([-50, -55, -45, -60, 52, -50, -48, -51, -47, -53]) == [Flip("case_04", ("liver", "spleen"), 1, 10)]


def test_no_case_is_suspected_when_sides_are_mixed():
    assert flips([50, -50] * 10) == []


def test_two_odd_cases_among_ten_are_no_mistake():
    assert flips([-50, -55, 45, -60, 52, -50, -48, -51, -47, -53]) == []


def test_fewer_than_ten_cases_are_not_judged():
    assert flips([50] * 8 + [-50]) == []


def test_classes_closer_than_four_voxels_are_not_judged():
    assert flips([3.0] * 11 + [-3.0]) == []
    assert len(flips([3.0] * 11 + [-3.0], spacing_mm=0.5)) == 1


def test_a_widely_varying_order_is_not_judged():
    assert flips([5, 80, 10, 60, 8, 90, 4, 70, 12, 75, 6, -60]) == []


def test_a_slight_crossing_is_no_flip():
    assert flips([50] * 11 + [-10]) == []


def test_most_pairs_must_agree():
    offsets = {"a": [50] * 11 + [-50], "b": [60] * 12, "c": [70] * 12}
    cases = {
        f"{i:02d}": {"base": 0.0, **{name: float(values[i]) for name, values in offsets.items()}} for i in range(12)
    }
    # the last case disagrees on a alone: (base, a) is odd, but (base, b) and (base, c) are not
    assert suspected_flips(cases, ["base", "a", "b", "c"], spacing_mm=1.0, width_mm=400.0) == []


def test_absent_classes_are_left_out():
    given = positions([-50] * 10 + [50])
    del given["case_10"]["spleen"]
    assert suspected_flips(given, ["liver", "spleen"], spacing_mm=1.0, width_mm=400.0) == []


def test_names_tell_the_sides_even_in_few_cases():
    names = ("kidney_left", "kidney_right")
    assert flips([80, 85, -82], names) == [Flip("case_02", names, 1, 3)]
    assert flips([-80, -85, 82], names) == [Flip("", names, 2, 3)]
    assert flips([-80], names) == [Flip("", names, 1, 1)]


def test_order_of_the_names_does_not_matter():
    names = ("right lung", "left lung")
    assert flips([-80, -85, 82], names) == [Flip("case_02", ("left lung", "right lung"), 1, 3)]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Left_Kidney", "right_kidney"),
        ("hip_R", "hip_l"),
        ("LeftAtrium", "rightatrium"),
        ("liver", "liver"),
        ("rl", "rl"),
    ],
)
def test_other_side(name, other):
    assert other_side(name) == other


def test_random_sides_rarely_raise_suspicion():
    rng = np.random.default_rng(0)
    wrong = sum(bool(flips(50 * rng.choice([-1, 1], size=10))) for _ in range(500))
    assert wrong / 500 < 0.04  # 2 * 10 / 2**10 = 0.02 expected


def test_no_case_gives_no_suspicion():
    assert suspected_flips({}, ["liver", "spleen"], spacing_mm=1.0, width_mm=400.0) == []


def around_centre(offsets, *, width_mm=400.0):
    """Flips suspected in a data set with one class, `offset` mm right of the scan's centre."""
    positions_mm = {f"case_{i:02d}": {"liver": 10.0 + offset, SCAN_CENTRE: 10.0} for i, offset in enumerate(offsets)}
    return suspected_flips(positions_mm, ["liver"], spacing_mm=1.0, width_mm=width_mm)


def test_a_single_class_is_compared_with_the_centre_of_the_scan():
    assert around_centre([-50, -55, -45, -60, 52, -50, -48, -51, -47, -53]) == [
        Flip("case_04", (SCAN_CENTRE, "liver"), 1, 10)
    ]


def test_a_class_near_the_centre_of_the_scan_is_not_judged():
    offsets = [35.0] * 11 + [-35.0]  # 40 mm are a tenth of 400 mm
    assert around_centre(offsets) == []
    assert len(around_centre(offsets, width_mm=300.0)) == 1


def test_a_lesion_on_either_side_is_not_judged():
    assert around_centre([60, -70, 50, 55, -65, 80, -40, 75, -60, 58]) == []


def test_the_centre_is_not_asked_where_two_classes_agree():
    # spleen and liver agree in all cases; in the last one the field of view is shifted by 120 mm
    positions_mm = {
        f"case_{i:02d}": {"liver": 50.0, "spleen": -70.0, SCAN_CENTRE: 0.0 if i < 11 else 120.0} for i in range(12)
    }
    assert suspected_flips(positions_mm, ["liver", "spleen"], spacing_mm=1.0, width_mm=400.0) == []
