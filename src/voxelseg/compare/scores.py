"""Scores of all contestants, table by table: what statistics are computed from."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.evaluation import mean_of_defined
from voxelseg.metrics import MAIN_COLUMNS, Column

MEAN = ""
"""In place of a class: the mean over the classes."""
Runs = Mapping[str, Evaluation]
"""Seed -> scores with all folds pooled."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores of all contestants in one column, of one class or of the mean over the classes."""

    column: Column
    class_name: str = MEAN
    cases: tuple[str, ...]
    """All that any contestant has, or should have."""
    patients: Mapping[str, str]
    """Patient of each case."""
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Contestant -> seed -> case -> score. A case that is absent has no prediction; NaN: both masks are empty."""

    @property
    def title(self) -> str:
        """Such as "Dice of liver", or "Dice" for the mean over the classes."""
        return f"{self.column.title} of {self.class_name}" if self.class_name else self.column.title

    def missing(self, contestant: str) -> tuple[str, ...]:
        """Cases that some run of a contestant has no prediction of."""
        runs = self.values[contestant].values()
        return tuple(case for case in self.cases if any(case not in one for one in runs))

    def undefined(self, contestant: str) -> tuple[str, ...]:
        """Cases in which some run's score is undefined: reference and prediction are both empty."""
        runs = self.values[contestant].values()
        return tuple(case for case in self.cases if any(math.isnan(one.get(case, 0.0)) for one in runs))


def score_tables(
    contestants: Mapping[str, Runs],
    *,
    patients: Mapping[str, str] | None = None,
    by_class: Collection[str] = MAIN_COLUMNS,
) -> list[ScoreTable]:
    """Tables of every column that all runs have: the means over the classes, then the classes one by one.

    `contestants` maps names to runs, at least one each. `patients` has the patient of a case; a case that is not in it
    is a patient of its own. The classes are those that all runs have, one by one only in the columns `by_class`.
    `differences` says what is left out. DataError if no class or no column is in all runs, or someone has no run.
    """
    lacking = [contestant for contestant, each in contestants.items() if not each]
    if lacking or not contestants:
        raise DataError(
            f"there are no scores {f'of {some(lacking)}' if lacking else 'at all'}. Leave out who has none."
        )
    runs = [one for each in contestants.values() for one in each.values()]
    names, columns = _shared_classes(runs), _shared_columns(runs)
    if not names or not columns:
        raise DataError(
            f"no {'column' if names else 'class'} is in all evaluations. {' '.join(differences(contestants))}"
        )
    cases = tuple(sorted({case for one in runs for case in one.cases}))
    whose = {case: (patients or {}).get(case, case) for case in cases}
    tables: dict[str, list[ScoreTable]] = {name: [] for name in (MEAN, *names)}
    for column in columns:
        values = {
            contestant: {seed: {name: one.values(column.key, name) for name in names} for seed, one in each.items()}
            for contestant, each in contestants.items()
        }
        for name in (MEAN, *(names if column.key in by_class else ())):
            of_name = {
                contestant: {seed: _means(one) if name == MEAN else one[name] for seed, one in each.items()}
                for contestant, each in values.items()
            }
            tables[name].append(ScoreTable(column=column, class_name=name, cases=cases, patients=whose, values=of_name))
    return [table for each in tables.values() for table in each]


def differences(contestants: Mapping[str, Runs]) -> tuple[str, ...]:
    """Classes and columns that only some runs have, and which therefore are not compared, in words."""
    runs = [one for each in contestants.values() for one in each.values()]
    names = dict.fromkeys(name for one in runs for name in one.classes)
    columns = dict.fromkeys(column for one in runs for column in one.columns)
    lonely = [name for name in names if name not in _shared_classes(runs)]
    unlike = [column.heading for column in columns if column not in _shared_columns(runs)]
    notes = []
    if lonely:
        notes.append(f"Not compared, as not every contestant was scored on them: classes {some(lonely)}.")
    if unlike:
        notes.append(
            f"Not compared, as not every contestant has them: {some(unlike)}. Evaluate all with the same version and "
            "tolerances to have them."
        )
    return tuple(notes)


def _shared_classes(runs: Sequence[Evaluation]) -> list[str]:
    return [name for name in runs[0].classes if all(name in one.classes for one in runs)]


def _shared_columns(runs: Sequence[Evaluation]) -> list[Column]:
    return [column for column in runs[0].columns if all(column in one.columns for one in runs)]


def _means(classes: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Case -> mean over the classes that are defined in it; NaN if none is."""
    cases = dict.fromkeys(case for one in classes.values() for case in one)
    return {case: mean_of_defined(one[case] for one in classes.values() if case in one) for case in cases}
