"""One page about a comparison of contestants, as HTML and as Markdown with figures beside it."""

from voxelseg.report.comparison.writing import write_comparison

__all__ = ["write_comparison"]
