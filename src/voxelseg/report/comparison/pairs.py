"""Every contestant against every other: differences, tests, verdicts."""

import math
from collections.abc import Iterable

from voxelseg.compare.pairs import Pair
from voxelseg.compare.results import TableResult
from voxelseg.report.comparison.document import Cell, Drawing, Section, Table, cells
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.numbers import DASH, equals, interval_text, p_text, percent, signed, signed_interval
from voxelseg.report.figures.forest import Difference, describe_forest, draw_forest
from voxelseg.report.figures.look import Estimate
from voxelseg.report.figures.ranks import describe_ranks, draw_ranks
from voxelseg.report.figures.stability import describe_stability, draw_stability
from voxelseg.statistics.intervals import Interval

REASONS = {
    "patients": "too few patients",
    "same": "same values",
    "seeds": "seeds may explain it",
    "tests": "tests disagree",
    "undefined": "nothing to compare",
    "missing": "predictions are missing",
}
"""Why a pair is undecided."""
_VERDICT = "The first one is"
_MOST_OPEN = 36
"""Pairs that are shown without a click: those of nine contestants."""


def p_of_pairs(table: TableResult) -> str:
    """Which test the p-values of a table's pairs are of, before they are adjusted."""
    with_seeds = ", or t-test over patients and seeds where that is larger" if _knows_seeds(table) else ""
    return f"p: Wilcoxon signed-rank test over patients{with_seeds}"


def _knows_seeds(table: TableResult) -> bool:
    return any(one.knows_seeds for one in table.pairs)


def _reading(table: TableResult) -> str:
    words = (
        f"95 %: bootstrap interval over patients; better / worse: patients. {p_of_pairs(table)}, adjusted by Holm for "
        "all pairs of the table; t-test: paired, over patients, not adjusted. r: matched-pairs rank-biserial "
        "correlation, dz: Cohen's. Equivalence: p of two one-sided tests that the difference is within the margin, Holm"
    )
    if not _knows_seeds(table):
        return f"{words}."
    return f"{words}, likewise the larger one. 95 % with seeds: t-interval over patients and seeds, not adjusted."


def verdict_text(pair: Pair) -> str:
    """Such as "better" or "undecided: about 120 patients would be needed"."""
    if pair.verdict != "undecided":
        return pair.verdict
    if pair.patients_needed is not None:
        return f"undecided: about {pair.patients_needed} patients needed"
    return f"undecided: {REASONS[pair.reason]}" if pair.reason in REASONS else "undecided"


def pairs_section(material: Material) -> Section | None:
    """Tables of all pairs in the main metrics; None for a single contestant."""
    if len(material.primary.standings) < 2:
        return None
    tables = [_pair_table(material.primary, first=True)]
    for column in material.main_columns:
        table = material.comparison.table(column.key)
        if table is not None and table is not material.primary:
            tables.append(_pair_table(table, first=False))
    return Section(
        title="Every pair",
        drawings=(_best_against_others(material),),
        sentences=("Differences are the first one minus the second one, which has the worse mean.",),
        tables=tuple(tables),
        remarks=(_reading(material.primary),),
    )


def _best_against_others(material: Material) -> Drawing:
    """Of all pairs those with the best: the others would make a long drawing."""
    table = material.primary
    column, best = table.column, material.best.name
    pairs = [table.pair(best, one.name) for one in table.ranking[1:]]
    found = [
        Difference(one.ours, one.theirs, Estimate(one.difference, one.interval.low, one.interval.high), one.verdict)
        for one in pairs
    ]
    margin = material.comparison.settings.margin_of(column) or 0.0
    return Drawing(
        name="differences",
        title=f"{best} against the others",
        hint=f"{column.heading}, 95 % intervals over patients",
        text=describe_forest(found, label=column.title, unit=column.unit, margin=margin),
        figure=draw_forest(
            found,
            label=column.title,
            unit=column.unit,
            margin=margin,
            higher_is_better=column.higher_is_better,
        ),
    )


def _pair_table(table: TableResult, *, first: bool) -> Table:
    ranking, unit = [one.name for one in table.ranking], table.column.unit
    found = [table.pair(ours, theirs) for place, ours in enumerate(ranking) for theirs in ranking[place + 1 :]]
    margins = {one.margin for one in found}
    margin = f", margin {margins.pop():g}" if len(margins) == 1 and None not in margins else ""
    with_seeds = _knows_seeds(table)
    headings = ("First", "Second", _VERDICT, "Difference", "95 %", "p", "t-test p", "r", "dz", "Better / worse")
    return Table(
        title=f"{table.column.heading}{margin}",
        headings=(*headings, "Equivalence p", *(["95 % with seeds"] if with_seeds else [])),
        words=("Second", _VERDICT),
        rows=tuple(_pair_row(one, unit, with_seeds=with_seeds) for one in found),
        folded=not first or len(found) > _MOST_OPEN,
    )


def _pair_row(one: Pair, unit: str, *, with_seeds: bool) -> tuple[Cell, ...]:
    return cells(
        (
            one.ours,
            one.theirs,
            verdict_text(one),
            signed(one.difference, unit),
            signed_interval(one.interval, unit),
            p_text(one.adjusted_p),
            p_text(one.t_p),
            _effect(one.rank_biserial),
            _effect(one.cohens_dz),
            f"{one.num_better} / {one.num_worse}",
            p_text(one.adjusted_equivalence_p) if one.margin is not None else DASH,
            *([signed_interval(one.seeds, unit)] if with_seeds else []),
        )
    )


def _effect(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def ranks_section(material: Material) -> Section | None:
    """Mean ranks with the critical difference, and how stable places are; None for a single contestant."""
    table = material.primary
    if len(table.standings) < 2 or not table.num_cases:
        return None
    means = {one.name: one.mean_rank for one in table.standings}
    shares = {one.name: one.rank_shares for one in table.ranking}
    drawings = [
        Drawing(
            name="ranks",
            title="Mean ranks and critical difference",
            hint="Friedman and Nemenyi; a bar joins who is not told apart",
            text=describe_ranks(means, table.critical_difference),
            figure=draw_ranks(means, table.critical_difference, note=_why_no_difference(table)),
        ),
        Drawing(
            name="rank_stability",
            title="Places when other patients are drawn",
            text=describe_stability(shares),
            figure=draw_stability(shares),
        ),
    ]
    return Section(
        title="How stable the ranking is",
        sentences=(_friedman(table),),
        drawings=tuple(drawings),
        tables=(_rank_table(table),),
    )


def _why_no_difference(table: TableResult) -> str:
    if not math.isnan(table.critical_difference):
        return ""
    return f"No critical difference: it takes {_lacking(table)}."


def _friedman(table: TableResult) -> str:
    if math.isnan(table.friedman.p):
        alone = "Two contestants are compared by their pair; " if len(table.standings) == 2 else ""
        return f"{alone}Friedman's test takes {_lacking(table)}."
    return (
        f"Friedman's test that all are alike: p {equals(p_text(table.friedman.p))} "
        f"(χ² = {table.friedman.chi2:.2f}), by Iman and Davenport's F: p {equals(p_text(table.friedman.f_p))}."
    )


def _lacking(table: TableResult) -> str:
    """What there is too little of to test mean ranks."""
    few = len(table.standings) < 3, table.num_patients < 2
    return " and ".join(
        what for what, lacks in zip(("three contestants or more", "two patients or more"), few, strict=True) if lacks
    )


def _rank_table(table: TableResult) -> Table:
    many = len(table.standings)
    ranks = {one.name: DASH if math.isnan(one.mean_rank) else f"{one.mean_rank:.2f}" for one in table.standings}
    return Table(
        title="Shares of the places",
        headings=("Contestant", "Mean rank", *(str(place + 1) for place in range(many))),
        rows=tuple(cells((one.name, ranks[one.name], *map(percent, one.rank_shares))) for one in table.ranking),
        hint="Mean rank: mean over the patients of its place. Shares: of the bootstrap draws of patients.",
        folded=True,
    )


def seeds_section(material: Material) -> Section | None:
    """The mean of each run; None if everyone has a single one."""
    table = material.primary
    seeds = list(dict.fromkeys(seed for one in table.standings for seed in one.seed_means))
    if all(len(one.seed_means) < 2 for one in table.standings):
        return None
    unit = table.column.unit
    rows = [
        cells(
            (
                one.name,
                *(signed(one.seed_means[seed], unit).lstrip("+") if seed in one.seed_means else DASH for seed in seeds),
                signed(one.seed_std, unit).lstrip("+"),
                interval_text(_ends(one.seed_means.values()), unit),
            )
        )
        for one in table.ranking
    ]
    return Section(
        title="Runs with other seeds",
        sentences=(
            "What another training of the same kind might have given. Intervals over patients do not have it in them.",
        ),
        tables=(
            Table(
                headings=("Contestant", *(f"seed {seed}" for seed in seeds), "SD of seeds", "Smallest, largest"),
                rows=tuple(rows),
                hint=f"{table.column.heading}, mean over the same cases for each run.",
            ),
        ),
    )


def _ends(values: Iterable[float]) -> Interval:
    known = [value for value in values if not math.isnan(value)]
    return Interval(min(known), max(known)) if known else Interval(math.nan, math.nan)
