"""How contestants look in every figure, and what all figures share: their width, their texts, their margins."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxelseg.report.curves import CYCLE, INK, MUTED, styled

WIDTH_IN = 5.6
"""Of most figures. Texts of 10 points are then 10 pixels high in a page of 400 pixels, and larger in a wider one."""
TEXT, SMALL = 10.0, 9.0
"""Font sizes in points."""
STEPS = (1, 2, 2.5, 5, 10)
"""Between the marks of an axis."""
POINTS = 72.0
"""In an inch."""
_LINE = 74
"""Characters of small print in a line."""
LONGEST = 26
"""Characters of a name in a figure."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""As many as a prime number, and six colours: the first 42 contestants differ in one of both."""
DASH = "–"


@dataclass(frozen=True)
class Look:
    """Of one contestant: told apart by shape as well as by colour, for any eye and for grey prints."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Estimate:
    """A mean, the ends of its interval, and the single values behind it; NaN where unknown."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    parts: tuple[float, ...] = ()
    """Such as the mean of each seed."""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name by its place: give all figures of a page the same one, of all contestants in one order."""
    return {
        name: Look(CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(dict.fromkeys(names))
    }


def short(names: Iterable[str], longest: int = LONGEST) -> dict[str, str]:
    """Names that fit: a long one loses its middle, or is numbered if that makes it the same as another."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text = " ".join(name.split()) or DASH
        if len(text) > longest:
            text = f"{text[: longest - longest // 3 - 1]}…{text[-(longest // 3) :]}"
        number = 2
        while text in found.values():
            text = f"{text[: longest - 3]}…{number}"
            number += 1
        found[name] = text
    return found


def number(value: float, digits: int = 3) -> str:
    """The number with so many decimals; a dash if it is unknown."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}"


def digits_of(unit: str) -> int:
    """Decimals of a score: three of a ratio, two of a length."""
    return 2 if unit else 3


def text_size_in(figure: Figure, text: str, size: float = TEXT) -> tuple[float, float]:
    """Width and height in inches of a text in a figure."""
    with styled():
        drawn = figure.text(0, 0, text, fontsize=size)
        box = drawn.get_window_extent()
    drawn.remove()
    return float(box.width) / figure.dpi, float(box.height) / figure.dpi


def widest_in(figure: Figure, texts: Iterable[str], size: float = TEXT) -> float:
    """Width in inches of the widest text; 0 without any."""
    return max((text_size_in(figure, text, size)[0] for text in texts), default=0.0)


def axes_in(figure: Figure, *, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with these margins in inches, whatever the figure's size."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    axes.tick_params(labelsize=TEXT)
    return axes


def wrapped(text: str) -> str:
    """Small print in lines that fit under a figure."""
    return textwrap.fill(text, _LINE)


def note_in(text: str) -> float:
    """Inches that a note takes at the foot of a figure; none for an empty one."""
    return 0.18 * (text.count("\n") + 1) if text else 0.0


def note_below(figure: Figure, text: str) -> None:
    """Small print at the foot of the figure; nothing for an empty text."""
    if text:
        width, height = figure.get_size_inches()
        figure.text(0.06 / width, 0.06 / height, text, fontsize=SMALL, color=MUTED, ha="left", va="bottom")


def unknown_note(names: Sequence[str], what: str) -> str:
    """Such as "Without a score: a, b"; empty if nobody is."""
    return wrapped(f"Without {what}: {', '.join(short(names).values())}") if names else ""


def padded(values: Iterable[float], share: float = 0.08) -> tuple[float, float]:
    """Ends of an axis that holds all finite values with some room; 0 to 1 without any, and never of no length."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = share * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room


def side_by_side(count: int, reach: float) -> list[float]:
    """So many small distances from a row's middle, up to `reach`, that keep points of equal values apart."""
    return [reach * (2 * place / (count - 1) - 1) if count > 1 else 0.0 for place in range(count)]


def name_legend(figure: Figure, look: Mapping[str, Look], *, columns_in: float = WIDTH_IN) -> float:
    """Write names beside their markers along the top of the figure; returns the height in inches that this takes.

    Not matplotlib's legend, which leaves out names that begin with an underscore.
    """
    width, height = figure.get_size_inches()
    texts = short(look)
    column = 0.38 + widest_in(figure, texts.values(), SMALL)
    columns = max(1, int(columns_in / column))
    rows = -(-len(texts) // columns)
    figure.set_size_inches(width, height + 0.19 * rows + 0.03)
    axes = axes_in(figure, left=0, right=0, bottom=height, top=0)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0.19 * rows + 0.03, 0)
    for place, (name, text) in enumerate(texts.items()):
        x, y = 0.15 + column * (place % columns), 0.19 * (place // columns) + 0.13
        axes.plot([x], [y], marker=look[name].marker, color=look[name].colour, markersize=6)
        axes.text(x + 0.12, y, text, fontsize=SMALL, color=INK, ha="left", va="center")
    return 0.19 * rows + 0.03
