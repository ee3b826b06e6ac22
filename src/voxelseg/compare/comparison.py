"""Contestants compared on the same cases: statistics of every table, and what follows from them in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxelseg.compare.conclusions import conclusions
from voxelseg.compare.remarks import remarks
from voxelseg.compare.results import TableResult
from voxelseg.compare.scores import MEAN, ScoreTable
from voxelseg.compare.settings import CompareSettings
from voxelseg.compare.testing import tested
from voxelseg.compare.verdicts import rules
from voxelseg.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it."""

    settings: CompareSettings
    contestants: tuple[str, ...]
    tables: tuple[TableResult, ...]
    """In the order of the scores: the means over the classes first, of which the first is what conclusions are of."""
    conclusions: tuple[str, ...]
    """What follows, in words: the answer first."""
    notes: tuple[str, ...]
    """What the reader should know: what is missing, undefined or not compared."""

    @property
    def primary(self) -> TableResult:
        """Which the verdicts are of: the first column's mean over the classes."""
        return self.tables[0]

    @property
    def rules(self) -> tuple[str, ...]:
        """How the numbers came about and what is called better, worse and equivalent."""
        return rules(self.settings)

    def table(self, key: str, class_name: str = MEAN) -> TableResult | None:
        """Of a column and class, by default the mean over the classes; None if it is not compared."""
        found = (one for one in self.tables if (one.column.key, one.class_name) == (key, class_name))
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; undefined numbers are NaN here and null in a file."""
        return {
            "contestants": list(self.contestants),
            "conclusions": list(self.conclusions),
            "notes": list(self.notes),
            "rules": list(self.rules),
            "settings": asdict(self.settings),
            "tables": [one.to_dict() for one in self.tables],
        }


def compare(
    tables: Sequence[ScoreTable], settings: CompareSettings | None = None, *, notes: Sequence[str] = ()
) -> Comparison:
    """Statistics of every table and the conclusions; `notes` are added to what there is to say.

    DataError if there is no table, contestants differ between tables, or predictions are missing and may not be.
    """
    settings = settings or CompareSettings()
    names = tuple(tables[0].values) if tables else ()
    if not names or any(tuple(one.values) != names for one in tables):
        raise DataError("there is nothing to compare. Give scores of at least one contestant, the same in all tables.")
    found = [tested(table, settings) for table in tables]
    return Comparison(
        settings=settings,
        contestants=names,
        tables=tuple(found),
        conclusions=conclusions(found),
        notes=(*notes, *remarks(found, settings)),
    )
