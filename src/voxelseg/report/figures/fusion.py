"""Where fused features come from, before, during and after a training (E2ENet, Figs. 12 and 13)."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from voxelseg.compare.fusion import WAYS, Nodes, Topology, gains, gathered, place_of, proportions
from voxelseg.data.wording import listed
from voxelseg.report.curves import CYCLE, INK, MUTED, styled
from voxelseg.report.figures.look import SMALL, TEXT, WIDTH_IN, Look, axes_in, name_legend, short

COLOURS = {"up": CYCLE[0], "forward": CYCLE[1], "down": CYCLE[4]}
"""Of each direction, as in E2ENet's Fig. 3: also of different lightness, and always stacked in this order."""
_LINES = {"up": "-", "forward": "--", "down": ":"}
_PALENESS = 0.45
"""How much of a colour is left in the bars of the beginning."""
_ROW = 1.35
"""Inches of a training."""
_MOST_POINTS = 60
"""Of a curve: more cannot be told apart in a drawing of this size."""

Histories = Mapping[str, Sequence[Topology]]
"""Training -> the states of its sparse layers that it logged, in order."""


def describe_fusion(histories: Histories) -> str:
    """How each training changed the directions' shares, in sentences."""
    told = []
    for name, history in histories.items():
        first, last = history[0]["nodes"], history[-1]["nodes"]
        shares = proportions(gathered(last, "network").get("network", {}))
        changes = gains(first, last)
        texts = [f"{way} {shares[way]:.0%} ({100 * change:+.1f} points)" for way, change in changes.items()]
        told.append(f"{name}: {listed(texts) or 'no fusion nodes'}")
    return (
        "Share of the active fusion kernels by the direction that their input comes from, at the end, and its change "
        f"from the random beginning: {'; '.join(told) or 'no training has sparse fusion'}."
    )


def draw_fusion(histories: Histories, *, by: str = "level") -> Figure:
    """For each training a row of bars, a pale one for the beginning and one for the end of each level or stage.

    `by` is "level" (0 is the finest), "stage" or "network". Bars show where the inputs of the active kernels come from.
    """
    rows = {name: (history[0]["nodes"], history[-1]["nodes"]) for name, history in histories.items()}
    with styled():
        figure = Figure(figsize=(WIDTH_IN, 0.5 + _ROW * max(len(rows), 1)))
        legend_in = name_legend(figure, {way: Look(COLOURS[way], "s") for way in WAYS})
        height = figure.get_figheight()
        for place, (name, (first, last)) in enumerate(rows.items()):
            top = legend_in + 0.3 + _ROW * place
            axes = axes_in(figure, left=0.65, right=0.15, top=top, bottom=height - top - _ROW + 0.55)
            _draw_training(axes, first, last, by)
            title = short([name], 60)[name]
            axes.text(0, 1.04, title, transform=axes.transAxes, fontsize=TEXT, color=INK, va="bottom")
            axes.set_ylabel("share", fontsize=SMALL)
        note = "pale: beginning; full: end"
        figure.text(0.98, 0.06 / height, note, fontsize=SMALL, color=MUTED, ha="right", va="bottom")
    return figure


def _draw_training(axes: Axes, first: Nodes, last: Nodes, by: str) -> None:
    groups = list(gathered(last, by))
    for nodes, side, is_end in ((first, -0.19, False), (last, 0.19, True)):
        _draw_bars(axes, list(gathered(nodes, by).values()), side=side, is_end=is_end)
    axes.set_xticks(range(len(groups)), groups, fontsize=SMALL)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=SMALL)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, max(len(groups), 1) - 0.4)


def _shade(way: str, *, is_end: bool) -> tuple[float, ...]:
    colour = to_rgb(COLOURS[way])
    return colour if is_end else tuple(1 - _PALENESS * (1 - part) for part in colour)


def draw_ends(history: Sequence[Topology]) -> Figure:
    """For each node a bar for the beginning and one for the end: where the inputs of its active kernels come from."""
    first, last = history[0]["nodes"], history[-1]["nodes"]
    with styled():
        figure = Figure(figsize=(max(4.4, 1.2 + 0.6 * len(last)), 2.9), layout="constrained")
        axes = figure.add_subplot()
        for nodes, side, is_end in ((first, -0.19, False), (last, 0.19, True)):
            _draw_bars(axes, list(nodes.values()), side=side, is_end=is_end)
        axes.set_xticks(range(len(last)), list(last))
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of active kernels")
        figure.legend(loc="outside upper right", ncols=len(WAYS), fontsize=10)
    return figure


def _draw_bars(axes: Axes, nodes: Sequence[Mapping[str, Sequence[int]]], *, side: float, is_end: bool) -> None:
    """A bar for each node, `side` beside its place; those of the beginning are pale."""
    places = [place + side for place in range(len(nodes))]
    bottoms = [0.0] * len(nodes)
    for way in WAYS:
        heights = [proportions(sources).get(way, 0.0) for sources in nodes]
        shade = _shade(way, is_end=is_end)
        axes.bar(places, heights, 0.34, bottoms, color=shade, edgecolor="white", label=way if is_end else None)
        bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]


def draw_course(history: Sequence[Topology]) -> Figure:
    """A small drawing for each node, stages from left to right and levels from top to bottom, over the steps."""
    places = {name: place_of(name) for name in history[-1]["nodes"]}
    columns = max(stage for stage, _ in places.values())
    levels = 1 + max(level for _, level in places.values())
    points = _thinned(history)
    steps = [one["step"] for one in points]
    with styled():
        figure = Figure(figsize=(max(4.4, 1.0 + 1.7 * columns), 0.7 + 1.35 * levels), layout="constrained")
        grid = figure.subplots(levels, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        for name, (stage, level) in places.items():
            axes = grid[level, stage - 1]
            axes.set_visible(True)
            _draw_node(axes, name, steps, [proportions(one["nodes"][name]) for one in points])
            last_of_column = level == max(below for column, below in places.values() if column == stage)
            axes.tick_params(labelbottom=last_of_column)
        figure.supxlabel("step", fontsize=11, color=MUTED)
        figure.supylabel("share of active kernels", fontsize=11, color=MUTED)
        handles, names = grid[min(1, levels - 1), 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(WAYS), fontsize=10)
    return figure


def _draw_node(axes: Axes, name: str, steps: Sequence[int], shares: Sequence[Mapping[str, float]]) -> None:
    for way in WAYS:
        if way in shares[-1]:
            course = [share[way] for share in shares]
            axes.plot(steps, course, color=COLOURS[way], linestyle=_LINES[way], label=way)
    axes.set_title(name, fontsize=10, color=INK, pad=3)
    axes.set_ylim(0, 1)
    axes.set_xticks([steps[0], steps[-1]])
    axes.set_yticks([0, 0.5, 1])


def _thinned(history: Sequence[Topology]) -> list[Topology]:
    """At most so many points as can be told apart, the first and the last among them."""
    if len(history) <= _MOST_POINTS:
        return list(history)
    stride = (len(history) - 1) / (_MOST_POINTS - 1)
    return [history[round(number * stride)] for number in range(_MOST_POINTS)]
