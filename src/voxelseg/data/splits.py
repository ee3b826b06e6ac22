"""Folds for cross-validation: grouped by patient, seeded, or as the user says.

Cases of one patient always share a fold; otherwise a network is judged on people that it has seen. The draw depends on
the set of patients and the seed alone, not on the order of files.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.wording import some
from voxelseg.errors import DataError
from voxelseg.files import read_json, write_json

SPLIT_FILES = ("splits.json", "splits_final.json")
"""Names under which a data set's folder may hold its own folds; nnU-Net writes the second."""
USUAL_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """One fold: case ids to train on and to validate on, both sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def splits_of(dataset: Dataset, *, num_folds: int | None = None, seed: int = 12345) -> list[Split]:
    """Folds of a data set: those in its splits.json or splits_final.json if it has one, else `make_splits`.

    By default, there are as many as `wanted_folds` says.
    """
    file = split_file_of(dataset)
    if file is not None:
        return read_splits(file, dataset.cases)
    wanted = wanted_folds(dataset.cases) if num_folds is None else num_folds
    return make_splits(dataset.cases, num_folds=wanted, seed=seed)


def wanted_folds(cases: Sequence[Case]) -> int:
    """Number of folds to draw: `USUAL_FOLDS`, or more if a case asks for a higher one."""
    return max([USUAL_FOLDS, *(case.fold + 1 for case in cases if case.fold is not None)])


def split_file_of(dataset: Dataset) -> Path | None:
    """The data set's own split file, if it has one."""
    return next((dataset.root / name for name in SPLIT_FILES if (dataset.root / name).is_file()), None)


def make_splits(cases: Sequence[Case], *, num_folds: int = USUAL_FOLDS, seed: int = 12345) -> list[Split]:
    """Folds of nearly equal size, grouped by patient; fold k validates on the cases of fold k.

    Patients are shuffled with `seed` and given, those with most cases first, to the fold that has fewest cases. Cases
    with a `fold` take their patient there; where every case has one, their number of folds replaces `num_folds`.
    With fewer patients than `num_folds` there are as many folds as patients: `possible_folds` says so in words.
    Raises DataError for fewer than two patients, a patient in two folds, and folds that do not count from 0 upwards.
    """
    num_folds, _ = possible_folds(cases, num_folds)
    cases_of: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        cases_of[case.patient].append(case)
    problems = fold_problems(cases)
    if problems:
        raise DataError("; ".join(problems) + ". Give all cases of a patient the same fold.")
    members: list[list[str]] = [[] for _ in range(num_folds)]
    free = []
    for patient in sorted(cases_of):
        folds = {case.fold for case in cases_of[patient]} - {None}
        if folds:
            (fold,) = folds
            assert fold is not None
            members[fold] += [case.id for case in cases_of[patient]]
        else:
            free.append(patient)
    order = np.random.default_rng(seed).permutation(len(free))
    for patient in sorted(
        (free[i] for i in order), key=lambda patient: -len(cases_of[patient])
    ):  # stable: keeps the draw
        min(members, key=len).extend(case.id for case in cases_of[patient])
    empty = [fold for fold, ids in enumerate(members) if not ids]
    if empty:
        raise DataError(
            f"no case is held out in fold {some([str(fold) for fold in empty])}. Number the folds from 0 without gaps."
        )
    everyone = {case.id for case in cases}
    return [Split(tuple(sorted(everyone - set(ids))), tuple(sorted(ids))) for ids in members]


def possible_folds(cases: Sequence[Case], num_folds: int) -> tuple[int, str]:
    """Number of folds that the cases allow, and why it is not `num_folds` (empty if it is).

    Raises DataError if nobody can be held out, or a case's fold lies outside the number of folds.
    """
    if num_folds < 2:
        raise DataError(f"{num_folds} folds asked for, at least 2 are needed: each fold is held out once.")
    patients = {case.patient for case in cases}
    if len(patients) < 2:
        found = f"{len(cases)} cases of one patient" if len(cases) > 1 else f"{len(cases)} case"
        raise DataError(
            f"{found}: training needs a held-out case of another patient. Add labelled cases"
            + (", or name the patients in a 'patients' table if this grouping is wrong." if len(cases) > 1 else ".")
        )
    given = [case.fold for case in cases if case.fold is not None]
    highest = max(given, default=-1)
    if highest > len(cases):
        raise DataError(
            f"a case asks for fold {highest}, but {len(cases)} cases make {len(cases)} folds at most. "
            "Number the folds from 0 without gaps."
        )
    if given and len(given) == len(cases):
        reason = "" if highest + 1 == num_folds else f"the cases' own folds number {highest + 1}"
        if highest < 1:
            raise DataError("every case is in fold 0. Use at least two folds, numbered from 0.")
        return highest + 1, reason
    if highest >= num_folds:
        raise DataError(
            f"a case asks for fold {highest}, but there are {num_folds} folds, numbered from 0. "
            "Ask for more folds, or give every case its fold."
        )
    placed = {case.patient for case in cases if case.fold is not None}
    num_groups = len(set(given)) + len(patients - placed)  # patients placed in one fold count once
    if num_groups < num_folds:
        num_folds = max(num_groups, highest + 1)
        return num_folds, f"{len(patients)} patients allow no more than {num_folds} folds"
    return num_folds, ""


def fold_problems(cases: Sequence[Case]) -> list[str]:
    """A sentence for each patient whose cases ask for different folds."""
    folds_of: dict[str, set[int]] = defaultdict(set)
    for case in cases:
        if case.fold is not None:
            folds_of[case.patient].add(case.fold)
    return [
        f"patient {patient} is in folds {', '.join(map(str, sorted(folds)))}"
        for patient, folds in sorted(folds_of.items())
        if len(folds) > 1
    ]


def read_splits(path: Path, cases: Sequence[Case]) -> list[Split]:
    """Folds in a file [{"train": [ids], "val": [ids]}, ...], which is nnU-Net's splits_final.json too.

    Raises DataError, naming everything that is wrong: another structure, unknown or repeated ids, cases both trained
    and validated on, patients on both sides.
    """
    splits, problems = parse_splits(path, cases)
    if problems:
        sentences = "; ".join(sentence for _, sentence in problems)
        raise DataError(f"{path}: {sentences}. Correct the file, or remove it to draw new folds.")
    return splits


def parse_splits(path: Path, cases: Sequence[Case]) -> tuple[list[Split], list[tuple[str, str]]]:
    """Folds in a split file, and a code and a sentence for everything in it that would make a score wrong.

    The code is "patient-in-folds" for patients on both sides, else "split-file".

    Raises DataError if the file is not valid JSON or not a list of folds.
    """
    remedy = "Correct the file, or remove it to draw new folds."
    content = read_json(path, remedy=remedy)
    if not isinstance(content, list) or not content or not all(_is_fold(fold) for fold in content):
        raise DataError(f'{path}: expected a list of folds {{"train": [case ids], "val": [case ids]}}. {remedy}')
    patient_of_case = {case.id: case.patient for case in cases}
    splits: list[Split] = []
    problems: list[tuple[str, str]] = []
    for number, fold in enumerate(content):
        train, validation = fold["train"], fold["val"]
        for name, ids in (("train", train), ("val", validation)):
            if not ids:
                problems.append(("split-file", f"fold {number} has no case under {name!r}"))
            if len(set(ids)) != len(ids):
                problems.append(
                    ("split-file", f"fold {number} names cases twice under {name!r}: {some(_repeated(ids))}")
                )
        unknown = (set(train) | set(validation)) - set(patient_of_case)
        if unknown:
            problems.append(("split-file", f"fold {number} names unknown cases: {some(sorted(unknown))}"))
        both = set(train) & set(validation)
        if both:
            problems.append(
                ("split-file", f"fold {number} trains and validates on the same cases: {some(sorted(both))}")
            )
        shared = {patient_of_case[one] for one in set(train) - unknown - both} & {
            patient_of_case[one] for one in set(validation) - unknown - both
        }
        if shared:
            problems.append(
                ("patient-in-folds", f"fold {number} trains and validates on the same patients: {some(sorted(shared))}")
            )
        splits.append(Split(tuple(sorted(train)), tuple(sorted(validation))))
    return splits, problems


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write folds to `path` in the form that `read_splits` reads."""
    write_json(path, [{"train": list(split.train), "val": list(split.validation)} for split in splits])


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and all(
        isinstance(fold.get(key), list) and all(isinstance(one, str) for one in fold[key]) for key in ("train", "val")
    )


def _repeated(ids: Sequence[str]) -> list[str]:
    return sorted({one for one in ids if ids.count(one) > 1})
