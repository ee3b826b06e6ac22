"""Every metric by name, with what a table, a mean or a comparison must know about it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from voxelseg.metrics.area import area_hd95_mm, area_masd_mm, area_surface_dice
from voxelseg.metrics.calibration import brier, ece
from voxelseg.metrics.detection import lesion_f1
from voxelseg.metrics.overlap import dice, iou, precision, sensitivity
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.reliability import BINS, MARGIN_MM
from voxelseg.metrics.surface import assd_mm, hd95_mm, hd_mm, masd_mm, surface_dice
from voxelseg.metrics.volume import centre_distance_mm, volume_error_ml, volume_similarity


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of one class in one case. When both masks are empty it is NaN, whatever the metric."""

    function: Callable[..., float]
    """Takes a MaskPair, and `tolerance_mm` as a keyword if it depends on one."""
    title: str
    """Name for people, without the unit."""
    unit: str
    """Empty for a ratio."""
    higher_is_better: bool
    one_empty: str
    """Its value when exactly one mask is empty: the worst possible, where there is one."""
    source: str
    has_tolerance: bool = False
    """Whether it depends on a tolerance: an evaluation may then hold it at several."""
    of_probabilities: bool = False
    """Whether it needs the probabilities of the class beside the masks."""

    @property
    def best(self) -> float:
        """Its value for a perfect prediction."""
        return 1.0 if self.higher_is_better else 0.0

    @property
    def worst(self) -> float:
        """The value that nothing is worse than; infinite for a length or a volume."""
        return math.inf if self.unit else 1.0 - self.best

    def __call__(self, pair: MaskPair, *, tolerance_mm: float | None) -> float:
        """Score of a pair of masks, at a tolerance in mm if it depends on one."""
        return self.function(pair, tolerance_mm=tolerance_mm) if self.has_tolerance else self.function(pair)


METRICS: dict[str, Metric] = {
    "dice": Metric(
        function=dice,
        title="Dice",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Dice 1945, doi:10.2307/1932409",
    ),
    "iou": Metric(
        function=iou,
        title="IoU",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x",
    ),
    "surface_dice": Metric(
        function=surface_dice,
        title="Surface Dice",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Nikolov et al. 2018, arXiv:1809.04430; surface voxels count once as in arXiv:2111.05408",
        has_tolerance=True,
    ),
    "hd95_mm": Metric(
        function=hd95_mm,
        title="HD95",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Huttenlocher et al. 1993, doi:10.1109/34.232073, 95th percentile of each direction, the larger one",
    ),
    "hd_mm": Metric(
        function=hd_mm,
        title="HD",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Huttenlocher et al. 1993, doi:10.1109/34.232073",
    ),
    "assd_mm": Metric(
        function=assd_mm,
        title="ASSD",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Heimann et al. 2009, doi:10.1109/TMI.2009.2013851: mean over the voxels of both surfaces together",
    ),
    "masd_mm": Metric(
        function=masd_mm,
        title="MASD",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z: mean of the means of the two directions",
    ),
    "area_surface_dice": Metric(
        function=area_surface_dice,
        title="Surface Dice by area",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Nikolov et al. 2018, arXiv:1809.04430; as the package surface-distance",
        has_tolerance=True,
    ),
    "area_hd95_mm": Metric(
        function=area_hd95_mm,
        title="HD95 by area",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Robust Hausdorff distance of the package surface-distance (Nikolov et al. 2018, arXiv:1809.04430)",
    ),
    "area_masd_mm": Metric(
        function=area_masd_mm,
        title="MASD by area",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source=(
            "Average surface distances of the package surface-distance (Nikolov et al. 2018, arXiv:1809.04430), mean "
            "of the two directions"
        ),
    ),
    "volume_error_ml": Metric(
        function=volume_error_ml,
        title="Volume error",
        unit="ml",
        higher_is_better=False,
        one_empty="the volume of the other mask",
        source="Absolute difference of the two volumes",
    ),
    "volume_similarity": Metric(
        function=volume_similarity,
        title="Volume similarity",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x",
    ),
    "sensitivity": Metric(
        function=sensitivity,
        title="Sensitivity",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Share of the reference's voxels that are predicted (Taha and Hanbury 2015)",
    ),
    "precision": Metric(
        function=precision,
        title="Precision",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Share of the predicted voxels that are in the reference (Taha and Hanbury 2015)",
    ),
    "centre_distance_mm": Metric(
        function=centre_distance_mm,
        title="Centre distance",
        unit="mm",
        higher_is_better=False,
        one_empty="the diagonal of the image",
        source="Distance of the centres of mass",
    ),
    "lesion_f1": Metric(
        function=lesion_f1,
        title="Lesion F1",
        unit="",
        higher_is_better=True,
        one_empty="0",
        source="Hernandez Petzsche et al. 2022 (ISLES), doi:10.1038/s41597-022-01875-5",
    ),
    "ece": Metric(
        function=ece,
        title="ECE",
        unit="",
        higher_is_better=False,
        one_empty="as always, from the probabilities",
        source=(
            f"Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, {BINS} bins, the class against all others within "
            f"{MARGIN_MM:g} mm of the box that holds the reference, or in the whole image if that is empty"
        ),
        of_probabilities=True,
    ),
    "brier": Metric(
        function=brier,
        title="Brier score",
        unit="",
        higher_is_better=False,
        one_empty="as always, from the probabilities",
        source=(
            "Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, the class against all others, where the "
            "ECE looks"
        ),
        of_probabilities=True,
    ),
}
"""Key of a column in cases.csv and summary.json, without the tolerance -> metric."""
