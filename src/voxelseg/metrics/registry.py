"""Every metric by name, with what a table, a mean or a comparison must know about it."""

from collections.abc import Callable
from dataclasses import dataclass

from voxelseg.metrics.overlap import dice
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.surface import hd95_mm, surface_dice


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of one class in one case. When both masks are empty it is NaN, whatever the metric."""

    function: Callable[..., float]
    """Takes a MaskPair, and the `options` as keywords."""
    title: str
    """Name for people, without the unit."""
    unit: str
    """Empty for a ratio."""
    higher_is_better: bool
    one_empty: str
    """Its value, the worst possible, when exactly one mask is empty."""
    source: str
    options: tuple[str, ...] = ()
    """Which of the options of an evaluation it depends on."""

    @property
    def definition(self) -> str:
        """Its reading in words."""
        unit = f" in {self.unit}" if self.unit else ""
        direction = "higher" if self.higher_is_better else "lower"
        return f"{self.title}{unit}; {direction} is better; exactly one mask empty: {self.one_empty}. {self.source}."

    def __call__(self, pair: MaskPair, *, tolerance_mm: float) -> float:
        """Score of a pair of masks under the options of an evaluation, of which each metric takes its own."""
        available = {"tolerance_mm": tolerance_mm}
        return self.function(pair, **{name: available[name] for name in self.options})


METRICS: dict[str, Metric] = {
    "dice": Metric(
        function=dice,
        title="Dice",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Dice 1945, doi:10.2307/1932409",
    ),
    "surface_dice": Metric(
        function=surface_dice,
        title="Surface Dice",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Nikolov et al. 2018, arXiv:1809.04430; surface voxels count once as in arXiv:2111.05408",
        options=("tolerance_mm",),
    ),
    "hd95_mm": Metric(
        function=hd95_mm,
        title="HD95",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Huttenlocher et al. 1993, doi:10.1109/34.232073, 95th percentile of each direction, the larger one",
    ),
}
"""Name in cases.csv and summary.json -> metric."""
