"""What contestants cost, and what they give for it."""

import math
from collections.abc import Callable, Mapping

from voxelseg.compare.cost import Cost
from voxelseg.compare.trade_off import performance_trade_off, relative
from voxelseg.report.comparison.document import Cell, Drawing, Section, Table, cells
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.numbers import DASH, count_text, latency_text, memory_text, steps_text, time_text
from voxelseg.report.facts import text_of
from voxelseg.report.figures.bubbles import describe_bubbles, draw_bubbles
from voxelseg.report.figures.look import Estimate
from voxelseg.report.figures.pareto import describe_pareto, draw_pareto
from voxelseg.report.figures.trade_off import describe_trade_off, draw_trade_off

_Known = Mapping[str, float | None]
_PARETO: tuple[tuple[str, str, str, float], ...] = (
    ("latency_s", "pareto_latency", "time of one patch (ms)", 1e-3),
    ("peak_memory_bytes", "pareto_memory", "memory of one patch (MB)", 1e6),
    ("training_s", "pareto_training", "training time (min)", 60.0),
)
"""Cost, name of the drawing, what its axis says, and the size of its unit."""
_ALIKE = 1.02
"""Costs that differ by no more than this factor are the same."""
_COLUMNS: tuple[tuple[str, str, Callable[[Cost], str]], ...] = (
    ("parameters", "Parameters", lambda one: count_text(one.parameters)),
    ("macs", "Multiply-accumulates", lambda one: count_text(one.macs)),
    (
        "patch_size",
        "Patch",
        lambda one: DASH if one.patch_size is None else text_of(list(one.patch_size), "patch_size"),
    ),
    ("latency_s", "Time of a patch", lambda one: latency_text(one.latency_s)),
    ("peak_memory_bytes", "Memory of a patch", lambda one: memory_text(one.peak_memory_bytes)),
    ("training_memory_bytes", "Memory of training", lambda one: memory_text(one.training_memory_bytes)),
    ("training_s", "Training", lambda one: time_text(one.training_s)),
    ("steps", "Steps", lambda one: steps_text(one.steps)),
    ("seconds_per_case", "Time of a case", lambda one: latency_text(one.seconds_per_case)),
    ("device", "Measured on", lambda one: _machine(one)),
)


def _machine(cost: Cost) -> str:
    threads = "" if cost.threads is None else f", {cost.threads} threads" if cost.threads != 1 else ", 1 thread"
    return f"{cost.device or DASH}{threads}"


def costs_section(material: Material) -> Section | None:
    """Table of costs and drawings of scores against them; None if no cost is known."""
    costs = {one.name: one.cost for one in material.contestants if one.cost is not None}
    columns = [one for one in _COLUMNS if any(getattr(cost, one[0]) is not None for cost in costs.values())]
    if not columns:
        return None
    trade_off = _trade_off(material)
    with_score = any(not math.isnan(value) for value in trade_off.values())
    rows = [
        (
            Cell(name),
            *cells([DASH if cost is None else text(cost) for _, _, text in columns]),
            *([Cell(_number(trade_off.get(name, math.nan)))] if with_score else []),
        )
        for name, cost in ((one.name, one.cost) for one in material.contestants)
    ]
    titles = [title for _, title, _ in columns]
    table = Table(
        headings=("Contestant", *titles, *(["Trade-off score"] if with_score else [])),
        rows=tuple(rows),
        hint=_hint(with_score=with_score),
    )
    notes = dict.fromkeys(note for cost in costs.values() for note in cost.notes)
    return Section(title="Costs", tables=(table,), drawings=tuple(_drawings(material)), remarks=tuple(notes))


def _hint(*, with_score: bool) -> str:
    words = "Time and memory are of a prediction of one patch, as far as they were measured; training: mean over runs."
    if with_score:
        words += " Trade-off score: eq. 7 of E2ENet (arXiv:2312.04727) of score, parameters and multiply-accumulates."
    return words


def _number(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"


def _costs(material: Material, name: str, size: float = 1.0) -> dict[str, float | None]:
    """Contestant -> one of its costs in units of `size`; None where it is not known."""
    found: dict[str, float | None] = {}
    for one in material.compared.values():
        value = None if one.cost is None else getattr(one.cost, name)
        found[one.name] = None if value is None else value / size
    return found


def _can_be_weighed(material: Material, *costs: _Known) -> bool:
    """Whether two contestants at least have a score above 0, since higher must be better, and all of the costs."""
    if not material.primary.column.higher_is_better:
        return False
    known = [one.name for one in material.primary.standings if one.mean > 0]
    return sum(all((kind.get(name) or 0) > 0 for kind in costs) for name in known) > 1


def _trade_off(material: Material) -> dict[str, float]:
    """Score of eq. 7 by contestant; nothing where it cannot be had."""
    parameters, macs = _costs(material, "parameters"), _costs(material, "macs")
    if not _can_be_weighed(material, parameters, macs):
        return {}
    return performance_trade_off({one.name: one.mean for one in material.primary.standings}, [parameters, macs])


def _differ(costs: _Known) -> bool:
    """Whether two contestants have different costs; equal minutes, for one, are the same but for a part of a step."""
    known = [value for value in costs.values() if value is not None]
    return len(known) > 1 and max(known) > _ALIKE * min(known)


def _drawings(material: Material) -> list[Drawing]:
    column, standings = material.primary.column, material.primary.standings
    scores = {one.name: Estimate(one.mean, one.interval.low, one.interval.high) for one in standings}
    found = []
    for cost, name, cost_label, size in _PARETO:
        costs = _costs(material, cost, size)
        if not _differ(costs):
            continue
        words = {"label": column.title, "unit": column.unit, "cost_label": cost_label}
        up = column.higher_is_better
        found.append(
            Drawing(
                name=name,
                title=f"{column.title} against {cost_label.partition(' (')[0]}",
                hint="filled: the Pareto front, nobody is better at no higher cost",
                text=describe_pareto(scores, costs, higher_is_better=up, **words),
                figure=draw_pareto(scores, costs, higher_is_better=up, look=material.looks, **words),
            )
        )
    macs, parameters = _costs(material, "macs", 1e9), _costs(material, "parameters", 1e6)
    if _can_be_weighed(material, macs, parameters):
        found += _papers_drawings(material, macs, parameters)
    return found


def _papers_drawings(material: Material, macs: _Known, parameters: _Known) -> list[Drawing]:
    column = material.primary.column
    means = {one.name: one.mean for one in material.primary.standings}
    weighed = relative(means, [parameters, macs])
    return [
        Drawing(
            name="bubbles",
            title=f"{column.title} against multiply-accumulates and parameters",
            hint="as E2ENet's Fig. 2",
            text=describe_bubbles(means, macs, parameters, label=column.title, unit=column.unit),
            figure=draw_bubbles(means, macs, parameters, label=column.title, unit=column.unit, look=material.looks),
        ),
        Drawing(
            name="trade_off",
            title="Trade-off score with other weights",
            hint="as E2ENet's Fig. 9",
            text=describe_trade_off(weighed, label=column.title),
            figure=draw_trade_off(weighed, label=column.title, look=material.looks),
        ),
    ]
