"""The command `report`."""

from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike, say
from voxelseg.report import write_report


def report(run: PathLike, out: PathLike = "report.html", *, console: Console | None = None) -> Path:
    """One self-contained HTML page about a run: curves, scores, worst and best cases, plan, versions."""
    path = write_report(Path(run), Path(out))
    say(console, f"Wrote {path}.")
    return path
