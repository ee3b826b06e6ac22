"""What one column of an evaluation holds: a metric, at one tolerance if it depends on one."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxelseg.errors import ConfigError
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.registry import METRICS, Metric
from voxelseg.metrics.surface import check_tolerance

MAIN_COLUMNS = ("dice", "surface_dice", "hd95_mm")
"""What tables show that have no room for all."""


@dataclass(frozen=True)
class Column:
    """A metric as it was computed. Columns of two evaluations may be compared if they are equal."""

    key: str
    """Name in cases.csv and summary.json; a further tolerance is part of it, as in "surface_dice_3mm"."""
    metric: Metric
    tolerance_mm: float | None = None
    """None if the metric depends on none."""

    def score(self, pair: MaskPair) -> float:
        """Value of a pair of masks; NaN if both are empty."""
        return self.metric(pair, tolerance_mm=self.tolerance_mm)

    @property
    def title(self) -> str:
        """Name for people, such as "Surface Dice at 3 mm"; without the unit."""
        at = "" if self.tolerance_mm is None else f" at {self.tolerance_mm:g} mm"
        return f"{self.metric.title}{at}"

    @property
    def heading(self) -> str:
        """Title and unit, such as "HD95 (mm)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def unit(self) -> str:
        """Empty for a ratio."""
        return self.metric.unit

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self.metric.higher_is_better

    @property
    def best(self) -> float:
        """Its value for a perfect prediction."""
        return self.metric.best

    @property
    def worst(self) -> float:
        """The value that nothing is worse than; infinite for a length or a volume."""
        return self.metric.worst

    @property
    def definition(self) -> str:
        """Its reading in words."""
        unit = f" in {self.unit}" if self.unit else ""
        direction = "higher" if self.higher_is_better else "lower"
        one_empty = f"exactly one mask empty: {self.metric.one_empty}"
        return f"{self.title}{unit}; {direction} is better; {one_empty}. {self.metric.source}."


def tolerances(tolerance_mm: float | Sequence[float]) -> tuple[float, ...]:
    """One or several tolerances in mm as numbers; ConfigError if there is none, one twice, or an impossible one."""
    given = tolerance_mm if isinstance(tolerance_mm, Sequence) else (tolerance_mm,)
    for one in given:
        check_tolerance(one)
    if not given or len(set(map(_as_key, given))) < len(given):
        raise ConfigError(f"tolerance_mm must be one number, or several different ones, got {list(given)}.")
    return tuple(map(float, given))


def columns(tolerance_mm: float | Sequence[float], *, probabilities: bool = False) -> tuple[Column, ...]:
    """Every column of an evaluation with these tolerances; those of probabilities if it has some.

    Metrics that depend on a tolerance come once for each; the first one goes without it in its key. ConfigError as from
    `tolerances`.
    """
    first, *others = tolerances(tolerance_mm)
    found = []
    for key, metric in METRICS.items():
        if metric.of_probabilities and not probabilities:
            continue
        found.append(Column(key, metric, first if metric.has_tolerance else None))
        if metric.has_tolerance:
            found += [Column(f"{key}_{_as_key(other)}", metric, other) for other in others]
    return tuple(found)


def column(key: str, *, tolerance_mm: float) -> Column:
    """Column of a key, such as "dice" or "surface_dice_3mm", in an evaluation whose first tolerance is `tolerance_mm`.

    Raises ConfigError for a key that no evaluation holds.
    """
    if key in METRICS:
        return Column(key, METRICS[key], tolerance_mm if METRICS[key].has_tolerance else None)
    name, _, tolerance = key.removesuffix("mm").rpartition("_")
    try:
        metric, further = METRICS[name], float(tolerance)
    except (KeyError, ValueError):
        metric, further = None, tolerance_mm
    if metric is None or not metric.has_tolerance or key != f"{name}_{_as_key(further)}":
        raise ConfigError(f"there is no metric {key!r}. Known are {', '.join(METRICS)}.")
    return Column(key, metric, further)


def _as_key(tolerance_mm: float) -> str:
    return f"{repr(float(tolerance_mm)).removesuffix('.0')}mm"  # every digit, so that the key gives it back
