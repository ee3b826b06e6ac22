"""Whose the cases are: those of one patient are alike, so statistics take them together."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from voxelseg.compare.contestants import Contestant
from voxelseg.data.dataset import patient_of
from voxelseg.data.wording import some
from voxelseg.errors import DataError

_CASE, _PATIENT = "case", "patient"
OWN_PATIENTS = "Every case is taken for a patient of its own."
"""What the reader should know where `are_own`."""


def patients_of(
    contestants: Sequence[Contestant],
    known: Mapping[str, str] | None = None,
    *,
    dataset: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Case -> patient: as `known` says, or else as `dataset`, the contestants' scores or the case's name says.

    Where `dataset` or scores give a case the patient that its name says (`patient_of`), as they do where they were not
    told whose it is, what others say goes before. DataError if `known` is given and lacks a case, or if scores say
    different patients and nothing before them decides.
    """
    ids = case_ids(contestants)
    if known is not None:
        lacking = sorted({one for case, one in ids.items() if case not in known and one not in known})
        if lacking:
            raise DataError(f"the patients of {some(lacking)} are not given. Add these cases to the table of patients.")
        return {case: known[case if case in known else one] for case, one in ids.items()}
    by_name = {case: patient_of(one) for case, one in ids.items()}
    of_dataset = {case: (dataset or {}).get(one, by_name[case]) for case, one in ids.items()}
    told = {case: patient for case, patient in of_dataset.items() if patient != by_name[case]}
    return {**by_name, **_of_scores(contestants, by_name, without=told), **told}


def are_own(patients: Mapping[str, str]) -> bool:
    """Whether each of several cases is a patient of its own, called as it is: nobody said anything else."""
    return len(patients) > 1 and all(case == patient for case, patient in patients.items())


def case_ids(contestants: Iterable[Contestant]) -> dict[str, str]:
    """Case among the scores -> its id, which is another where several folds held it out."""
    contestants = list(contestants)
    origins = {name: case for one in contestants for name, case in one.origins.items()}
    return {case: origins.get(case, case) for one in contestants for case in one.cases}


def _of_scores(
    contestants: Iterable[Contestant], by_name: Mapping[str, str], *, without: Collection[str]
) -> dict[str, str]:
    """Case -> patient that some scores tell beyond its name, `without` some cases; DataError if they disagree."""
    said: dict[str, dict[str, str]] = {}
    for one in contestants:
        for case, patient in ((case, patient) for run in one.runs.values() for case, patient in run.patients.items()):
            if case not in without and patient != by_name.get(case, patient):
                said.setdefault(case, {}).setdefault(patient, one.name)
    faults = [
        f"{case} is of {' and of '.join(f'{patient} for {name}' for patient, name in found.items())}"
        for case, found in said.items()
        if len(found) > 1
    ]
    if faults:
        raise DataError(
            f"contestants were scored with different patients: {some(faults)}. Evaluate them again beside one "
            "description, or say whose the cases are: --patients, a table."
        )
    return {case: next(iter(found)) for case, found in said.items()}


def read_patients(path: Path) -> dict[str, str]:
    """Case -> patient from a CSV table with the columns `case` and `patient`; DataError for anything else."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _patients_of_rows(path, csv.DictReader(file, strict=True))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Give a CSV table.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no CSV table ({error}). Give one with the columns case and patient.") from error


def _patients_of_rows(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    found: dict[str, str] = {}
    missing = {_CASE, _PATIENT} - set(rows.fieldnames or ())
    if missing:
        raise DataError(
            f"{path}: found the columns {list(rows.fieldnames or ())}, expected {_CASE} and {_PATIENT}. Name them so."
        )
    for row in _stripped(rows):
        case, patient = row[_CASE], row[_PATIENT]
        if not case or not patient or found.get(case, patient) != patient:
            raise DataError(
                f"{path}: line {rows.line_num} has case {case!r} and patient {patient!r}"
                f"{f', an earlier one patient {found[case]!r}' if case in found else ''}. Give each case one patient."
            )
        found[case] = patient
    return found


def _stripped(rows: Iterable[Mapping[str, str | None]]) -> Iterable[dict[str, str]]:
    for row in rows:
        yield {key: (row[key] or "").strip() for key in (_CASE, _PATIENT)}
