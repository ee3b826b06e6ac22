"""Scores of all contestants, table by table: what statistics are computed from."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from voxelseg.data.wording import MOST_NAMED, counted, some
from voxelseg.errors import DataError
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.evaluation import mean_of_defined
from voxelseg.metrics import MAIN_COLUMNS, Column

MEAN = ""
"""In place of a class: the mean over the classes."""
Runs = Mapping[str, Evaluation]
"""Seed -> scores with all folds pooled."""
FalseFinds = Mapping[str, tuple[str, ...]]
"""Contestant -> cases in which some run found what the reference does not have."""
_ALIKE = 1e-3
"""Share by which volumes of one reference may differ: an evaluation of a copy rounds spacings otherwise."""
_ROUNDING = 1e-6
"""By which a score may lie beyond the best or the worst value."""
_LARGEST = 1e9
"""Of a length in mm or a volume in ml: far more than any scan has."""


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
    """Contestant -> seed -> case -> score. A case that is absent has no prediction; NaN: neither the reference nor any
    prediction has the class."""
    false_finds: FalseFinds = field(default_factory=dict)
    """Of the class, or of any for the mean. In these cases `values` have the column's best for rightly finding nothing.
    """

    @property
    def title(self) -> str:
        """Such as "Dice of liver", or "Dice" for the mean over the classes."""
        return f"{self.column.title} of {self.class_name}" if self.class_name else self.column.title

    def missing(self, contestant: str) -> tuple[str, ...]:
        """Cases that some run of a contestant has no prediction of."""
        runs = self.values[contestant].values()
        return tuple(case for case in self.cases if any(case not in one for one in runs))

    def undefined(self, contestant: str) -> tuple[str, ...]:
        """Cases in which some run's score is undefined: neither the reference nor anyone's prediction has anything."""
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
    `differences` says what is left out. A score that is undefined since both masks are empty becomes the best value
    where another contestant or run found something: left out, as it is where nobody did, it would take that one's
    mistake out of the comparison. So do challenges such as BraTS, in which finding nothing where nothing is has a Dice
    of 1. DataError if no class or no column is in all runs, someone has no run, a score is impossible, or
    references differ.
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
    _check_values(contestants, names, columns)
    _check_references(contestants, names)
    false_finds = _false_finds(contestants, names)
    disputed = {name: {case for cases in each.values() for case in cases} for name, each in false_finds.items()}
    cases = tuple(sorted({case for one in runs for case in one.cases}))
    whose = {case: (patients or {}).get(case, case) for case in cases}
    tables: dict[str, list[ScoreTable]] = {name: [] for name in (MEAN, *names)}
    for column in columns:
        values = {
            contestant: {
                seed: {name: _settled(one.values(column.key, name), disputed[name], column.best) for name in names}
                for seed, one in each.items()
            }
            for contestant, each in contestants.items()
        }
        for name in (MEAN, *(names if column.key in by_class else ())):
            of_name = {
                contestant: {seed: _means(one) if name == MEAN else one[name] for seed, one in each.items()}
                for contestant, each in values.items()
            }
            tables[name].append(
                ScoreTable(
                    column=column,
                    class_name=name,
                    cases=cases,
                    patients=whose,
                    values=of_name,
                    false_finds=false_finds[name],
                )
            )
    return [table for each in tables.values() for table in each]


def _check_values(contestants: Mapping[str, Runs], names: Collection[str], columns: Sequence[Column]) -> None:
    """DataError for a score that its column cannot have."""
    faults = []
    for column in columns:
        low, high = sorted((column.best, min(column.worst, _LARGEST)))
        faults += [
            f"{contestant}, {score.case}, {score.name}: {column.title} {score.metrics[column.key]:g}"
            for contestant, runs in contestants.items()
            for one in runs.values()
            for score in one.scores
            if score.name in names and _is_outside(score.metrics[column.key], low, high)
        ]
    if faults:
        raise DataError(f"impossible scores: {'; '.join(faults[:MOST_NAMED])}. Evaluate these predictions again.")


def _is_outside(value: float, low: float, high: float) -> bool:
    """Whether a value lies beyond one of the ends, rounding aside; NaN does not."""
    return value < low - _ROUNDING or value > high + _ROUNDING


def _check_references(contestants: Mapping[str, Runs], names: Collection[str]) -> None:
    """DataError if a class of a case has another volume in the reference of someone else."""
    first: dict[tuple[str, str], tuple[float, str]] = {}
    faults: dict[str, str] = {}
    for contestant, runs in contestants.items():
        for score in (score for one in runs.values() for score in one.scores if score.name in names):
            volume = score.volume_reference_mm3
            known, owner = first.setdefault((score.case, score.name), (volume, contestant))
            if not math.isclose(known, volume, rel_tol=_ALIKE):
                found = f"{known:g} mm³ for {owner} and {volume:g} mm³ for {contestant}"
                faults.setdefault(score.case, f"{score.name} of {score.case} has {found}")
    if faults:
        raise DataError(
            f"{counted(len(faults), 'case')} with different references: {some(faults)}. In the reference "
            f"{next(iter(faults.values()))}. Score all predictions against the same label maps."
        )


def _false_finds(contestants: Mapping[str, Runs], names: Sequence[str]) -> dict[str, FalseFinds]:
    """By class, and for any of them."""
    found: dict[str, dict[str, dict[str, None]]] = {name: {one: {} for one in contestants} for name in (MEAN, *names)}
    for contestant, runs in contestants.items():
        for score in (score for one in runs.values() for score in one.scores if score.name in found):
            if score.empty_reference and not score.empty_prediction:
                found[score.name][contestant][score.case] = found[MEAN][contestant][score.case] = None
    return {name: {one: tuple(sorted(cases)) for one, cases in each.items()} for name, each in found.items()}


def _settled(values: Mapping[str, float], disputed: Collection[str], best: float) -> dict[str, float]:
    """Scores by case; undefined ones are the best where someone found what is not there."""
    return {case: best if case in disputed and math.isnan(value) else value for case, value in values.items()}


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
