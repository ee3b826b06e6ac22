"""What the layouts share: the description in dataset.json, and cases whose files are all there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from voxelseg.data.dataset import Case, Problem, Severity
from voxelseg.data.labels import LabelScheme, parse_labels
from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.files import read_json
from voxelseg.io import strip_suffix

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class Description:
    """Names that a dataset.json, or the JSON beside a file list, gives."""

    KEYS: ClassVar = frozenset({"channel_names", "modality", "channels", "labels", "patients"})
    """Keys of a JSON object that make it a description."""

    content: Mapping[str, Any] = field(default_factory=dict)
    """The whole file."""
    name: str = ""
    channels: tuple[str, ...] = ()
    """Empty if none are named."""
    labels: LabelScheme | None = None
    patients: Mapping[str, str] = field(default_factory=dict)
    """Patient of each case, where the description says so."""

    def completed_by(self, other: "Description") -> "Description":
        """This description, with what it does not say taken from `other`."""
        return Description(
            content=self.content,
            name=self.name or other.name,
            channels=self.channels or other.channels,
            labels=self.labels or other.labels,
            patients=self.patients or other.patients,
        )


def read_description(path: Path) -> Description:
    """Description in a JSON file; DataError names the file, the fault and the remedy."""
    content = read_json(path, remedy="Correct the file; 'python -m json.tool FILE' shows the place of a fault.")
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: holds a JSON {type(content).__name__}, expected an object with keys such as 'labels'."
        )
    return parse_description(content, path)


def parse_description(content: Mapping[str, Any], path: Path) -> Description:
    """Description from JSON content read from `path`. All of its keys may be absent."""
    try:
        labels = None
        if "labels" in content:
            labels = parse_labels(content["labels"], regions_class_order=content.get("regions_class_order"))
        return Description(
            content=content,
            name=str(content.get("name", "")),
            channels=_channels(content),
            labels=labels,
            patients=_patients(content.get("patients", {})),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _channels(content: Mapping[str, Any]) -> tuple[str, ...]:
    key = next((key for key in ("channel_names", "modality", "channels") if key in content), None)
    if key is None:
        return ()
    given = content[key]
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        given = {str(index): name for index, name in enumerate(given)}
    if (
        not isinstance(given, dict)
        or sorted(given) != sorted(str(index) for index in range(len(given)))
        or not given
        or not all(isinstance(name, str) for name in given.values())
    ):
        raise DataError(
            f"{key!r} is {content[key]!r}, expected a name for every channel, counted from 0, such as "
            '{"0": "CT"}. Correct it.'
        )
    return tuple(given[str(index)] for index in range(len(given)))


def _patients(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(patient, str | int) for patient in given.values()):
        raise DataError(f"'patients' is {given!r}, expected an object {{case id: patient}}. Correct it.")
    return {case: str(patient) for case, patient in given.items()}


def visible_files(folder: Path) -> list[Path]:
    """Files of a folder, sorted by name, without hidden ones such as the `._*` twins that macOS writes."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def folder_name(folder: Path) -> str:
    """Name of a folder, however its path is written: "." is not a name."""
    return folder.resolve().name


def check_case_id(case_id: str, path: Path) -> None:
    """DataError naming the list `path` if output files cannot be named after a case."""
    if not case_id or case_id.startswith(".") or any(character in case_id for character in "/\\\0"):
        raise DataError(
            f"{path}: the id {case_id!r} cannot be a file name. Ids become file names: use letters, digits, '-', "
            "'_' and '.', and no '.' at the start."
        )


def file_ending_of(path: Path) -> str:
    """Image suffix of a file name, such as ".nii.gz"."""
    return path.name.removeprefix(strip_suffix(path))


def relative_name(path: Path, root: Path) -> str:
    """`path` for a message: relative to the data set's folder `root` if it lies inside."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def without_labels(cases: Iterable[Case]) -> list[Case]:
    """The same cases as scans only."""
    return [replace(case, label=None) for case in cases]


def complete_cases(
    candidates: Iterable[Case], *, root: Path, channels: tuple[str, ...], labelled: bool = True
) -> tuple[tuple[Case, ...], list[Problem]]:
    """Cases whose files all exist, sorted by id, and a problem for each missing file and repeated id.

    Messages name files relative to `root`. `labelled` says whether they are training cases, for which a label map is
    needed and problems are errors, or test cases and scans that nobody labelled.
    """
    first_of: dict[str, Case] = {}
    repeated: dict[str, int] = {}
    for case in sorted(candidates, key=lambda case: case.id):
        if first_of.setdefault(case.id, case) is not case:
            repeated[case.id] = repeated.get(case.id, 1) + 1
    problems = [
        Problem(
            case=case_id,
            severity="error" if labelled else "warning",
            code="duplicate-case",
            message=f"the id occurs {count} times; only its first occurrence is used.",
            remedy="Give every case its own id (file name).",
        )
        for case_id, count in repeated.items()
    ]
    complete: list[Case] = []
    for case in first_of.values():
        missing = _missing_files(case, root, channels, labelled=labelled)
        problems += missing
        if not missing:
            complete.append(case)
    return tuple(complete), problems


def _missing_files(case: Case, root: Path, channels: tuple[str, ...], *, labelled: bool) -> list[Problem]:
    def problem(code: str, message: str, remedy: str) -> Problem:
        severity: Severity = "error" if labelled else "warning"
        return Problem(case.id, severity, code, f"{message}; the case is left out.", remedy)

    absent = [index for index, path in enumerate(case.images) if not path.is_file()]
    found = []
    if len(absent) == len(case.images):
        where = relative_name(case.images[0], root) if case.images else "no image is named"
        found.append(
            problem(
                "missing-image", f"{where}: image not found", "Add the image, or remove the label from the data set."
            )
        )
    else:
        for index in absent:
            name = f" ({channels[index]})" if index < len(channels) else ""
            message = f"{relative_name(case.images[index], root)}: file of channel {index}{name} not found"
            found.append(problem("missing-channel", message, "Add the file; every case needs every channel."))
    if (labelled and case.label is None) or (case.label is not None and not case.label.is_file()):
        where = f"{relative_name(case.label, root)}: label map not found" if case.label else "no label map is named"
        found.append(problem("missing-label", where, "Add the label map, or remove the image from the training cases."))
    return found


def require_cases(path: Path, cases: tuple[Case, ...], problems: list[Problem], *, looked_for: str) -> None:
    """Raise DataError if no complete training case is left; names what was looked for and the first problems."""
    if cases:
        return
    reasons = "".join(f"\n  {f'{problem.case}: ' if problem.case else ''}{problem.message}" for problem in problems[:5])
    more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise DataError(f"{path}: no complete training case. Looked for {looked_for}.{reasons}{more}")


def unknown_patients(description: Description, cases: Iterable[Case]) -> list[Problem]:
    """A problem if the `patients` table names cases that are not there, as happens after a typing error."""
    unknown = sorted(set(description.patients) - {case.id for case in cases})
    if not unknown:
        return []
    return [
        Problem(
            case="",
            severity="warning",
            code="unknown-patient-case",
            message=f"'patients' names {len(unknown)} cases that are not in the data set: {some(unknown)}.",
            remedy="Correct the case ids in the 'patients' table of dataset.json.",
        )
    ]


def wrong_count(description: Description, num_found: int) -> list[Problem]:
    """A problem if `numTraining` is not the number of training cases found."""
    stated = description.content.get("numTraining")
    if stated is None or stated == num_found:
        return []
    return [
        Problem(
            case="",
            severity="warning",
            code="case-count",
            message=f"dataset.json says {stated} training cases, {num_found} were found.",
            remedy="Complete the copy of the data set, or correct 'numTraining'.",
        )
    ]
