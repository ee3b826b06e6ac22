"""Progress bars, and the words at the end of a command.

Bars need a terminal; without one, training prints a line now and then, and the others nothing.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from voxelseg.data.wording import some

if TYPE_CHECKING:
    from voxelseg.data.dataset import Dataset
    from voxelseg.train.loop.trainer import Progress as TrainingProgress

PathLike = str | Path
LINES_WITHOUT_TERMINAL = 10
"""So often a training without a terminal says how far it is."""


class Update(Protocol):
    """Moves a bar to `done` cases of `of`, `note` saying which one is in work."""

    def __call__(self, done: float, of: int | None = None, note: str = "") -> None: ...


def say(console: Console | None, wrote: str, *following: Sequence[PathLike]) -> None:
    """Print what was written, and the `voxelseg` commands that may follow, each given by its words."""
    if console is None:
        return
    commands = [shlex.join(["voxelseg", *map(str, words)]) for words in following]
    lines = [wrote, *(["Next:"] if commands else []), *(f"  {command}" for command in commands)]
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def say_left_out(console: Console | None, dataset: "Dataset") -> None:
    """Print which cases have errors in their files that the layout saw, since a training without them may surprise."""
    cases = sorted({problem.case for problem in dataset.problems if problem.case and problem.severity == "error"})
    if console is None or not cases:
        return
    console.print(
        f"{len(cases)} case{'s have' if len(cases) != 1 else ' has'} problems with their files ({some(cases)}); "
        f"`{shlex.join(['voxelseg', 'check', str(dataset.source)])}` says which are left out.",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


@contextmanager
def counting_bar(console: Console | None, title: str, *, total: int | None = None) -> Iterator[Update]:
    """Bar over cases."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with _bar(console, *columns) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(done: float, of: int | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total if of is None else of, note=note)

        yield update


@contextmanager
def preparing_bar(console: Console | None, title: str) -> Iterator[Callable[[str, float], None]]:
    """Bar over what is done before a training: called with what that is and the share that is done."""
    with _bar(console, TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


@contextmanager
def training_bar(
    console: Console | None, title: str, *, score: str = "Dice"
) -> Iterator[Callable[["TrainingProgress"], None]]:
    """Bar with loss, score of the running validation, which is a `score`, and time left."""
    if console is not None and not console.is_terminal:
        yield _Lines(console, title, score)
        return
    with _bar(console, TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")) as bar:
        task = bar.add_task(title, total=1.0, state="starting")
        yield lambda state: bar.update(task, completed=state.share, state=_words(state, score))


class _Lines:
    """Prints a training's progress whenever another tenth of it is done."""

    def __init__(self, console: Console, title: str, score: str) -> None:
        self.console = console
        self.title = title
        self.score = score
        self.printed: int | None = None

    def __call__(self, state: "TrainingProgress") -> None:
        reached = int(state.share * LINES_WITHOUT_TERMINAL)
        if reached != self.printed:
            words = _words(state, self.score)
            self.console.print(f"{self.title}  {words}", soft_wrap=True, highlight=False, markup=False)
            self.printed = reached


def _bar(console: Console | None, *columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=console, disable=console is None or not console.is_terminal)


def _words(state: "TrainingProgress", score: str) -> str:
    minutes, seconds = divmod(round(state.left_s), 60)
    hours, minutes = divmod(minutes, 60)
    reached = "" if state.score is None else f"  {score} {state.score:.3f}"
    return (
        f"{state.share:4.0%}  step {state.step}  loss {state.loss:.3f}{reached}  {hours}:{minutes:02}:{seconds:02} left"
    )
