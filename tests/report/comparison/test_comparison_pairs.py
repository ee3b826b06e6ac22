from dataclasses import replace

import pytest
from scored import contestants

from voxelseg.report.comparison.overview import overview_table
from voxelseg.report.comparison.pairs import pairs_section, ranks_section, seeds_section, verdict_text


def test_every_pair_is_in_the_order_of_the_ranking(material):
    (table, *_) = pairs_section(material).tables
    ranking = [one.name for one in material.primary.ranking]
    pairs = [(row[0].text, row[1].text) for row in table.rows]
    assert pairs == [(ranking[0], ranking[1]), (ranking[0], ranking[2]), (ranking[1], ranking[2])]
    assert table.title == "Dice, margin 0.005"
    assert all(row[3].text.startswith("+") for row in table.rows)  # of the better one minus the worse one
    assert table.rows[1][2].text == "better"


def test_lengths_without_a_margin_have_no_test_of_equivalence(material):
    table = pairs_section(material).tables[2]
    assert table.title == "HD95 (mm)"
    assert {row[table.headings.index("Equivalence p")].text for row in table.rows} == {"–"}
    assert all(row[3].text.startswith("−") for row in table.rows)  # less is better


def test_three_seeds_give_an_interval_with_them(make_material, material):
    assert "95 % with seeds" not in pairs_section(material).tables[0].headings
    found = make_material(contestants({"a": 0.8, "b": 0.7}, seeds=3))
    table = pairs_section(found).tables[0]
    assert table.headings[-1] == "95 % with seeds"
    assert all(len(row) == len(table.headings) for row in table.rows)
    said = "or t-test over patients and seeds where that is larger"
    assert said in pairs_section(found).remarks[0]
    assert said in overview_table(found).hint
    assert said not in pairs_section(material).remarks[0]


@pytest.mark.parametrize(
    ("verdict", "reason", "needed", "text"),
    [
        ("better", "", None, "better"),
        ("equivalent", "", None, "equivalent"),
        ("undecided", "patients", 120, "undecided: about 120 patients needed"),
        ("undecided", "patients", None, "undecided: too few patients"),
        ("undecided", "seeds", None, "undecided: seeds may explain it"),
    ],
)
def test_a_verdict_says_why_it_is_open(material, verdict, reason, needed, text):
    pair = replace(material.primary.pairs[0], verdict=verdict, reason=reason, patients_needed=needed)
    assert verdict_text(pair) == text


def test_ranks_come_with_friedman_and_a_critical_difference(material):
    section = ranks_section(material)
    assert section.sentences[0].startswith("Friedman's test that all are alike: p ")
    assert [one.name for one in section.drawings] == ["ranks", "rank_stability"]
    (table,) = section.tables
    assert table.headings == ("Contestant", "Mean rank", "1", "2", "3")


def test_two_have_no_friedman_test(make_material):
    section = ranks_section(make_material(contestants({"a": 0.8, "b": 0.7})))
    assert section.sentences == (
        "Two contestants are compared by their pair; Friedman's test takes three contestants or more.",
    )


def test_one_patient_is_named_as_what_lacks_for_mean_ranks(make_material):
    found = contestants({"a": 0.8, "b": 0.7, "c": 0.6}, num=4)
    section = ranks_section(make_material(found, patients=dict.fromkeys(found[0].cases, "p0")))
    assert section.sentences == ("Friedman's test takes two patients or more.",)
    texts = [one.get_text() for axes in section.drawings[0].figure.axes for one in axes.texts]
    texts += [one.get_text() for one in section.drawings[0].figure.texts]
    assert "No critical difference: it takes two patients or more." in texts


def test_one_contestant_has_neither_pairs_nor_ranks(make_material):
    alone = make_material(contestants({"a": 0.8}))
    assert pairs_section(alone) is None
    assert ranks_section(alone) is None


def test_seeds_are_shown_one_by_one(material, make_material):
    (table,) = seeds_section(material).tables
    assert table.headings == ("Contestant", "seed 0", "seed 1", "SD of seeds", "Smallest, largest")
    best = material.best
    assert table.rows[0][1].text == f"{best.seed_means['0']:.4f}"
    assert seeds_section(make_material(contestants({"a": 0.8, "b": 0.7}, seeds=1))) is None
