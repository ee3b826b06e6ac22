"""The command `report`."""

from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike, say
from voxelseg.report import write_report


def report(run: PathLike, out: PathLike = "report.html", *, console: Console | None = None) -> Path:
    """One self-contained HTML page about a run or a pre-training: curves, scores, pictures, plan, versions.

    Raises DataError if `run` is neither or its files are damaged, VoxelsegError if `out` cannot be written.
    """
    path = write_report(Path(run), Path(out))
    say(console, f"Wrote {path}.")
    return path
