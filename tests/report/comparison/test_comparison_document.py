from matplotlib.figure import Figure

from voxelseg.report.comparison.document import Cell, Document, Drawing, Section, Table, cells, svg_of


def drawing(name, *, width_in=5.6, **more):
    figure = Figure(figsize=(width_in, 1))
    figure.add_subplot().plot([1, 2], [3, 4])
    return Drawing(name=name, title="A drawing", text='Two "points" & <more>', figure=figure, **more)


def test_a_drawing_is_an_element_with_a_text_alternative():
    svg = svg_of(drawing("lines"))
    assert svg.startswith("<svg ")
    assert 'role="img" aria-label="Two &#34;points&#34; &amp; &lt;more&gt;"' in svg


def test_ids_of_two_drawings_differ():
    first, second = svg_of(drawing("one")), svg_of(drawing("two"))
    assert 'id="one-figure_1"' in first
    assert 'id="two-figure_1"' in second


def test_the_same_drawing_gives_the_same_text():
    assert svg_of(drawing("one")) == svg_of(drawing("one"))


def test_a_wide_drawing_has_no_room_beside_another():
    assert (drawing("a").width_px, drawing("a").is_wide) == (571, False)  # 102 * 5.6 = 571.2
    assert drawing("b", width_in=8).is_wide


def test_a_caption_has_the_hint():
    assert (drawing("a").caption, drawing("a", hint="over patients").caption) == (
        "A drawing",
        "A drawing; over patients",
    )


def test_a_document_knows_all_its_drawings():
    sections = (Section(title="s", drawings=(drawing("b"), drawing("c"))), Section(title="t"))
    document = Document(
        title="t",
        lead="l",
        answers=(),
        status="",
        overview=drawing("a"),
        table=Table(headings=("x",), rows=()),
        sections=sections,
    )
    assert [one.name for one in document.drawings] == ["a", "b", "c"]


def test_cells_are_without_marks():
    assert cells(("a", "b")) == (Cell("a"), Cell("b"))
