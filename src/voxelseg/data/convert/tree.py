"""Files that a template such as "case_{n}/imaging" describes, in folders that are each listed once."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from voxelseg.data.convert.public import Part, Source
from voxelseg.data.layouts.description import visible_files

ENDINGS = (".nii.gz", ".nii")


class Tree:
    """Folders as they were when they were first looked at."""

    def __init__(self) -> None:
        self._folders: dict[Path, list[Path]] = {}
        self._files: dict[Path, list[Path]] = {}

    def folders(self, folder: Path) -> list[Path]:
        """Folders in a folder, sorted by name, without hidden ones; none if it cannot be read."""
        if folder not in self._folders:
            try:
                entries = sorted(folder.iterdir())
            except OSError:
                entries = []
            self._folders[folder] = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        return self._folders[folder]

    def files(self, folder: Path) -> list[Path]:
        """Files of a folder, sorted by name, without hidden ones."""
        if folder not in self._files:
            self._files[folder] = visible_files(folder)
        return self._files[folder]

    def matches(self, root: Path, template: str, part: Part) -> Iterator[tuple[str, Path]]:
        """Number of the case and path of each file below `root` that the `template` of a part describes."""
        yield from self._walk(root, template.split("/"), part.digits, "")

    def holds(self, root: Path, source: Source) -> bool:
        """Whether `root` has some image or label map of training cases."""
        return any(next(self.matches(root, template, source.training), None) for template in source.training.templates)

    def _walk(self, folder: Path, components: list[str], digits: int | None, number: str) -> Iterator[tuple[str, Path]]:
        component, deeper = components[0], components[1:]
        if number:
            component = component.replace("{n}", number)
        if not deeper:
            pattern = _pattern(component, digits)
            for file in self.files(folder):
                if (name := without_ending(file)) is not None and (match := pattern.fullmatch(name)):
                    yield match.groupdict().get("n", number), file
        elif "{n}" not in component and "*" not in component:
            yield from self._walk(folder / component, deeper, digits, number)
        else:
            pattern = _pattern(component, digits)
            for entry in self.folders(folder):
                if match := pattern.fullmatch(entry.name):
                    yield from self._walk(entry, deeper, digits, match.groupdict().get("n", number))


def ending_of(file: Path) -> str | None:
    """.nii.gz or .nii, also of a name that has it in capitals; None if the name ends otherwise."""
    return next((ending for ending in ENDINGS if file.name.lower().endswith(ending)), None)


def without_ending(file: Path) -> str | None:
    """Name of a file without .nii.gz or .nii; None if it ends otherwise."""
    ending = ending_of(file)
    return None if ending is None else file.name[: -len(ending)]


def is_case_folder(name: str, component: str, digits: int | None) -> bool | None:
    """Whether a folder is named like the folders of cases; None if its name does not even begin like theirs."""
    if not name.startswith(component.partition("{n}")[0]):
        return None
    return _pattern(component, digits).fullmatch(name) is not None


@cache
def _pattern(component: str, digits: int | None) -> re.Pattern[str]:
    """Expression for one component of a template: the first `{n}` is the number, the others repeat it."""
    expression = re.escape(component).replace(r"\*", ".*")
    number = rf"(?P<n>\d{{{digits}}})" if digits else r"(?P<n>\d+)"
    return re.compile(expression.replace(r"\{n\}", number, 1).replace(r"\{n\}", "(?P=n)"))
