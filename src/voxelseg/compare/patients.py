"""Whose the cases are: those of one patient are alike, so statistics take them together."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxelseg.compare.contestants import Contestant
from voxelseg.data.dataset import patient_of
from voxelseg.data.wording import some
from voxelseg.errors import DataError

_CASE, _PATIENT = "case", "patient"


def patients_of(contestants: Sequence[Contestant], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Case -> patient: as `known` says, as the files of the cases say, or as the case's name says (`patient_of`).

    DataError if `known` is given and lacks a case.
    """
    origins = {name: case for one in contestants for name, case in one.origins.items()}
    cases = dict.fromkeys(case for one in contestants for case in one.cases)
    ids = {case: origins.get(case, case) for case in cases}
    if known is not None:
        lacking = sorted({one for one in ids.values() if one not in known})
        if lacking:
            raise DataError(f"the patients of {some(lacking)} are not given. Add these cases to the table of patients.")
        return {case: known[one] for case, one in ids.items()}
    said = {case: files.patient for one in contestants for case, files in one.files.items() if files.patient}
    return {case: said.get(case) or patient_of(one) for case, one in ids.items()}


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
