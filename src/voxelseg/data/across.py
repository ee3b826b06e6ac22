"""What is wrong with a data set as a whole, judged from its list of cases and from what was found in each of them."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from voxelseg.data.dataset import Case, Dataset, Problem
from voxelseg.data.examination import Findings
from voxelseg.data.flips import SCAN_CENTRE, Flip, suspected_flips
from voxelseg.data.layouts.description import relative_name
from voxelseg.data.splits import USUAL_FOLDS, make_splits, parse_splits, possible_folds, split_file_of, wanted_folds
from voxelseg.data.splits import fold_problems as fold_sentences
from voxelseg.data.wording import some
from voxelseg.errors import DataError


def problems_across(dataset: Dataset, findings: Sequence[Findings]) -> list[Problem]:
    """Problems that concern several cases; `findings` are those of the training cases and then the test cases."""
    training = findings[: len(dataset.cases)]
    return [
        *_shared_files(dataset),
        *_duplicates(dataset, findings),
        *_absent_classes(dataset, training),
        *_flips(dataset, training),
        *_patients_in_test(dataset),
        *_folds(dataset),
    ]


def as_warnings(problems: Iterable[Problem]) -> list[Problem]:
    """Problems of test cases, which do not keep anyone from training: none is an error."""
    return [
        dataclasses.replace(problem, severity="warning") if problem.severity == "error" else problem
        for problem in problems
    ]


def _shared_files(dataset: Dataset) -> Iterator[Problem]:
    """Training cases whose label map is also another's, or an image."""
    images = {_same_file(path): case for case in dataset.cases for path in case.images}
    first_with: dict[str, Case] = {}
    for case in dataset.cases:
        if case.label is None:
            continue
        file, name = _same_file(case.label), relative_name(case.label, dataset.root)
        if file in images:
            yield Problem(
                case.id,
                "error",
                "label-is-image",
                f"{name}: the label map is also an image of {images[file].id}.",
                "Name the right files in the list of cases.",
            )
        first = first_with.setdefault(file, case)
        if first is not case:
            yield Problem(
                case.id,
                "error",
                "shared-label",
                f"{name}: is the label map of {first.id} too.",
                "Name the right label map of each case.",
            )


def _same_file(path: Path) -> str:
    """Equal for two paths to one file."""
    return os.path.realpath(path)


def _duplicates(dataset: Dataset, findings: Sequence[Findings]) -> Iterator[Problem]:
    """Cases that have a channel in common with an earlier one; training cases come first."""
    cases = [*dataset.cases, *dataset.test_cases]
    num_training = len(dataset.cases)
    first_with: dict[str, int] = {}
    for index, found in enumerate(findings):
        twins = {first_with.setdefault(content, index): None for content in found.channel_hashes}
        for twin in twins:
            if twin != index:
                yield _duplicate(
                    cases[index], cases[twin], num_in_training=(index < num_training) + (twin < num_training)
                )


def _duplicate(case: Case, twin: Case, *, num_in_training: int) -> Problem:
    message = f"the image has the same voxels as that of {twin.id}"
    if num_in_training == 1:
        message += ", so a test case is trained on."
        return Problem(case.id, "error", "duplicate-image", message, "Take it out of one of the two sets.")
    if num_in_training == 2 and twin.patient != case.patient:
        message += ", so a case that is trained on may also be held out."
        remedy = "Remove one of them, or give both the same patient."
        return Problem(case.id, "error", "duplicate-image", message, remedy)
    return Problem(case.id, "warning", "duplicate-image", f"{message}.", "Remove one of them.")


def _absent_classes(dataset: Dataset, findings: Sequence[Findings]) -> Iterator[Problem]:
    seen = [found.values for found in findings if found.values is not None]
    if not seen:
        return  # no label map can be read, which is reported of each
    everything = set().union(*seen)
    if not everything - {0, dataset.labels.ignore}:
        yield Problem(
            "",
            "error",
            "no-foreground",
            f"none of {len(seen)} label maps shows any class, so there is nothing to learn.",
            "Give the label maps of the scans; a threshold or a conversion may have emptied them.",
        )
        return
    for label in dataset.labels.classes:
        if not everything & set(label.values):
            yield Problem(
                "",
                "warning",
                "class-never-occurs",
                f"class {label.name!r} ({', '.join(map(str, label.values))}) occurs in none of {len(seen)} label maps.",
                "Remove the class from the description, or add cases that show it; it cannot be learnt.",
            )


def _flips(dataset: Dataset, findings: Sequence[Findings]) -> Iterator[Problem]:
    labelled = {case.id: found for case, found in zip(dataset.cases, findings, strict=True) if found.centroids_right_mm}
    if not labelled:
        return
    flips = suspected_flips(
        {case: {**found.centroids_right_mm, SCAN_CENTRE: found.centre_right_mm} for case, found in labelled.items()},
        dataset.labels.names,
        spacing_mm=float(np.median([found.spacing_right_mm for found in labelled.values()])),
        width_mm=float(np.median([found.width_right_mm for found in labelled.values()])),
    )
    for flip in flips:
        yield _flip_problem(flip)


def _flip_problem(flip: Flip) -> Problem:
    first, second = flip.classes
    remedy = "Compare with the original scan; correct the header's left-right direction, or flip image and label back."
    if not flip.case:
        return Problem(
            "",
            "warning",
            "left-right-names",
            f"in {flip.num_odd} of {flip.num_cases} cases {first!r} lies to the patient's right of {second!r}.",
            "Swap the two names, or correct the headers if all scans are stored left for right.",
        )
    others = (
        f"than in {flip.num_cases - flip.num_odd} of {flip.num_cases} cases; the case may be flipped left to right."
    )
    where = f"{first!r} and {second!r} lie the other way round"
    if first == SCAN_CENTRE:
        where = f"{second!r} lies on the other side of the scan's centre"
    return Problem(flip.case, "warning", "left-right-flip", f"{where} {others}", remedy)


def _patients_in_test(dataset: Dataset) -> Iterator[Problem]:
    training, test = _cases_by_patient(dataset.cases), _cases_by_patient(dataset.test_cases)
    for patient in sorted(training.keys() & test.keys()):
        yield Problem(
            "",
            "warning",
            "patient-in-test",
            f"patient {patient} has training cases ({some(training[patient])}) and test cases ({some(test[patient])}), "
            "so scores on the test cases come out too high.",
            "Move all cases of the patient to one of the two, or name the patients in a 'patients' table.",
        )


def _cases_by_patient(cases: Iterable[Case]) -> dict[str, list[str]]:
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        cases_of[case.patient].append(case.id)
    return cases_of


def _folds(dataset: Dataset) -> Iterator[Problem]:
    def problem(code: str, message: str, remedy: str) -> Problem:
        return Problem("", "error", code, message, remedy)

    several = [f"{sentence}." for sentence in fold_sentences(dataset.cases)]
    for message in several:
        yield problem("patient-in-folds", message, "Give all cases of a patient the same fold.")
    file = split_file_of(dataset)
    if file is not None:
        remedy = "Correct the file, or remove it to draw new folds."
        try:
            _, faults = parse_splits(file, dataset.cases)
        except DataError as error:
            yield problem("split-file", str(error), remedy)
            return
        for code, sentence in faults:
            yield problem(code, f"{file.name}: {sentence}.", remedy)
    elif not several:
        yield from _drawn_folds(dataset.cases)


def _drawn_folds(cases: Sequence[Case]) -> Iterator[Problem]:
    """Why folds cannot be drawn, or are fewer than usual."""
    given = any(case.fold is not None for case in cases)
    try:
        make_splits(cases, num_folds=wanted_folds(cases))
    except DataError as error:
        code = "wrong-folds" if given else "no-held-out-case"
        remedy = "Correct the folds." if given else "Add labelled cases of other patients."
        yield Problem("", "error", code, str(error), remedy)
        return
    reason = "" if given else possible_folds(cases, USUAL_FOLDS)[1]
    if reason:
        yield Problem("", "info", "fewer-folds", f"{reason}.", "Nothing, if this is meant.")
