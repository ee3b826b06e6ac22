"""One self-contained HTML file about a training run or a pre-training."""

from voxelseg.report.page import write_report

__all__ = ["write_report"]
