"""Sparse connections: which kernels are active, and where the features that they fuse come from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from voxelseg.compare.fusion import WAYS, Topology
from voxelseg.data.wording import counted
from voxelseg.report.curves import to_svg
from voxelseg.report.facts import Facts
from voxelseg.report.figures.fusion import describe_fusion, draw_course, draw_ends
from voxelseg.report.figures.learning import Curve, describe_updates, draw_updates
from voxelseg.report.run import Fold, number

_PIXELS_PER_INCH = 102
"""On the page: what makes the widest drawing, of fifteen nodes, as wide as the text."""
_SHARES = "shares of the active kernels of each node, by where their input comes from"
_LOSSES = {"training": "loss", "validation": "validation_loss"}


@dataclass(frozen=True)
class SparseDrawing:
    """One drawing on the page."""

    title: str
    hint: str
    svg: Markup
    width: int
    """In pixels, at most."""


@dataclass(frozen=True)
class SparseFold:
    """The sparse layers of one fold."""

    name: str
    facts: Facts
    has_nodes: bool
    """Whether there are fusion nodes."""
    drawings: tuple[SparseDrawing, ...]
    """Of the fusion nodes if there are any, and of the loss if kernels moved."""
    titles: tuple[str, ...]
    """Of the columns of `rows`."""
    rows: tuple[tuple[str, ...], ...]
    """A fusion node, or a layer where there are none: active kernels, then the active share of each direction."""


def sparse_folds(folds: Sequence[Fold]) -> list[SparseFold]:
    """What the logs say of sparse layers, for each fold that has any."""
    return [_sparse_fold(fold) for fold in folds if fold.topology]


def _sparse_fold(fold: Fold) -> SparseFold:
    first, last = fold.topology[0], fold.topology[-1]
    titles, rows = _node_table(first, last) if last["nodes"] else _layer_table(last)
    return SparseFold(
        name=fold.name,
        facts=_facts(fold.topology),
        has_nodes=bool(last["nodes"]),
        drawings=tuple(_drawings(fold)),
        titles=titles,
        rows=rows,
    )


def _facts(history: Sequence[Topology]) -> Facts:
    last, updates = history[-1], [one for one in history if one["moved"]]
    active, kernels = (sum(counts[place] for counts in last["layers"].values()) for place in (0, 1))
    layers = counted(len(last["layers"]), "layer")
    facts = [("Active kernels", f"{counted(active, 'kernel')} of {kernels:,} in {layers}".replace(",", "\u202f"))]
    facts.append(("Sparsity", _percent(1 - active / kernels)))
    if not updates:
        return [*facts, ("Updates", "none: the active kernels are those of the beginning")]
    moved = sum(one["moved"] for one in updates)
    began, ended = updates[0]["step"], updates[-1]["step"]
    steps = f"from step {began} to {ended}" if len(updates) > 1 else f"in step {began}"
    facts.append(("Updates", f"{len(updates)}, {steps}"))
    facts.append(
        ("Moved kernels", f"{counted(moved, 'kernel')}: each active one {moved / active:.2g} times on average")
    )
    rates = " to ".join(_percent(one["rate"]) for one in (updates[0], updates[-1]))
    return [*facts, ("Share moved in an update", rates)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _node_table(first: Topology, last: Topology) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = []
    for name, sources in last["nodes"].items():
        active = sum(counts[0] for counts in sources.values())
        cells = [_change(first["nodes"][name].get(way), sources.get(way)) for way in WAYS]
        rows.append((name, counted(active, "kernel").split(" ")[0], *cells))
    return ("Node", "Active kernels", *(f"Active share {way}" for way in WAYS)), tuple(rows)


def _change(before: Sequence[int] | None, after: Sequence[int] | None) -> str:
    """Active share of the kernels at the beginning and at the end; a dash where a node has no such source."""
    if not before or not after:
        return "–"
    return " → ".join(_percent(active / kernels) for active, kernels in (before, after))


def _layer_table(last: Topology) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = [
        (name, str(active), str(kernels), _percent(active / kernels))
        for name, (active, kernels) in last["layers"].items()
    ]
    return ("Layer", "Active kernels", "Kernels", "Active share"), tuple(rows)


def _drawings(fold: Fold) -> list[SparseDrawing]:
    found = []
    if fold.topology[-1]["nodes"]:
        text = describe_fusion({f"fold {fold.name}": fold.topology})
        ends, course = draw_ends(fold.topology), draw_course(fold.topology)
        found.append(_drawing(fold, "Connections before and after training", f"{_SHARES}; pale: before", text, ends))
        found.append(_drawing(fold, "Connections during training", _SHARES, text, course))
    losses = {name: curve for name, key in _LOSSES.items() if (curve := _over_steps(fold, key))[0]}
    if losses and any(one["moved"] for one in fold.topology):
        figure, text = draw_updates(losses, fold.topology, label="loss"), describe_updates(fold.topology, label="Loss")
        found.append(_drawing(fold, "Loss and moving connections", "as E2ENet's Fig. 7", text, figure))
    return found


def _drawing(fold: Fold, title: str, hint: str, text: str, figure: Figure) -> SparseDrawing:
    prefix = f"sparse-{fold.name}-{title.lower().replace(' ', '-')}"
    svg = to_svg(figure, prefix=prefix, title=f"{title}. {text}")
    return SparseDrawing(title, hint, svg, round(_PIXELS_PER_INCH * figure.get_figwidth()))


def _over_steps(fold: Fold, key: str) -> Curve:
    """Steps done and values of the epochs that have both."""
    points = [(number(epoch.get("step")), number(epoch.get(key))) for epoch in fold.epochs]
    kept = [point for point in points if not any(map(math.isnan, point))]
    return [step for step, _ in kept], [value for _, value in kept]
