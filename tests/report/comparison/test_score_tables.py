from dataclasses import replace

from scored import contestants

from voxelseg.report.comparison.document import BEST, LIKE_BEST
from voxelseg.report.comparison.score_tables import classes_section, marked, scores_section

MANY = tuple(f"class {place}" for place in range(11))


def test_arrows_say_which_way_is_better(material):
    (table, *_) = scores_section(material).tables
    assert table.headings == ("Contestant", "Dice ↑", "Surface Dice at 1 mm ↑", "HD95 (mm) ↓")


def test_in_every_column_the_best_is_marked(material):
    (table, *_) = scores_section(material).tables
    for place in (1, 2, 3):
        assert sorted(row[place].mark for row in table.rows) == sorted([BEST, LIKE_BEST, ""])


def test_each_class_is_marked_on_its_own_and_the_mean_is_last(material):
    first, *others = classes_section(material).tables
    assert first.headings == ("Contestant", "liver", "spleen", "Mean")
    assert len(first.rows) == 3
    assert (first.folded, [one.folded for one in others]) == (False, [True, True])


def test_many_classes_are_rows(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, classes=MANY)
    section = classes_section(make_material(found))
    table = section.tables[0]
    assert table.headings == ("Class", "a", "b")
    assert [row[0].text for row in table.rows] == [*MANY, "Mean"]


def test_the_drawing_shows_a_few_of_the_best(make_material):
    found = contestants({f"net {place}": 0.9 - 0.02 * place for place in range(8)}, seeds=1)
    (drawing,) = classes_section(make_material(found)).drawings
    assert drawing.title.endswith("the 6 best")
    assert "net 7" not in drawing.text


def test_the_drawing_shows_what_counts_where_predictions_are_missing(make_material):
    a, b = contestants({"a": 0.6, "b": 0.9}, seeds=1)
    run = b.runs["0"]
    kept = tuple(one for one in run.scores if int(one.case[-2:]) > 6)  # 5 of 12: the median is a missing one
    found = make_material([a, replace(b, runs={"0": replace(run, scores=kept)})], missing="worst")
    (drawing,) = classes_section(found).drawings
    assert drawing.text.count("b 0.000") == 2


def test_a_single_class_has_no_section_of_its_own(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, classes=("liver",))
    assert classes_section(make_material(found)) is None


def test_nothing_is_marked_where_nothing_can_be_decided(material):
    table = replace(material.primary, fault="there is one case only")
    assert marked(table, table.ranking[0], "0.9").mark == ""
