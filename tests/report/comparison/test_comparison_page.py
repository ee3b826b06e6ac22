import math
import re
from dataclasses import replace

import pytest
from checked_page import Checked
from scored import contestants, evaluation

from voxelseg.compare.contestants import Contestant
from voxelseg.compare.cost import Cost
from voxelseg.report.comparison.document import Section
from voxelseg.report.comparison.page import document_of, render

ODD = 'net <b>&"quoted" | pipe_under'


def page_of(material, **more):
    html = render(document_of(material, **more))
    page = Checked()
    page.feed(html)
    assert page.open == []
    page.html = html
    page.words = re.sub(r"\s+", " ", "".join(page.text))
    return page


@pytest.fixture(scope="module")
def page(make_material):
    """Of four contestants, one of which failed, with costs."""
    cost = Cost(parameters=4_000_000, macs=10**11, latency_s=0.2, peak_memory_bytes=10**9, training_s=90.0)
    found = contestants({"unet_s": 0.8, "mednext_s": 0.85, ODD: 0.849}, cost=cost)
    less = replace(cost, latency_s=0.1, peak_memory_bytes=10**8, training_s=45.0)
    found[1] = replace(found[1], cost=less)
    failed = Contestant(name="uxnet", runs={}, fault="out of memory")
    return page_of(make_material([*found, failed], command="voxelseg compare a b --out c"))


def test_the_first_screen_says_which_one_and_how_sure(page):
    first = page.words.partition("Scores Means over the cases")[0]
    for words in (
        "Comparison of 4 contestants",
        "12 cases of 12 patients, 2 classes, 2 runs of each. Ranked by Dice",
        "No contestant can be called best.",
        "has the best mean Dice, 0.8",
        "This holds for these trainings, 2 runs of each contestant",
        "Failed, and not among the others: uxnet (out of memory).",
        "Against the best",
        "4\u00a0M, 200\u00a0ms".replace("\u00a0", " "),
    ):
        assert words in first.replace("\u00a0", " "), words


def test_every_section_is_there_in_its_order(page):
    headings = re.findall(r"<h2>(.*?)</h2>", page.html)
    assert headings == [
        "What else follows",
        "Scores",
        "Scores by class",
        "Every pair",
        "How stable the ranking is",
        "Runs with other seeds",
        "Costs",
        "Single cases",
        "Missing, undefined and failed",
        "How the numbers are defined",
        "How to reproduce this page",
    ]
    assert "voxelseg compare a b --out c" in page.words


def test_the_page_asks_for_nothing_outside_itself(page):
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.seen}
    for _, attributes in page.seen:
        for key, value in attributes.items():
            assert not key.startswith("on"), "a script in an attribute"
            if key in ("src", "href", "xlink:href"):
                assert value.startswith(("data:", "#"))
    style = page.html.partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_figure_has_a_text_alternative(page):
    figures = [attributes for tag, attributes in page.seen if tag == "svg" and "role" in attributes]
    assert len(figures) == 10  # scores, classes, differences, ranks, stability, and the costs' five
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 20 for attributes in figures)
    assert len({attributes["aria-label"] for attributes in figures}) == len(figures)


def test_ids_are_used_once(page):
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_texts_of_figures_stay_texts(page):
    assert re.search(r"<text[^>]*>mednext_s</text>", page.html)


def test_names_are_shown_as_they_are(page):
    assert ODD in page.words
    assert "<b>&" not in page.html


def test_without_scripts_all_details_can_be_opened_and_are_printed(page):
    details = [attributes for tag, attributes in page.seen if tag == "details"]
    assert details
    assert all(attributes["class"] == "printed" for attributes in details)
    assert sum(tag == "summary" for tag, _ in page.seen) == len(details)


def test_every_table_scrolls_in_a_box_of_its_own(page):
    assert len(re.findall(r'<div class="scroll">\s*<table', page.html)) == page.html.count("<table")


def test_marks_do_not_rest_on_colour(page):
    assert 'class="best">0.8' in page.html
    assert '<span class="like">≈</span>' in page.html
    assert "≈: not told apart from the best" in page.words


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"x": (0.5, 0.6)}, "cannot be decided: there is one case only"),
        ({f"c{place}": (0.5, 0.6) for place in range(9)}, "the same values"),
        ({f"c{place}": (math.nan, math.nan) for place in range(9)}, "cannot be decided"),
    ],
)
def test_what_cannot_be_decided_is_said(make_material, scores, words):
    found = [Contestant(name=name, runs={"0": evaluation(scores)}) for name in "abc"]
    assert words in page_of(make_material(found)).words


def test_a_single_contestant_has_its_scores(make_material):
    page = page_of(make_material(contestants({"a": 0.8})))
    assert "Scores of a" in page.words
    assert "a has a mean Dice of 0.8" in page.words
    assert "Every pair" not in page.words


def test_further_sections_and_a_title_come_from_who_calls(material):
    found = page_of(material, title="A benchmark", sections=(Section(title="Fairness", points=("Same folds.",)),))
    assert "A benchmark" in found.words
    assert found.html.index("Fairness") < found.html.index("Single cases")
