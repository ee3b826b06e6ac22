"""Scores of a predicted mask against a reference mask; see METRICS."""

from voxelseg.metrics.column import MAIN_COLUMNS, Column, column, columns
from voxelseg.metrics.pair import MaskPair
from voxelseg.metrics.registry import METRICS, Metric

__all__ = ["MAIN_COLUMNS", "METRICS", "Column", "MaskPair", "Metric", "column", "columns"]
