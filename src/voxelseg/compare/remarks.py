"""What the reader of a comparison should know: what is missing, undefined, or hopeless."""

from collections.abc import Iterable, Sequence

from voxelseg.compare.results import TableResult
from voxelseg.compare.settings import CompareSettings
from voxelseg.compare.words import unit_of
from voxelseg.data.wording import counted, some
from voxelseg.statistics.sample_size import fewest_for_signed_rank


def remarks(tables: Sequence[TableResult], settings: CompareSettings) -> tuple[str, ...]:
    """Sentences, none twice."""
    first, *others = tables
    found = [*_missing(first, settings), *_undefined(tables), *_faults(first, others), *_hopeless(first, settings)]
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
            num_partly = len(either) - len(frozenset.intersection(*cases))
            notes[table.class_name, *cases] = _left_out(table, either, num_partly)
    return list(notes.values())


def _left_out(table: TableResult, cases: Sequence[str], num_partly: int) -> str:
    found = f"{table.title} is undefined in {counted(len(cases), 'case')}, left out for all contestants: {some(cases)}."
    if not num_partly:
        return found
    which = "one of them" if num_partly == 1 else f"{num_partly} of them"
    return (
        f"{found} In {which} not everyone's score is undefined: some found what is not there, which this comparison "
        "does not hold against them."
    )


def _hopeless(table: TableResult, settings: CompareSettings) -> list[str]:
    """Whether there are too few patients for the signed-rank test to find anything."""
    if table.fault or not table.pairs:
        return []
    least = fewest_for_signed_rank(settings.alpha / len(table.pairs))
    if table.num_patients >= least:
        return []
    there, pairs = counted(table.num_patients, unit_of(table)), counted(len(table.pairs), "pair")
    return [f"With {there} and {pairs} no difference can pass the signed-rank test, however large. It takes {least}."]
