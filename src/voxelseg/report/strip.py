"""A row of points, one per case, with quartiles and median: the distribution of a score inside a table cell."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT, MARGIN = 260, 30, 8
"""In units of the drawing, which scales with the page."""
_GOLDEN = (math.sqrt(5) - 1) / 2


def ratio_range(values: Iterable[float]) -> tuple[float, float]:
    """Axis for scores in [0, 1]: ends at 1, begins at the tenth below the lowest value, and spans at least a tenth."""
    lowest = min((value for value in values if not math.isnan(value)), default=0.0)
    return min(math.floor(lowest * 10 + 1e-9) / 10, 0.9), 1.0


def length_range(values: Iterable[float]) -> tuple[float, float]:
    """Axis for lengths: from 0 to the next 1, 2 or 5 times a power of ten above the largest value."""
    largest = max((value for value in values if not math.isnan(value)), default=0.0)
    if largest <= 0:
        return 0.0, 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return 0.0, next(step * power for step in (1, 2, 5, 10) if step * power >= largest * (1 - 1e-9))


def strip(values: Mapping[str, float], low: float, high: float) -> Markup:
    """SVG of the values of all cases along an axis from `low` to `high`; each point names its case when pointed at.

    Undefined (NaN) values are left out. Vertical scatter only keeps points apart; it follows the order of the cases.
    """
    defined = {case: value for case, value in values.items() if not math.isnan(value)}
    parts = [f'<line class="base" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{HEIGHT / 2}" y2="{HEIGHT / 2}"/>']
    if defined:
        quartiles = np.percentile(list(defined.values()), [25, 50, 75])
        left, middle, right = (_x(float(value), low, high) for value in quartiles)
        parts.append(
            f'<rect class="box" x="{left:.1f}" y="5" width="{max(right - left, 1):.1f}" height="{HEIGHT - 10}" rx="2"/>'
        )
        for index, (case, value) in enumerate(defined.items()):
            y = HEIGHT / 2 + (((index + 1) * _GOLDEN) % 1 - 0.5) * (HEIGHT - 16)
            title = escape(f"{case}: {value:.3f}")
            parts.append(
                f'<circle cx="{_x(value, low, high):.1f}" cy="{y:.1f}" r="2.4"><title>{title}</title></circle>'
            )
        parts.append(f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="3" y2="{HEIGHT - 3}"/>')
    return Markup(f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>')


def axis(low: float, high: float) -> Markup:
    """SVG of the axis above the strips: both ends and the middle."""
    middle = (low + high) / 2
    texts = [
        f'<text x="{_x(value, low, high):.1f}" y="11" text-anchor="{anchor}">{value:.3g}</text>'
        for value, anchor in ((low, "start"), (middle, "middle"), (high, "end"))
    ]
    return Markup(f'<svg class="strip axis" viewBox="0 0 {WIDTH} 14" role="img">{"".join(texts)}</svg>')


def _x(value: float, low: float, high: float) -> float:
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return MARGIN + share * (WIDTH - 2 * MARGIN)
