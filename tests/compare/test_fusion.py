import pytest

from voxelseg.compare.fusion import gains, gathered, place_of, proportions

FIRST = {
    "x[1,0]": {"forward": [10, 100], "up": [10, 100]},
    "x[1,1]": {"forward": [8, 80], "up": [8, 80], "down": [4, 40]},
    "x[2,0]": {"forward": [10, 100], "up": [10, 100]},
}
LAST = {
    "x[1,0]": {"forward": [15, 100], "up": [5, 100]},
    "x[1,1]": {"forward": [12, 80], "up": [5, 80], "down": [3, 40]},
    "x[2,0]": {"forward": [16, 100], "up": [4, 100]},
}


def test_a_node_is_placed_by_stage_and_level():
    assert place_of("x[2,13]") == (2, 13)


def test_proportions_are_shares_of_the_active_kernels():
    assert proportions(LAST["x[1,1]"]) == {"forward": 0.6, "up": 0.25, "down": 0.15}  # of 20
    assert proportions({"up": [0, 9]}) == {"up": 0.0}


def test_kernels_are_summed_over_the_nodes_of_a_level_or_a_stage():
    assert gathered(LAST, "level") == {
        "level 0": {"forward": (31, 200), "up": (9, 200)},
        "level 1": {"forward": (12, 80), "up": (5, 80), "down": (3, 40)},
    }
    assert list(gathered(LAST, "stage")) == ["stage 1", "stage 2"]
    assert gathered(LAST, "network") == {"network": {"forward": (43, 280), "up": (14, 280), "down": (3, 40)}}


def test_gains_are_changes_of_the_shares_and_sum_to_nothing():
    found = gains(FIRST, LAST)
    assert found == pytest.approx({"up": 14 / 60 - 28 / 60, "forward": 43 / 60 - 28 / 60, "down": 3 / 60 - 4 / 60})
    assert sum(found.values()) == pytest.approx(0)


def test_a_network_without_fusion_nodes_has_no_groups():
    assert gathered({}, "level") == {}
    assert gains({}, {}) == {}
