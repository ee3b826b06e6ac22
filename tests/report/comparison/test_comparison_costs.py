import pytest
from scored import contestants

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.report.comparison.costs import costs_section


def with_costs(costs):
    found = contestants({name: 0.9 - 0.1 * place for place, name in enumerate(costs)}, seeds=1)
    return [Contestant(name=one.name, runs=one.runs, cost=costs[one.name]) for one in found]


FULL = {
    "a": Cost(parameters=4_000_000, macs=10**11, latency_s=0.2, peak_memory_bytes=10**9, device="cpu", threads=2),
    "b": Cost(parameters=1_000_000, macs=10**10, latency_s=0.1, peak_memory_bytes=10**8, device="cpu", threads=1),
}


def test_without_any_cost_there_is_no_section(material):
    assert costs_section(material) is None


def test_all_that_is_known_is_in_the_table(make_material):
    section = costs_section(make_material(with_costs(FULL)))
    (table,) = section.tables
    assert table.headings == (
        *("Contestant", "Parameters", "Multiply-accumulates", "Time of a patch", "Memory of a patch", "Measured on"),
        "Trade-off score",
    )
    texts = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert texts["b"][:5] == ["1\u00a0M", "10\u00a0G", "100\u00a0ms", "100\u00a0MB", "cpu, 1 thread"]
    # Eq. 7: Dice is about 0.9 and 0.8; b has the least of both costs: 0.8 / 0.9 + 0.5 + 0.5, a 1 + 0.5 / 4 + 0.5 / 10.
    assert float(texts["b"][5]) > 1.8
    assert abs(float(texts["a"][5]) - 1.175) < 0.006  # rounded to two digits


def test_each_cost_that_two_have_is_drawn(make_material):
    drawings = costs_section(make_material(with_costs(FULL))).drawings
    assert [one.name for one in drawings] == ["pareto_latency", "pareto_memory", "bubbles", "trade_off"]
    assert all(one.text for one in drawings)


def test_a_single_known_cost_is_not_drawn(make_material):
    section = costs_section(make_material(with_costs({"a": Cost(training_s=60.0), "b": None})))
    assert section.drawings == ()
    assert [cell.text for cell in section.tables[0].rows[1]] == ["b", "–"]


@pytest.mark.parametrize(("seconds", "drawn"), [(603.0, []), (660.0, ["pareto_training"])])
def test_equal_minutes_are_not_drawn(make_material, seconds, drawn):
    found = {"a": Cost(training_s=600.0), "b": Cost(training_s=seconds)}
    assert [one.name for one in costs_section(make_material(with_costs(found))).drawings] == drawn


def test_lengths_are_not_weighed_against_costs(make_material):
    material = make_material(with_costs(FULL))
    lower = [one for one in material.comparison.tables if one.column.key == "hd95_mm"]
    object.__setattr__(material.comparison, "tables", (*lower, *material.comparison.tables))
    section = costs_section(material)
    assert "Trade-off score" not in section.tables[0].headings
    assert [one.name for one in section.drawings] == ["pareto_latency", "pareto_memory"]


def test_how_it_was_measured_is_said_once(make_material):
    noted = {name: Cost(parameters=5, notes=("Median of 5 patches.",)) for name in "ab"}
    assert costs_section(make_material(with_costs(noted))).remarks == ("Median of 5 patches.",)
