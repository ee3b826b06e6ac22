"""The first screen: which one, how sure, in a few sentences, one figure and one small table."""

from collections.abc import Callable

from voxelseg.compare.cost import Cost
from voxelseg.compare.pairs import Pair
from voxelseg.compare.patients import OWN_PATIENTS, are_own
from voxelseg.data.wording import counted, some
from voxelseg.report.comparison.document import Cell, Drawing, Table, cells
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.numbers import (
    DASH,
    count_text,
    equals,
    latency_text,
    p_text,
    score_text,
    time_text,
)
from voxelseg.report.comparison.pairs import REASONS, p_of_pairs
from voxelseg.report.comparison.score_tables import marked
from voxelseg.report.figures.look import Estimate, short
from voxelseg.report.figures.scores import describe_scores, draw_scores

_LONGEST_NAME = 30
"""Characters; the other tables have the whole name."""
_VERDICT = "Against the best"
MOST_ANSWERS = 3
"""Sentences of the first screen; the others are in the section after it."""


def title_of(material: Material) -> str:
    """Of the page."""
    many = len(material.contestants)
    return f"Comparison of {many} contestants" if many > 1 else f"Scores of {material.contestants[0].name}"


def lead_of(material: Material) -> str:
    """What was compared on what, in a line."""
    table = material.primary
    seeds = sorted({len(one.runs) for one in material.compared.values()})
    trained = counted(seeds[0], "run") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} runs"
    return (
        f"{counted(table.num_cases, 'case')} of {counted(table.num_patients, 'patient')}, "
        f"{counted(len(material.classes), 'class', 'classes')}, {trained} of each. Ranked by {table.column.heading}, "
        "the mean over the classes."
    ) + (f" {OWN_PATIENTS}" if are_own(material.scores_of(table).patients) else "")


def status_of(material: Material) -> str:
    """What went wrong, in sentences; empty if nothing did."""
    failed = [f"{one.name} ({one.fault})" for one in material.failed]
    partly = [one.name for one in material.compared.values() if one.fault]
    lacking = [one.name for one in material.primary.standings if one.missing]
    sentences = [f"Failed, and not among the others: {'; '.join(failed)}."] if failed else []
    sentences += [f"Some runs failed: {some(partly)}."] if partly else []
    sentences += [f"Predictions are missing: {some(lacking)}."] if lacking else []
    fault = material.primary.fault
    sentences += [f"{fault[0].upper()}{fault[1:]}."] if fault else []
    return " ".join(sentences)


def overview_drawing(material: Material) -> Drawing:
    """Means with intervals."""
    table = material.primary
    column = table.column
    several = any(len(one.runs) > 1 for one in material.compared.values())
    found = {
        one.name: Estimate(
            one.mean, one.interval.low, one.interval.high, tuple(one.seed_means.values()) if several else ()
        )
        for one in table.ranking
    }
    faults = {one.name: "failed" for one in material.failed}
    return Drawing(
        name="scores",
        title=f"{column.title} with 95 % intervals",
        text=describe_scores(found, label=column.title, unit=column.unit, faults=faults),
        hint="over patients" + ("; dots: single runs" if several else ""),
        figure=draw_scores(found, label=column.title, unit=column.unit, faults=faults, look=material.looks),
    )


def against(pair: Pair, alpha: float) -> str:
    """Verdict and p, such as "worse, p < 0.001"; where only the seeds stand against a verdict, that."""
    words = REASONS["seeds"] if pair.reason == "seeds" and pair.adjusted_wilcoxon_p < alpha else pair.verdict
    return f"{words}, p {equals(p_text(pair.adjusted_p))}".replace("p ", "p\u00a0").replace("< ", "<\u00a0")


def overview_table(material: Material) -> Table:
    """Name, mean with interval, place, verdict against the best, cost; best first, those that failed last."""
    table = material.primary
    best, names = material.best.name, short((one.name for one in material.contestants), _LONGEST_NAME)
    what, cost_of = _cost_in_short(material)
    rows: list[tuple[Cell, ...]] = []
    for place, one in enumerate(table.ranking):
        pair = None if one.name == best else table.pair(one.name, best)
        rows.append(
            (
                Cell(names[one.name]),
                marked(table, one, score_text(one.mean, one.interval, table.column.unit)),
                Cell(str(place + 1)),
                Cell(DASH if pair is None else against(pair, material.comparison.settings.alpha)),
                Cell(cost_of(material.compared[one.name].cost)),
            )
        )
    rows += [(Cell(names[one.name]), *cells(("failed", DASH, DASH, cost_of(one.cost)))) for one in material.failed]
    with_costs = any(row[-1].text != DASH for row in rows)
    headings = ("Contestant", f"{table.column.heading} [95 %]", "Place", _VERDICT, "Cost")
    reading = f"Best first. ≈: not told apart from the best. {p_of_pairs(table)}, Holm."
    return Table(
        headings=headings if with_costs else headings[:-1],
        rows=tuple(row if with_costs else row[:-1] for row in rows),
        words=(_VERDICT, "Cost"),
        hint=" ".join([reading] * (len(table.standings) > 1) + [f"Cost: {what}."] * with_costs),
    )


def _cost_in_short(material: Material) -> tuple[str, Callable[[Cost | None], str]]:
    """What the column of costs has, in words, and its text: the network's if some is known, or that of the training."""
    if any(one.cost is not None and one.cost.parameters is not None for one in material.contestants):
        return "parameters, time of one patch", _cost_of_network
    return "time of training", lambda cost: time_text(cost and cost.training_s)


def _cost_of_network(cost: Cost | None) -> str:
    if cost is None or cost.parameters is None:
        return DASH
    return ", ".join([count_text(cost.parameters)] + [latency_text(cost.latency_s)] * (cost.latency_s is not None))
