"""Learning curves as SVG."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.run import Fold

INK, MUTED, LINE = "#1b1f24", "#5a6472", "#d9dee4"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with any kind of colour vision; yellow left out, it is too light for lines."""

STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "voxelseg",  # the same figure is the same file
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.4,
}


def learning_curves(folds: Sequence[Fold], classes: Sequence[str]) -> list[tuple[str, Markup]]:
    """Titles and SVG drawings of the loss, the running Dice and the learning rate over the epochs.

    One fold shows each class (up to six) and the mean; several folds show one mean each. A line marks where a training
    began another stage. Curves without a value are left out, so the list is empty before the first epoch ends.
    """
    trained = [fold for fold in folds if fold.epochs]
    drawings = []
    for title, draw in (("Loss", _draw_loss), ("Running Dice", _draw_dice), ("Learning rate", _draw_rate)):
        with rc_context(STYLE):
            figure = Figure(figsize=(4.4, 2.9), layout="constrained")
            axes = figure.add_subplot()
            draw(axes, trained, classes)
            if not axes.lines:
                continue
            _mark_stages(axes, trained)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
            if axes.get_legend_handles_labels()[1]:
                axes.legend(loc="lower right" if title == "Running Dice" else "upper right", fontsize=10, ncols=2)
            drawings.append((title, to_svg(figure, prefix=title.lower().replace(" ", "-"), title=title)))
    return drawings


def _plot(axes: Axes, curve: tuple[list[int], list[float]], **style: Any) -> None:
    epochs, values = curve
    if epochs:
        axes.plot(epochs, values, marker="o" if len(epochs) == 1 else None, markersize=4, **style)


def _mark_stages(axes: Axes, folds: Sequence[Fold]) -> None:
    """A line where another stage of the training begins, with its name."""
    for epoch, name in sorted({place for fold in folds for place in fold.later_stages.items()}):
        axes.axvline(epoch - 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        top = axes.get_xaxis_transform()  # epochs along the axis, and a share of its height
        axes.text(epoch - 0.5, 1.0, name, transform=top, color=MUTED, fontsize=9, ha="center", va="bottom")


def _draw_loss(axes: Axes, folds: Sequence[Fold], classes: Sequence[str]) -> None:
    thin: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.8} if len(folds) > 1 else {}
    for index, fold in enumerate(folds):
        for key, name, colour in (("loss", "training", CYCLE[0]), ("validation_loss", "validation", CYCLE[1])):
            _plot(axes, fold.curve(key), color=colour, label=name if index == 0 else None, **thin)


def _draw_dice(axes: Axes, folds: Sequence[Fold], classes: Sequence[str]) -> None:
    if len(folds) > 1:
        for fold, colour in zip(folds, CYCLE * (len(folds) // len(CYCLE) + 1), strict=False):
            _plot(axes, fold.curve("mean_dice"), color=colour, label=f"fold {fold.name}")
    for fold in folds if len(folds) == 1 else ():
        few = len(classes) <= len(CYCLE)
        for index, name in enumerate(classes):
            style = (
                {"color": CYCLE[index], "label": name}
                if few
                else {"color": "#9aa4b0", "label": "classes" if index == 0 else None}
            )
            _plot(axes, fold.class_curve(name), linewidth=1.1, **style)
        _plot(axes, fold.curve("mean_dice"), color=INK, linewidth=2.2, label="mean")
    axes.set_ylim(0, 1)


def _draw_rate(axes: Axes, folds: Sequence[Fold], classes: Sequence[str]) -> None:
    for fold, colour in zip(folds, CYCLE * (len(folds) // len(CYCLE) + 1), strict=False):
        _plot(axes, fold.curve("lr"), color=colour)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


@contextmanager
def styled() -> Iterator[None]:
    """In it figures are drawn, measured and saved in the style of all of them.

    A font that lacks a script is no reason for a warning: it only measures, and the page's own font writes the text.
    """
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def to_svg(figure: Figure, *, prefix: str, title: str) -> Markup:
    """The figure as an element of a page: it scales, its text stays text, its ids are its own."""
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))
