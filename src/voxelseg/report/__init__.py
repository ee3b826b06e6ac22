"""One self-contained HTML file about a training run."""

from voxelseg.report.page import write_report

__all__ = ["write_report"]
