"""What a page about a comparison is made of, and how contestants look in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from voxelseg.compare.comparison import Comparison
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.results import Standing, TableResult
from voxelseg.compare.scores import MEAN, ScoreTable
from voxelseg.metrics import MAIN_COLUMNS, Column
from voxelseg.report.figures.look import Look, looks


@dataclass(frozen=True, kw_only=True)
class Material:
    """All of it."""

    comparison: Comparison
    contestants: Sequence[Contestant]
    """Those that failed, too."""
    scores: Sequence[ScoreTable]
    """What the comparison is of."""
    command: str = ""
    """That makes the page again; empty if nobody said."""
    with_pictures: bool = True
    """Whether the page may show scans."""

    @property
    def primary(self) -> TableResult:
        """Which the answer is of."""
        return self.comparison.primary

    @cached_property
    def compared(self) -> Mapping[str, Contestant]:
        """Contestants with scores, by name."""
        return {one.name: one for one in self.contestants if one.name in self.comparison.contestants}

    @cached_property
    def failed(self) -> Sequence[Contestant]:
        """Contestants without any scores."""
        return [one for one in self.contestants if one.name not in self.comparison.contestants]

    @cached_property
    def looks(self) -> Mapping[str, Look]:
        """Colour and marker of each, the same in all figures."""
        return looks(one.name for one in self.contestants)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(dict.fromkeys(one.class_name for one in self.comparison.tables if one.class_name != MEAN))

    @property
    def best(self) -> Standing:
        """The one with the best mean of all."""
        return self.primary.ranking[0]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All, the one that the answer is of first."""
        return tuple(dict.fromkeys(one.column for one in self.comparison.tables))

    @cached_property
    def main_columns(self) -> tuple[Column, ...]:
        """Those of the large tables: the one that the answer is of, Dice, surface Dice, HD95."""
        return tuple(one for one in self.columns if one == self.primary.column or one.key in MAIN_COLUMNS)

    def scores_of(self, table: TableResult) -> ScoreTable:
        """What a table's statistics are of."""
        return next(one for one in self.scores if (one.column, one.class_name) == (table.column, table.class_name))
