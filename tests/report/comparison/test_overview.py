from scored import contestants

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.report.comparison.document import BEST, LIKE_BEST
from voxelseg.report.comparison.overview import lead_of, overview_drawing, overview_table, status_of, title_of


def column(table, heading):
    place = table.headings.index(heading)
    return [row[place].text for row in table.rows]


def test_the_lead_says_what_was_compared_on_what(material):
    assert title_of(material) == "Comparison of 3 contestants"
    assert lead_of(material) == (
        "12 cases of 12 patients, 2 classes, 2 runs of each. Ranked by Dice, the mean over the classes. "
        "Every case is taken for a patient of its own."
    )
    assert status_of(material) == ""


def test_patients_that_somebody_named_are_not_said_to_be_taken_for_anything(make_material):
    cases = {f"case_{place:02}": f"p{place}" for place in range(12)}
    lead = lead_of(make_material(contestants({"a": 0.8, "b": 0.7}), patients=cases))
    assert lead.endswith("Ranked by Dice, the mean over the classes.")


def test_the_best_is_first_and_who_is_alike_is_marked(material):
    table = overview_table(material)
    assert column(table, "Place") == ["1", "2", "3"]
    assert table.rows[2][0].text == "unet_s"
    assert [row[1].mark for row in table.rows] == [BEST, LIKE_BEST, ""]
    first, second, third = column(table, "Against the best")
    assert first == "–"
    assert second.startswith(("undecided, p\u00a0= 0.", "equivalent, p\u00a0= 0.", "undecided, p\u00a0= 1."))
    assert third.startswith("worse, p\u00a0")


def test_without_costs_there_is_no_column_of_them(material):
    table = overview_table(material)
    assert "Cost" not in table.headings
    assert all(len(row) == len(table.headings) for row in table.rows)


def test_costs_are_those_of_the_network_if_known(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, cost=Cost(parameters=5_000_000, latency_s=0.2, training_s=90.0))
    table = overview_table(make_material(found))
    assert column(table, "Cost") == ["5\u00a0M, 200\u00a0ms"] * 2
    assert "Cost: parameters, time of one patch." in table.hint


def test_costs_are_the_training_time_otherwise(make_material):
    table = overview_table(make_material(contestants({"a": 0.8, "b": 0.7}, cost=Cost(training_s=90.0))))
    assert column(table, "Cost") == ["1 min 30 s"] * 2


def test_who_failed_is_last_and_said_to_have(make_material):
    failed = Contestant(name="c", runs={}, fault="out of memory")
    material = make_material([failed, *contestants({"a": 0.8, "b": 0.7})])
    assert [cell.text for cell in overview_table(material).rows[-1]] == ["c", "failed", "–", "–"]
    assert status_of(material) == "Failed, and not among the others: c (out of memory)."
    assert "failed" in overview_drawing(material).text


def test_one_contestant_has_nothing_to_be_held_against(make_material):
    material = make_material(contestants({"a": 0.8}))
    table = overview_table(material)
    assert title_of(material) == "Scores of a"
    assert [cell.text for cell in table.rows[0]][2:] == ["1", "–"]
    assert table.rows[0][1].mark == ""
    assert "Wilcoxon" not in table.hint


def test_long_names_are_shortened_here_only(make_material):
    name = "swin_unetr_v2_pretrained_on_5050_scans_and_more"
    table = overview_table(make_material(contestants({name: 0.8, "b": 0.7})))
    assert table.rows[0][0].text != name
    assert len(table.rows[0][0].text) <= 30
