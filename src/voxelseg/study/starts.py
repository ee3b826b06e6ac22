"""What the trainings of a study start from: fresh weights, a pre-training, a run, or any other weights."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelseg.errors import ConfigError

SCRATCH = "scratch"
"""The start with fresh weights, which the others are compared with."""
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Start:
    """One of them."""

    name: str
    init: Path | None
    """Folder or file of the weights; None: fresh weights."""


def parse_starts(texts: Sequence[str]) -> tuple[Start, ...]:
    """Starts of "scratch", "PATH" and "NAME=PATH"; a path without a name is called after its last part.

    ConfigError if a path is not there, two have one name, a name cannot be that of a folder, or there is nothing to
    compare: scratch and at least one more.
    """
    starts = tuple(_parse(text) for text in texts)
    twice = sorted(name for name, count in Counter(start.name for start in starts).items() if count > 1)
    if twice:
        raise ConfigError(f"several starts are called {', '.join(twice)}. Give each a name: --start NAME=PATH.")
    if SCRATCH not in {start.name for start in starts}:
        raise ConfigError(f"--start {SCRATCH} is missing: the others are compared with it. Add it.")
    if len(starts) < 2:
        raise ConfigError(f"{SCRATCH} alone has nothing to be compared with. Add --start PRE, a folder of weights.")
    return starts


def _parse(text: str) -> Start:
    if text == SCRATCH:
        return Start(SCRATCH, None)
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():  # a path may hold "="
        name, path = _last_part(Path(text)), text
    if name == SCRATCH:
        raise ConfigError(f"--start {text}: {SCRATCH} is the start with fresh weights. Choose another name.")
    if not path or not Path(path).exists():
        raise ConfigError(
            f"--start {text}: there is no {path or 'path'}. Give {SCRATCH}, the folder of a pre-training or a run, or "
            "a file of weights, also as NAME=PATH."
        )
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise ConfigError(f"--start {text}: the name {name!r} cannot be that of a folder. Give one: NAME=PATH.")
    return Start(name, Path(path))


def _last_part(path: Path) -> str:
    """The name of a folder; that of the folder in which a file lies, since those of models are all alike."""
    path = path.absolute()
    return path.name if path.is_dir() else path.parent.name
