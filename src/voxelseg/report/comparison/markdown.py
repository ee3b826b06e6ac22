"""A document as Markdown that code hosts show: the same content as the page, figures as files beside it."""

from collections.abc import Iterable, Sequence

from voxelseg.report.comparison.document import BEST, LIKE_BEST, Cell, Document, Drawing, Section, Table

_SPECIAL = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_[]<>|#~$&"}, "\n": " "})


def to_markdown(document: Document, *, figures: str, written: str) -> str:
    """Text of the document; `figures` is the folder with the drawings' PNG files, as a link says it."""
    parts = [
        f"# {escaped(document.title)}",
        escaped(document.lead),
        *([f"> {escaped(document.status)}"] if document.status else []),
        _points(document.answers),
        _drawing(document.overview, figures),
        escaped(document.overview.caption),
        _table(document.table),
        *(part for section in document.sections for part in _section(section, figures)),
        written,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Text in which no character means anything to Markdown."""
    return text.translate(_SPECIAL)


def _section(section: Section, figures: str) -> Iterable[str]:
    yield f"## {escaped(section.title)}"
    yield from map(escaped, section.sentences)
    yield _points(section.points)
    for drawing in section.drawings:
        yield f"### {escaped(drawing.title)}"
        yield _drawing(drawing, figures)
        yield escaped(drawing.hint)
    for table in section.tables:
        yield _table(table)
    yield _points(f"{key}: {value}" for key, value in section.facts)
    if section.pictures:
        yield "The pictures are on the HTML page only, since they show scans:"
        yield _points(f"{one.title}. {one.hint} {one.fault}".strip() for one in section.pictures)
    if section.command:
        yield f"```sh\n{section.command}\n```"
    yield from map(escaped, section.remarks)


def _points(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(one)}" for one in sentences)


def _drawing(drawing: Drawing, figures: str) -> str:
    return f"![{escaped(drawing.text)}]({figures}/{drawing.name}.png)"


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    title = [f"**{escaped(table.title)}**", ""] if table.title else []
    hint = ["", escaped(table.hint)] if table.hint else []
    headings = [Cell(text) for text in table.headings]
    rule = "| " + " | ".join(["---"] + ["---:"] * (len(headings) - 1)) + " |"
    lines = [*title, _row(headings), rule, *map(_row, table.rows), *hint]
    return "\n".join(lines)


def _row(row: Sequence[Cell]) -> str:
    return f"| {' | '.join(map(_cell, row))} |"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    if cell.mark == BEST:
        return f"**{text}**"
    return f"≈ {text}" if cell.mark == LIKE_BEST else text
