"""What the reader of a comparison should know: what is missing, undefined, or hopeless."""

from collections.abc import Iterable, Sequence

from voxelseg.compare.results import TableResult
from voxelseg.compare.scores import MEAN
from voxelseg.compare.settings import CompareSettings
from voxelseg.compare.words import unit_of
from voxelseg.data.wording import counted, listed, some
from voxelseg.statistics.sample_size import fewest_for_signed_rank


def remarks(tables: Sequence[TableResult], settings: CompareSettings) -> tuple[str, ...]:
    """Sentences, none twice."""
    first, *others = tables
    found = [
        *_missing(first, settings),
        *_false_finds(tables),
        *_undefined(tables),
        *_faults(first, others),
        *_hopeless(first, settings),
    ]
    return tuple(dict.fromkeys(found))


def _faults(first: TableResult, others: Sequence[TableResult]) -> list[str]:
    """What cannot be decided beside the first table, and why; what is wrong with that one, too, is not repeated."""
    faulty = {one.title: one.fault for one in others if one.fault and one.fault != first.fault}
    reasons: dict[str, list[str]] = {}
    for title, fault in faulty.items():
        reasons.setdefault(fault.replace(title, "it"), []).append(title)
    return [f"{some(titles)} cannot be decided: {reason}." for reason, titles in reasons.items()]


def _missing(table: TableResult, settings: CompareSettings) -> list[str]:
    taken = "counts as the worst value" if settings.missing == "worst" else "is left out for all contestants"
    return [
        f"{one.name} has no prediction of {counted(len(one.missing), 'case')}, which {taken}: {some(one.missing)}."
        for one in table.standings
        if one.missing
    ]


def _undefined(tables: Iterable[TableResult]) -> list[str]:
    """Cases that are left out because some score is undefined; once for the columns of a class that agree in that."""
    notes: dict[object, str] = {}
    for table in tables:
        cases = [frozenset(one.undefined) for one in table.standings]
        either = sorted(frozenset().union(*cases))
        if either and (table.class_name, *cases) not in notes:
            many = counted(len(either), "case")
            found = f"{table.title} is undefined in {many}, left out for all contestants: {some(either)}."
            notes[table.class_name, *cases] = found
    return list(notes.values())


def _false_finds(tables: Iterable[TableResult]) -> list[str]:
    """Who found classes that the reference does not have, once for all columns of a class."""
    of_class: dict[str, TableResult] = {}
    for table in tables:
        of_class.setdefault(table.class_name, table)
    of_class.pop(MEAN, None)
    notes = []
    for name, table in of_class.items():
        found = [
            f"{one.name} in {counted(len(one.false_finds), 'case')} ({some(one.false_finds)})"
            for one in table.standings
            if one.false_finds
        ]
        if found:
            notes.append(
                f"{name}: found where the reference has none by {listed(found)}. That counts as it was scored, such as "
                "a Dice of 0; who rightly found nothing there counts with the best value, such as a Dice of 1."
            )
    return notes


def _hopeless(table: TableResult, settings: CompareSettings) -> list[str]:
    """Whether there are too few patients for the signed-rank test to find anything."""
    if table.fault or not table.pairs:
        return []
    least = fewest_for_signed_rank(settings.alpha / len(table.pairs))
    if table.num_patients >= least:
        return []
    there, pairs = counted(table.num_patients, unit_of(table)), counted(len(table.pairs), "pair")
    return [f"With {there} and {pairs} no difference can pass the signed-rank test, however large. It takes {least}."]
