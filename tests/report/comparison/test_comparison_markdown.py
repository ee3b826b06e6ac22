from matplotlib.figure import Figure

from voxelseg.report.comparison.document import (
    BEST,
    LIKE_BEST,
    Cell,
    Document,
    Drawing,
    Pictures,
    Section,
    Table,
    cells,
)
from voxelseg.report.comparison.markdown import escaped, to_markdown


def drawing(name, hint=""):
    return Drawing(name=name, title=f"Drawing {name}", text=f"What {name} shows.", figure=Figure(), hint=hint)


def text_of(*sections, status=""):
    table = Table(
        headings=("Name", "Dice"),
        rows=(
            (Cell("a|b_c"), Cell("0.9", BEST)),
            (Cell("d"), Cell("0.8", LIKE_BEST)),
            (Cell("e"), Cell("0.1")),
        ),
        title="Scores",
        hint="How to read.",
    )
    document = Document(
        title="A <page>",
        lead="Of two.",
        answers=("a is best.",),
        status=status,
        overview=drawing("first", "over patients"),
        table=table,
        sections=sections,
    )
    return to_markdown(document, figures="figures", written="Written today.")


def test_tables_have_marks_and_names_mean_nothing_to_markdown():
    text = text_of()
    assert "| Name | Dice |\n| --- | ---: |\n| a\\|b\\_c | **0.9** |\n| d | ≈ 0.8 |\n| e | 0.1 |\n" in text
    assert text.startswith("# A \\<page\\>\n\nOf two.\n\n- a is best.\n")
    assert "**Scores**" in text
    assert text.endswith("How to read.\n\nWritten today.\n")


def test_drawings_are_links_with_a_text_alternative():
    text = text_of(Section(title="S", drawings=(drawing("second", "in short"),)))
    assert "![What first shows.](figures/first.png)\n\nDrawing first; over patients" in text
    assert "### Drawing second\n\n![What second shows.](figures/second.png)\n\nin short" in text


def test_a_status_is_a_quotation():
    assert "> One failed." in text_of(status="One failed.")


def test_a_section_has_all_its_parts():
    section = Section(
        title="Costs",
        sentences=("In words.",),
        points=("One.", "Two."),
        tables=(Table(headings=("a",), rows=(cells(("b",)),), folded=True), Table(headings=("empty",), rows=())),
        facts=[("Key", "value")],
        pictures=(Pictures(title="Worst case", hint="Dice 0.1", views=()),),
        command="voxelseg compare a_b c",
        remarks=("Small print.",),
    )
    text = text_of(section)
    for part in (
        "## Costs\n\nIn words.\n\n- One.\n- Two.",
        "| a |\n| --- |\n| b |",
        "- Key: value",
        "The pictures are on the HTML page only",
        "- Worst case. Dice 0.1",
        "```sh\nvoxelseg compare a_b c\n```",
        "Small print.",
    ):
        assert part in text, part
    assert "empty" not in text


def test_every_special_character_is_escaped():
    assert escaped("a*b [c] ~d~ $e\nf") == "a\\*b \\[c\\] \\~d\\~ \\$e f"
