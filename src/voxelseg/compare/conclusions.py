"""What follows from a comparison: who is best and how sure that is, in plain words."""

import math
from collections.abc import Sequence

from voxelseg.compare.pairs import Pair
from voxelseg.compare.results import TableResult
from voxelseg.compare.scores import MEAN
from voxelseg.compare.words import cases_in_words, mean_in_words, pair_in_words
from voxelseg.data.wording import counted, listed
from voxelseg.metrics import MAIN_COLUMNS
from voxelseg.statistics.seeds import ENOUGH_SEEDS


def conclusions(tables: Sequence[TableResult]) -> tuple[str, ...]:
    """Sentences about the first table, the answer and its reach first; then each other main column."""
    first, *others = tables
    beside = [one for one in others if one.class_name == MEAN and one.column.key in MAIN_COLUMNS]
    answer, *more = _answer(first)
    return (answer, *_reach(first), *more, *(f"{one.title}: {_in_short(one)}" for one in beside))


def _answer(table: TableResult) -> list[str]:
    """Who is best, and what tells that one from the others."""
    if len(table.standings) == 1:
        return [_alone(table)]
    if table.fault:
        means = [f"{one.name} {mean_in_words(one, table.column)}" for one in table.ranking if not math.isnan(one.mean)]
        seen = f" Mean {table.title}: {listed(means)}." if means else ""
        return [f"Which contestant is best cannot be decided: {table.fault}.{seen}"]
    best, *others = [one.name for one in table.ranking]
    pairs = [table.pair(best, other) for other in others]
    told = [pair_in_words(one, table) for one in pairs]
    return told if len(pairs) == 1 else [_leader(table, best, pairs), *told, *_among(table, others)]


def _alone(table: TableResult) -> str:
    one = table.standings[0]
    if not table.num_cases:
        return f"{one.name} has no {table.title} in any case."
    mean = f"{mean_in_words(one, table.column)} over {cases_in_words(table)}"
    return f"{one.name} has a mean {table.title} of {mean}; there is no other contestant."


def _leader(table: TableResult, best: str, pairs: Sequence[Pair]) -> str:
    mean = f"{mean_in_words(table.standing(best), table.column)} over {cases_in_words(table)}"
    if all(one.verdict == "better" for one in pairs):
        return f"{best} is best: mean {table.title} {mean}, better than {_all_others(len(pairs))}."
    share = f"{100 * table.standing(best).rank_shares[0]:.0f} %"
    return (
        f"No contestant can be called best. {best} has the best mean {table.title}, {mean}, and keeps it in {share} of "
        f"the draws of other patients, but {_relations(pairs)}."
    )


def _all_others(many: int) -> str:
    return "both others" if many == 2 else f"all {many} others"


def _relations(pairs: Sequence[Pair]) -> str:
    """What the first contestant of all the pairs is to the second ones; the open ones first."""
    named = {verdict: [one.theirs for one in pairs if one.verdict == verdict] for verdict in ("equivalent", "better")}
    rest = [one.theirs for one in pairs if one.theirs not in named["equivalent"] + named["better"]]
    parts = [
        f"cannot be told apart from {listed(rest)}" if rest else "",
        f"has no meaningful difference from {listed(named['equivalent'])}" if named["equivalent"] else "",
        f"is better than {listed(named['better'])}" if named["better"] else "",
    ]
    return f"it {listed([part for part in parts if part])}"


def _among(table: TableResult, others: Sequence[str]) -> list[str]:
    """Which of the others, best first, are better than which."""
    found = []
    for place, ours in enumerate(others):
        beaten = [theirs for theirs in others[place + 1 :] if table.pair(ours, theirs).verdict == "better"]
        found += [f"{ours} is better than {listed(beaten)}"] if beaten else []
    return [f"Among the others, {'; '.join(found)}."] if found else []


def _in_short(table: TableResult) -> str:
    """A sentence about a further column."""
    if table.fault and len(table.standings) > 1:
        return f"cannot be decided: {table.fault}."
    best, *others = table.ranking
    if not others:
        return f"{mean_in_words(best, table.column)}." if table.num_cases else "no case has a value."
    pairs = [table.pair(best.name, other.name) for other in others]
    if len(pairs) == 1:
        return pair_in_words(pairs[0], table)
    mean = mean_in_words(best, table.column)
    if all(one.verdict == "better" for one in pairs):
        return f"{best.name} is best, {mean}, better than {_all_others(len(pairs))}."
    return f"{best.name} has the best mean, {mean}, but {_relations(pairs)}."


def _reach(table: TableResult) -> list[str]:
    """How far the answer reaches: only these trainings, or others with other seeds, too."""
    if all(one.verdict == "undecided" for one in table.pairs):
        return []
    counts = sorted({len(one.seed_means) for one in table.standings})
    if counts[0] >= ENOUGH_SEEDS:
        return [f"Patients and the seeds of the trainings ({counts[0]} at least) were both taken into account."]
    many = counted(counts[0], "run") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} runs"
    holds = f"This holds for these trainings, {many} of each contestant; what other seeds would change is not known."
    return [f"{holds} {ENOUGH_SEEDS} seeds of each, or more, would say."]
