"""Who takes part in a comparison: named scores, each of one training or of several with different seeds."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxelseg.compare.cost import Cost
from voxelseg.compare.sources import Event, References, Source, mean_cost, read_source
from voxelseg.data.labels import LabelScheme
from voxelseg.errors import ConfigError
from voxelseg.evaluate import Evaluation
from voxelseg.evaluate.cross_validation import POSTPROCESSED_FOLDER
from voxelseg.evaluate.held_out import CaseFiles

_OF_MANY = (
    *("validation", "cross_validation", POSTPROCESSED_FOLDER),
    *("evaluation", "scores", "predictions", "labelsPr", "fold_0", "run"),
)
"""Folders that are called alike for everyone: the one above them says more."""
_LONGEST_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One model, tool or setting."""

    name: str
    runs: Mapping[str, Evaluation]
    """Seed -> scores with all folds pooled; empty if there are none, see `fault`."""
    cost: Cost | None = None
    fault: str = ""
    """Why there are no scores of some run; empty if all is well."""
    files: Mapping[str, CaseFiles] = field(default_factory=dict)
    """Case -> its files, of the first run; without the cases whose files are not known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was trained and how, as far as known."""
    notes: tuple[str, ...] = ()
    """What the reader of its scores should know."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Case among the scores -> its id, where that is another: a case that several folds held out."""
    labels: LabelScheme | None = None
    """Which label values of the files are which class."""
    channel: str = ""
    """Name of the scans' first channel."""
    logs: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    """What each training logged, by its seed and fold."""

    @property
    def cases(self) -> tuple[str, ...]:
        """All that some run has a score of, in their order."""
        return tuple(dict.fromkeys(case for one in self.runs.values() for case in one.cases))


def read_contestants(
    texts: Sequence[str],
    *,
    references: References | None = None,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Contestant]:
    """Contestants of "PATH" and "NAME=PATH,PATH...": several paths are one contestant's trainings with other seeds.

    A path is an evaluation folder (cases.csv and summary.json), a folder that `voxelseg train` wrote, or a folder of
    label maps, which are scored against `references`. Without a name a contestant is called after its folder, and the
    names are made different by those of the folders above. `progress` is called with the name and the numbers of label
    maps scored and in all. ConfigError for what cannot be told apart or found, DataError for what cannot be read or
    scored.
    """
    given = [_split(text) for text in texts]
    names = _names(given)
    return [_read(name, paths, references, workers, progress) for name, (_, paths) in zip(names, given, strict=True)]


def _split(text: str) -> tuple[str, tuple[Path, ...]]:
    """Name, empty without one, and paths; a path that is there may hold "=" and ","."""
    if _is_there(text):
        return "", (Path(text),)
    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = "", text
    elif not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"{text}: expected NAME=PATH with a name of 1 to {_LONGEST_NAME} printable characters before the first '='."
        )
    parts = [rest] if _is_there(rest) else [part for part in rest.split(",") if part]
    gone = [part for part in parts if not _is_there(part)]
    if gone or not parts:
        raise ConfigError(
            f"{text}: no folder {', '.join(gone) or 'is given'}. Give PATH, NAME=PATH, or NAME=PATH,PATH for several "
            "seeds; each path is a folder of `voxelseg evaluate` or `voxelseg train`, or a folder of label maps."
        )
    paths = tuple(map(Path, parts))
    twice = [str(path) for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if twice:
        raise ConfigError(f"{text}: given twice: {', '.join(twice)}. Each seed counts once.")
    return name.strip(), paths


def _is_there(path: str) -> bool:
    """Whether it is a folder; not if it may not be looked at, or could not be the name of any."""
    try:
        return bool(path) and Path(path).is_dir()
    except OSError:
        return False


def _names(given: Sequence[tuple[str, tuple[Path, ...]]]) -> list[str]:
    """The names that were given, and for the others as many last parts of their paths as tell all apart."""
    parts = _parts_of_names(given)
    taken = Counter(name for name, _ in given if name)
    repeated = sorted(name for name, count in taken.items() if count > 1)
    if repeated:
        raise ConfigError(f"several contestants are called {', '.join(repeated)}. Give each a name of its own.")
    names = [name or one[-1] for (name, _), one in zip(given, parts, strict=True)]
    for length in range(2, max(map(len, parts)) + 1):
        count = Counter(names)
        names = [
            name if explicit or count[name] == 1 else str(Path(*one[-length:]))
            for name, (explicit, _), one in zip(names, given, parts, strict=True)
        ]
    alike = sorted(name for name, count in Counter(names).items() if count > 1)
    if alike:
        raise ConfigError(f"given twice: {', '.join(alike)}. Give each contestant once, or names: NAME=PATH.")
    return names


def _parts_of_names(given: Sequence[tuple[str, tuple[Path, ...]]]) -> list[list[str]]:
    """Of each the parts of its path that tell; as one part with those after them where another's tell the same.

    So a run and its cross-validation are "run" and "run/cross_validation".
    """
    whole = [_common_parts(paths) for _, paths in given]
    telling = [_telling(parts) for parts in whole]
    count = Counter(tuple(parts) for (name, _), parts in zip(given, telling, strict=True) if not name)
    return [
        parts if count[tuple(parts)] < 2 else [*parts[:-1], str(Path(*all_parts[len(parts) - 1 :]))]
        for parts, all_parts in zip(telling, whole, strict=True)
    ]


def _common_parts(paths: Sequence[Path]) -> list[str]:
    """Parts of the path, or of what several paths have in common."""
    each = [_printable(path.resolve()).parts for path in paths]
    common = list(each[0])
    if len(each) > 1:
        same = [len(set(step)) == 1 for step in zip(*each, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return common


def _telling(parts: Sequence[str]) -> list[str]:
    """The parts of a path without last ones that everybody has."""
    found = list(parts)
    while len(found) > 1 and (found[-1] in _OF_MANY or re.fullmatch(r"fold_\w+", found[-1])):
        found.pop()
    return found


def _printable(path: Path) -> Path:
    """The path with a mark in place of what no page can show, such as bytes that are no UTF-8."""
    return Path("".join(letter if letter.isprintable() else "\ufffd" for letter in str(path)))


def _read(
    name: str,
    paths: Sequence[Path],
    references: References | None,
    workers: int,
    progress: Callable[[str, int, int], None] | None,
) -> Contestant:
    def told(done: int, of: int) -> None:
        if progress is not None:
            progress(name, done, of)

    found = [read_source(path, references, workers=workers, progress=told) for path in paths]
    first = found[0]
    return Contestant(
        name=name,
        runs=dict(zip(_seeds(found), (one.scores for one in found), strict=True)),
        cost=mean_cost([one.cost for one in found if one.cost is not None]),
        files=first.files,
        settings=first.settings,
        notes=tuple(dict.fromkeys(note for one in found for note in one.notes)),
        origins={name: case for one in found for name, case in one.origins.items()},
        labels=first.labels,
        channel=first.channel,
        logs={
            f"seed {seed}, fold {fold}": log
            for seed, one in zip(_seeds(found), found, strict=True)
            for fold, log in one.logs.items()
        },
    )


def _seeds(found: Sequence[Source]) -> list[str]:
    """The seeds that the trainings were given, or their places if some is not known or they are not different."""
    known = [one.seed for one in found]
    return known if all(known) and len(set(known)) == len(known) else [str(place) for place in range(len(found))]
