"""What a page says, before it is HTML or Markdown: sections of sentences, tables, drawings and facts."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from voxelseg.report.curves import to_svg
from voxelseg.report.facts import Facts
from voxelseg.report.overlay import View

BEST, LIKE_BEST = "best", "like best"
_WIDEST_PX = 640
MARKS = "Bold: the best mean. ≈: not told apart from the best."
"""How the marks of cells are to be read."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    mark: str = ""
    """BEST, LIKE_BEST, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under headings; the first column names what a row is about."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    hint: str = ""
    """How it is to be read, in small print."""
    words: tuple[str, ...] = ()
    """Headings of the columns, beside the first one, that hold words: they begin on the left, and break lines."""
    folded: bool = False
    """Whether it opens at a click on its title: for details that few need. It is printed in any case."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A figure."""

    name: str
    """Of its files, without suffix."""
    title: str
    text: str
    """What it shows, for who does not see it; one that says nothing more than the tables names them."""
    figure: Figure
    hint: str = ""

    @property
    def width_px(self) -> int:
        """On the page: its text is then about as large as that beside it."""
        return round(102 * float(self.figure.get_figwidth()))

    @property
    def caption(self) -> str:
        """Title and hint in a line."""
        return f"{self.title}; {self.hint}" if self.hint else self.title

    @property
    def is_wide(self) -> bool:
        """Whether it has no room beside another."""
        return self.width_px > _WIDEST_PX


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Slices of one case with the contours of one prediction; only on the HTML page, since they show a scan."""

    title: str
    hint: str
    views: tuple[View, ...]
    fault: str = ""
    """Why there are none."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, sentences, and what belongs to them."""

    title: str
    sentences: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    """Sentences of a list."""
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: Facts | tuple[()] = ()
    pictures: tuple[Pictures, ...] = ()
    command: str = ""
    remarks: tuple[str, ...] = ()
    """Sentences in small print at the end."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """The whole page."""

    title: str
    lead: str
    answers: tuple[str, ...]
    """Which one, and how sure, in plain words."""
    status: str
    """What is wrong with it; empty if nothing is."""
    overview: Drawing
    table: Table
    """Of the first screen."""
    sections: tuple[Section, ...]

    @property
    def drawings(self) -> list[Drawing]:
        """All of them."""
        return [self.overview, *(one for section in self.sections for one in section.drawings)]


def cells(texts: Sequence[str]) -> tuple[Cell, ...]:
    """Cells without marks."""
    return tuple(Cell(text) for text in texts)


def svg_of(drawing: Drawing) -> Markup:
    """The drawing as an element of a page."""
    return to_svg(drawing.figure, prefix=drawing.name, title=drawing.text)
