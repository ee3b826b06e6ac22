import math

import pytest

from voxelseg.compare.pareto import pareto_front
from voxelseg.errors import ConfigError


def test_the_front_is_who_nobody_beats_cheapest_first():
    scores = {"large": 0.9, "small": 0.8, "middle": 0.85, "wasteful": 0.84}
    found = pareto_front(scores, [{"large": 9.0, "small": 1.0, "middle": 4.0, "wasteful": 5.0}])
    assert found.members == ("small", "middle", "large")
    assert found.dominated == {"wasteful": ("middle",)}  # cheaper and better; large is better but dearer


def test_less_can_be_better():
    found = pareto_front({"a": 3.0, "b": 2.0}, [{"a": 1.0, "b": 1.0}], higher_is_better=False)
    assert found.members == ("b",)
    assert found.dominated == {"a": ("b",)}


def test_a_second_cost_keeps_who_is_best_in_it():
    scores, latency, memory = {"a": 0.8, "b": 0.8}, {"a": 1.0, "b": 2.0}, {"a": 9.0, "b": 3.0}
    assert pareto_front(scores, [latency]).members == ("a",)
    assert pareto_front(scores, [latency, memory]).members == ("a", "b")


def test_equal_contestants_are_all_on_the_front():
    found = pareto_front({"a": 0.8, "b": 0.8}, [{"a": 1.0, "b": 1.0}])
    assert found.members == ("a", "b")
    assert not found.dominated


def test_what_is_not_known_is_named_and_dominates_nobody():
    found = pareto_front({"a": 0.5, "b": math.nan, "c": 0.9, "d": 0.9}, [{"a": 5.0, "b": 1.0, "c": None}])
    assert found.members == ("a",)
    assert found.unknown == ("b", "c", "d")


def test_nothing_can_be_weighed_without_costs():
    with pytest.raises(ConfigError, match="at least one kind of cost"):
        pareto_front({"a": 0.5}, [])
