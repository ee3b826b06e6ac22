"""Tables of scores: all contestants in the main metrics, in every metric, and by class."""

import math
from collections.abc import Sequence

from voxelseg.compare.results import Standing, TableResult
from voxelseg.evaluate.table import format_score
from voxelseg.metrics import Column
from voxelseg.report.comparison.document import BEST, LIKE_BEST, MARKS, Cell, Drawing, Section, Table
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.numbers import score_text
from voxelseg.report.figures.classes import describe_classes, draw_classes

_MOST_DRAWN = 6
"""Contestants in the drawing of all cases: it is long enough with 15 classes."""
_MOST_CLASSES_ACROSS = 10


def marked(table: TableResult, one: Standing, text: str) -> Cell:
    """A cell of a table in which the best is marked, and who is not told apart from it."""
    best = table.ranking[0]
    if math.isnan(one.mean) or len(table.standings) < 2 or table.fault:
        return Cell(text)
    if one.mean == best.mean:
        return Cell(text, BEST)
    alike = table.pair(best.name, one.name).verdict in ("undecided", "equivalent")
    return Cell(text, LIKE_BEST if alike else "")


def scores_section(material: Material) -> Section:
    """Every contestant in every metric, means over the classes."""
    main = _of_columns(material, material.main_columns, with_intervals=True)
    others = [column for column in material.columns if column not in material.main_columns]
    table = Table(
        title="All other metrics",
        headings=("Contestant", *(_directed(column) for column in others)),
        rows=_of_columns(material, others, with_intervals=False),
        folded=True,
        hint="Means over the cases of the means over the classes. " + MARKS,
    )
    return Section(
        title="Scores",
        sentences=("Means over the cases of the means over the classes, with 95 % intervals over patients.",),
        tables=(
            Table(
                headings=("Contestant", *(_directed(column) for column in material.main_columns)),
                rows=main,
                hint=MARKS,
            ),
            *([table] if others else []),
        ),
    )


def _directed(column: Column) -> str:
    return f"{column.heading} {'↑' if column.higher_is_better else '↓'}"


def _of_columns(material: Material, columns: Sequence[Column], *, with_intervals: bool) -> tuple[tuple[Cell, ...], ...]:
    tables = [table for column in columns if (table := material.comparison.table(column.key)) is not None]
    rows = []
    for one in material.primary.ranking:
        found = [(table, table.standing(one.name)) for table in tables]
        texts = (
            score_text(it.mean, it.interval, table.column.unit)
            if with_intervals
            else format_score(it.mean, table.column.unit)
            for table, it in found
        )
        rows.append(
            (Cell(one.name), *(marked(table, it, text) for (table, it), text in zip(found, texts, strict=True)))
        )
    return tuple(rows)


def classes_section(material: Material) -> Section | None:
    """A table and a drawing for each main metric: contestants by classes; None for a single class."""
    if len(material.classes) < 2:
        return None
    tables = []
    for column in material.main_columns:
        found = [table for name in material.classes if (table := material.comparison.table(column.key, name))]
        if not found:
            continue
        tables.append(_class_table(material, column, found))
    return Section(title="Scores by class", drawings=(_spread(material),), tables=tuple(tables))


def _spread(material: Material) -> Drawing:
    """Of the column that the answer is of; a case counts as in the tables."""
    column = material.primary.column
    tables = {name: table for name in material.classes if (table := material.comparison.table(column.key, name))}
    shown = material.primary.ranking[:_MOST_DRAWN]
    values = {
        one.name: {name: list(table.case_means[one.name].values()) for name, table in tables.items()} for one in shown
    }
    of_best = f", the {len(shown)} best" if len(shown) < len(material.primary.standings) else ""
    return Drawing(
        name="classes",
        title=f"{column.title} of every case by class{of_best}",
        text=describe_classes(values, label=column.title, unit=column.unit),
        hint="marker: median; thick line: middle half of the cases; thin: 5th to 95th percentile",
        figure=draw_classes(values, label=column.title, unit=column.unit, look=material.looks),
    )


def _class_table(material: Material, column: Column, found: Sequence[TableResult]) -> Table:
    """Contestants by classes, or the other way round for many classes: pages grow downwards."""
    mean = material.comparison.table(column.key)
    tables = [*found, *([mean] if mean is not None else [])]
    names = [one.name for one in material.primary.ranking]
    titles = [table.class_name or "Mean" for table in tables]
    by_class = [[_cell(table, name) for name in names] for table in tables]
    if len(found) > _MOST_CLASSES_ACROSS:
        first, across, down, rows = "Class", names, titles, by_class
    else:
        first, across, down, rows = "Contestant", titles, names, [list(row) for row in zip(*by_class, strict=True)]
    return Table(
        title=f"{_directed(column)} by class",
        headings=(first, *across),
        rows=tuple((Cell(title), *row) for title, row in zip(down, rows, strict=True)),
        hint=f"Means over the cases in which someone has the class. {MARKS} Each class is tested on its own.",
        folded=column != material.primary.column,
    )


def _cell(table: TableResult, name: str) -> Cell:
    one = table.standing(name)
    return marked(table, one, format_score(one.mean, table.column.unit))
