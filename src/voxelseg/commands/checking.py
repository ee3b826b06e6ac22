"""The command `check`."""

from pathlib import Path

from rich.console import Console

from voxelseg.commands.display import PathLike, counting_bar
from voxelseg.data.checks import CheckReport, check_dataset


def check(data: PathLike, *, workers: int = 2, console: Console | None = None) -> CheckReport:
    """Everything that is wrong or doubtful in the data set at `data`, found before it costs time."""
    with counting_bar(console, "checking") as update:
        return check_dataset(Path(data), workers=workers, progress=update)
