"""Cases of a public data set in the folder that its makers hand out, and everything that is wrong with them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxelseg.data.convert.public import Part, PublicDataset, Source, example
from voxelseg.data.convert.tree import ENDINGS, Tree, ending_of, is_case_folder
from voxelseg.data.dataset import Case, Problem, Severity
from voxelseg.data.layouts.description import relative_name
from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.io import is_image

_LEVELS = 3
"""So many levels below and above the given folder are searched."""
_MOST_FOLDERS = 2000
"""Of one level; a data set is not searched in more."""
MISNAMED = "unexpected-file"
"""Code of a file that is not named like those of the data set, or has another suffix than these."""
_GZIP = b"\x1f\x8b"
_LFS = b"version https://git-lfs"


@dataclass
class Native:
    """What was found in the folder of a public data set."""

    root: Path
    training: list[Case] = field(default_factory=list)
    """Complete cases, sorted by id."""
    test: list[Case] = field(default_factory=list)
    left_out: int = 0
    """Cases whose numbers belong to neither part."""
    ending: str = ENDINGS[0]
    """Suffix of all files."""
    problems: list[Problem] = field(default_factory=list)

    def report(self, severity: Severity, code: str, message: str, remedy: str, *, case: str = "") -> None:
        """Add a problem."""
        self.problems.append(Problem(case, severity, code, message, remedy))


def read_native(dataset: PublicDataset, folder: Path) -> Native:
    """Cases of the data set in or below `folder`, and a problem for everything that is missing or doubtful.

    Looks at names and first bytes only; what the files hold is for `voxelseg check`. DataError if it is not there.
    """
    tree = Tree()
    root, source = find_source(dataset, folder, tree)
    native = Native(root)
    parts = [part for part in (source.training, source.test) if part is not None]
    native.training = _read_part(native, tree, source.training, dataset)
    if source.test is not None:
        native.test = _read_part(native, tree, source.test, dataset)
    _check_ids(native)
    _check_files(native)
    _check_names(native, tree, parts)
    _check_counts(native, dataset)
    return native


# ------------------------------------------------------------------------------------------- which folder it is


def find_source(dataset: PublicDataset, folder: Path, tree: Tree) -> tuple[Path, Source]:
    """The folder at or below `folder` that holds the data set, and the way in which it lies there.

    DataError if there is none, naming the right one if `folder` lies inside it, and if several could be meant.
    """
    if folder.is_file():
        raise DataError(f"{folder}: is a file, expected a folder. Unpack it, and give the folder that is made.")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder of {dataset.title}.")
    level = [folder]
    for _ in range(_LEVELS + 1):
        found = [(one, source) for one in _distinct(level) if (source := _source_at(dataset, one, tree)) is not None]
        if len(found) > 1:
            roots = some([str(root) for root, _ in found])
            raise DataError(f"{folder}: holds {dataset.title} more than once. Give one of {roots}.")
        if found:
            return found[0]
        level = [entry for one in level for entry in tree.folders(one)][:_MOST_FOLDERS]
    above = folder.resolve().parents[:_LEVELS]
    around = next((one for source in dataset.sources for one in above if tree.holds(one, source)), None)
    if around is not None:
        raise DataError(f"{folder}: lies inside {dataset.title}. Give {around}.")
    raise DataError(_not_found(dataset, folder))


def _distinct(folders: Iterable[Path]) -> list[Path]:
    """Each folder once, however many links lead to it: by the first of its names."""
    names: dict[Path, Path] = {}
    for folder in folders:
        names.setdefault(folder.resolve(), folder)
    return list(names.values())


def _source_at(dataset: PublicDataset, root: Path, tree: Tree) -> Source | None:
    """The way in which the data set lies in `root`; None if it does not."""
    return next((source for source in dataset.sources if tree.holds(root, source)), None)


def _not_found(dataset: PublicDataset, folder: Path) -> str:
    part = dataset.sources[0].training
    paths = " and ".join(example(template, part) for template in (part.images[0], part.label) if template)
    names = sorted(f"{entry.name}{'/' * entry.is_dir()}" for entry in folder.iterdir() if entry.name[0] != ".")
    return (
        f"{folder}: not {dataset.title}: neither it nor a folder below has files such as {paths}. "
        f"It holds {some(names) or 'nothing'}. `voxelseg data show {dataset.name}` shows what it looks like."
    )


# ---------------------------------------------------------------------------------------------------- its cases


def _read_part(native: Native, tree: Tree, part: Part, dataset: PublicDataset) -> list[Case]:
    """Complete cases of a part, sorted by id; what others lack becomes problems."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for template in part.templates:
        for number, path in tree.matches(native.root, template, part):
            if part.has(number):
                found[number][template].append(path)
    cases = []
    for number, files in found.items():
        case_id = part.case.replace("{n}", number)
        missing = [template for template in part.templates if template not in files]
        for template in missing:
            _report_missing(native, case_id, template, number, part, dataset)
        twice = [paths for paths in files.values() if len(paths) > 1]
        for paths in twice:
            names = " and ".join(relative_name(path, native.root) for path in paths)
            message = f"{names} are both there for one file of the case."
            native.report("error", "duplicate-case", message, "Keep one of them.", case=case_id)
        if not missing and not twice:
            images = tuple(files[template][0] for template in part.images)
            cases.append(Case(case_id, images, files[part.label][0] if part.label else None))
    return sorted(cases, key=lambda case: case.id)


def _report_missing(
    native: Native, case_id: str, template: str, number: str, part: Part, dataset: PublicDataset
) -> None:
    code, channel = "missing-image", ""
    if template == part.label:
        code = "missing-label"
    elif len(part.images) > 1:
        code, channel = "missing-channel", f" ({dataset.channels[part.images.index(template)]})"
    message = f"{example(template, part, number)}{channel} not found."
    remedy = "Complete the download, or move the other files of the case elsewhere."
    native.report("error", code, message, remedy, case=case_id)


def files_of_case(case: Case) -> list[Path]:
    """Images and, if there is one, label map."""
    return [*case.images, *([case.label] if case.label else [])]


# ------------------------------------------------------------------------------------------ what else is wrong


def _check_ids(native: Native) -> None:
    training = {case.id for case in native.training}
    for case in native.test:
        if case.id in training:
            message = "the case is among the training and among the test cases."
            native.report("error", "duplicate-case", message, "Remove it from one of them.", case=case.id)


def _check_files(native: Native) -> None:
    """Report suffixes that differ, and files that can be no scans from their first bytes on."""
    files = [path for case in (*native.training, *native.test) for path in files_of_case(case)]
    by_ending = [[path for path in files if ending_of(path) == ending] for ending in ENDINGS]
    native.ending = max(zip(by_ending, ENDINGS, strict=True), key=lambda pair: len(pair[0]))[1]
    if all(by_ending):
        few = min(by_ending, key=len)
        names = some([relative_name(path, native.root) for path in few])
        message = f"{len(few)} of {len(files)} files have another suffix than the others: {names}."
        native.report("error", MISNAMED, message, "Compress all files with gzip, or none.")
    for path in files:
        fault = _fault(path)
        if fault:
            message = f"{relative_name(path, native.root)} {fault[0]}."
            native.report("error", "unreadable", message, fault[1])


def _fault(path: Path) -> tuple[str, str] | None:
    """What is wrong with the first bytes of a file, and what to do about it."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        return f"cannot be read ({error.strerror})", "Check the access rights."
    if not start:
        return "is empty", "Download it again."
    if start == _LFS:
        return "is a pointer of Git LFS, not the file itself", "Run `git lfs pull` in the repository."
    if ending_of(path) == ".nii.gz" and not start.startswith(_GZIP):
        return "is not compressed with gzip", "Download it again; a page that asks for a login may be in its place."
    return None


def _check_names(native: Native, tree: Tree, parts: Sequence[Part]) -> None:
    """Report files that lie beside those of cases and belong to none; count the cases that no part takes."""
    taken, others, folders = set[Path](), set[str](), set[Path]()
    for part in parts:
        for template in part.templates:
            for number, path in tree.matches(native.root, template, part):
                folders.add(path.parent)
                if part.has(number):
                    taken.add(path)
                elif not any(other.has(number) for other in parts):
                    taken.add(path)
                    others.add(number)
    native.left_out = len(others)
    strays = [path for folder in folders for path in tree.files(folder) if is_image(path) and path not in taken]
    for path in sorted([*strays, *_misnamed_folders(native.root, tree, parts)]):
        message = f"{relative_name(path, native.root)}: not named like the files of the data set, so it is left out."
        native.report("warning", MISNAMED, message, "Rename it if it belongs to a case.")


def _misnamed_folders(root: Path, tree: Tree, parts: Sequence[Part]) -> Iterator[Path]:
    """Folders whose names begin like those of the folders of cases, but go on otherwise."""
    for component, digits in {(part.images[0].split("/")[0], part.digits) for part in parts}:
        if "{n}" in component:
            yield from (one for one in tree.folders(root) if is_case_folder(one.name, component, digits) is False)


def _check_counts(native: Native, dataset: PublicDataset) -> None:
    """Report a data set that is not complete, or of another release; it is an error if no case is complete."""
    counts = [("training", len(native.training), dataset.num_training)]
    if native.test:
        counts.append(("test", len(native.test), dataset.num_test))
    for part, found, expected in counts:
        if found != expected:
            message = f"{found} complete {part} cases found, {dataset.name} has {expected}."
            remedy = "Complete the download; scores on other cases cannot be compared with those of papers."
            native.report("warning" if found else "error", "case-count", message, remedy)
