"""Scores of a predicted mask against a reference mask; see METRICS."""

from voxelseg.metrics.overlap import dice
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.registry import METRICS, Metric
from voxelseg.metrics.surface import hd95_mm, surface_dice

__all__ = ["METRICS", "MaskPair", "Metric", "dice", "hd95_mm", "surface_dice"]
