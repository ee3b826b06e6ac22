"""All problems of a data set at once, before anything costs time.

Each case is read once, one per worker at a time, so memory holds one image file and one label map per worker. What
concerns several cases (duplicates, classes that never occur, mirrored cases, folds) is judged from what the workers
return.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.data.dataset import Case, Dataset, Problem, Severity
from voxelseg.data.examination import Findings, examine_case
from voxelseg.data.flips import Flip, suspected_flips
from voxelseg.data.layouts import read_dataset
from voxelseg.data.splits import fold_problems, make_splits, parse_splits, possible_folds, split_file_of
from voxelseg.errors import DataError, WorkerError
from voxelseg.parallel import map_unordered

_USUAL_FOLDS = 5
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found."""

    dataset: str
    """Name of the data set."""
    root: Path
    layout: str
    num_cases: int
    """Cases that were read, test cases included."""
    problems: tuple[Problem, ...]
    """Errors first, then warnings, then remarks; by code, then by case."""

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not self.count("error")

    @property
    def exit_code(self) -> int:
        """0, or 1 if training would fail or learn something wrong."""
        return 0 if self.ok else 1

    def count(self, severity: Severity) -> int:
        """Number of problems of one severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "layout": self.layout,
            "num_cases": self.num_cases,
            "ok": self.ok,
            "counts": {severity: self.count(severity) for severity in _SEVERITIES},
            "problems": [problem.to_dict() for problem in self.problems],
        }


def check_dataset(
    data: Path | str | Dataset, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """All problems of the data set at `data`, from its files' headers, voxels and labels.

    `progress` is called with the numbers of cases done and in all. A case that cannot be read, or on which a worker
    fails, becomes a problem; DataError is only raised if `data` is not a data set at all (see `read_dataset`).
    """
    dataset = data if isinstance(data, Dataset) else read_dataset(data)
    cases = [*dataset.cases, *dataset.test_cases]
    examine = partial(examine_case, channels=dataset.channels, labels=dataset.labels, root=dataset.root)
    found: dict[int, Findings] = {}
    for index, findings in _examine_all(examine, cases, workers):
        found[index] = findings
        if progress is not None:
            progress(len(found), len(cases))
    in_order = [found[index] for index in range(len(cases))]
    training = in_order[: len(dataset.cases)]
    problems = [
        *dataset.problems,
        *(problem for findings in in_order for problem in findings.problems),
        *_duplicates(cases, in_order),
        *_absent_classes(dataset, training),
        *_flips(dataset, training),
        *_fold_problems(dataset),
    ]
    problems.sort(key=lambda problem: (_SEVERITIES.index(problem.severity), problem.code, problem.case))
    return CheckReport(dataset.name, dataset.root, dataset.layout, len(cases), tuple(problems))


def _examine_all(
    examine: Callable[[Case], Findings], cases: Sequence[Case], workers: int
) -> Iterator[tuple[int, Findings]]:
    """Index and findings of every case. After a worker's death the cases it may have been at are examined alone."""
    waiting = list(range(len(cases)))
    while waiting:
        batch = tuple(waiting)
        try:
            for position, findings in map_unordered(examine, [cases[index] for index in batch], workers=workers):
                waiting.remove(batch[position])
                yield batch[position], findings
        except WorkerError:
            for index in waiting[: 2 * workers]:  # at most this many were in work, in this order
                waiting.remove(index)
                yield index, _examine_alone(examine, cases[index])


def _examine_alone(examine: Callable[[Case], Findings], case: Case) -> Findings:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(examine, case).result()
        except BrokenProcessPool:
            message = f"{case.images[0].name}: the process that read the case died, mostly because the memory ran out."
            remedy = "Free memory or use a bigger machine; if other scans of this size work, export this one again."
            return Findings([Problem(case.id, "error", "reader-died", message, remedy)])


# --------------------------------------------------------------------------------------------- across the data set


def _duplicates(cases: Sequence[Case], findings: Sequence[Findings]) -> Iterator[Problem]:
    """Cases that have a channel in common with an earlier one."""
    first_with: dict[str, Case] = {}
    for case, found in zip(cases, findings, strict=True):
        twins = {}
        for content in found.channel_hashes:
            first = first_with.setdefault(content, case)
            if first is not case:
                twins[first.id] = first
        for twin in twins.values():
            same_patient = twin.patient == case.patient
            yield Problem(
                case.id,
                "warning" if same_patient else "error",
                "duplicate-image",
                f"the image has the same voxels as that of {twin.id}"
                + ("." if same_patient else ", so a case that is trained on may also be held out."),
                "Remove one of them." if same_patient else "Remove one of them, or give both the same patient.",
            )


def _absent_classes(dataset: Dataset, findings: Sequence[Findings]) -> Iterator[Problem]:
    seen = [found.values for found in findings if found.values is not None]
    everything = set().union(*seen)
    if not everything - {0, dataset.labels.ignore}:
        return  # every label map is empty or unreadable, which is reported of each
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
        {case: found.centroids_right_mm for case, found in labelled.items()},
        dataset.labels.names,
        spacing_mm=float(np.median([found.spacing_right_mm for found in labelled.values()])),
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
    return Problem(
        flip.case,
        "warning",
        "left-right-flip",
        f"{first!r} and {second!r} lie the other way round than in {flip.num_cases - flip.num_odd} of {flip.num_cases} "
        "cases; the case may be flipped left to right.",
        remedy,
    )


def _fold_problems(dataset: Dataset) -> Iterator[Problem]:
    def problem(code: str, message: str, remedy: str) -> Problem:
        return Problem("", "error", code, message, remedy)

    several = [f"{sentence}." for sentence in fold_problems(dataset.cases)]
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
        yield from _draw_problems(dataset.cases)


def _draw_problems(cases: Sequence[Case]) -> Iterator[Problem]:
    """Why folds cannot be drawn, or are fewer than usual."""
    given = [case.fold for case in cases if case.fold is not None]
    try:
        make_splits(cases, num_folds=max(_USUAL_FOLDS, max(given, default=0) + 1))
    except DataError as error:
        code = "wrong-folds" if given else "no-held-out-case"
        remedy = "Correct the folds." if given else "Add labelled cases of other patients."
        yield Problem("", "error", code, str(error), remedy)
        return
    reason = possible_folds(cases, _USUAL_FOLDS)[1] if not given else ""
    if reason:
        yield Problem("", "info", "fewer-folds", f"{reason}.", "Nothing, if this is meant.")


# ------------------------------------------------------------------------------------------------------- showing it

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_NUM_CASES_SHOWN = 4
_NUM_MESSAGES_SHOWN = 2


def print_report(report: CheckReport, console: Console) -> None:
    """Print a table of the problems: one row for all cases with the same kind of problem, the worst first."""
    console.print(Text.assemble((report.dataset, "bold"), f": {report.num_cases} cases read from {report.root}"))
    if report.problems:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1))
        table.add_column("problem", no_wrap=True)
        table.add_column("cases", max_width=26, overflow="fold")
        table.add_column("what was found, and what to do", overflow="fold")
        for severity in _SEVERITIES:
            groups: dict[str, list[Problem]] = defaultdict(list)
            for problem in report.problems:
                if problem.severity == severity:
                    groups[problem.code].append(problem)
            if groups:
                table.add_row(Text(_count(report, severity), style=f"bold {_COLOURS[severity]}"))
            for code, problems in groups.items():
                table.add_row(Text(code, style=_COLOURS[severity]), _names(problems), _explanation(problems))
                table.add_section()
        console.print(table)
    console.print(_verdict(report))


def _names(problems: Sequence[Problem]) -> Text:
    cases = list(dict.fromkeys(problem.case or "all" for problem in problems))
    more = f"\nand {len(cases) - _NUM_CASES_SHOWN} more" if len(cases) > _NUM_CASES_SHOWN else ""
    return Text("\n".join(cases[:_NUM_CASES_SHOWN]) + more)


def _explanation(problems: Sequence[Problem]) -> Text:
    """Messages of one kind of problem and what to do about them, shortened to a few examples."""
    messages = list(dict.fromkeys(problem.message for problem in problems))
    remedies = list(dict.fromkeys(problem.remedy for problem in problems))
    if len(messages) > _NUM_MESSAGES_SHOWN:
        messages[_NUM_MESSAGES_SHOWN:] = [f"and {len(messages) - _NUM_MESSAGES_SHOWN} more like these"]
    return Text("\n").join(
        [*map(Text, messages), *(Text(f"\N{RIGHTWARDS ARROW} {remedy}", "dim") for remedy in remedies)]
    )


def _verdict(report: CheckReport) -> Text:
    counts = [_count(report, severity) for severity in _SEVERITIES if report.count(severity)]
    summary = ", ".join(counts) or "no problems"
    if report.ok:
        return Text(f"Ready for training: {summary}.", style="green")
    return Text(f"Not ready for training: {summary}. Mend the errors first.", style="red")


def _count(report: CheckReport, severity: Severity) -> str:
    number = report.count(severity)
    return f"{number} {severity if severity != 'info' else 'remark'}{'' if number == 1 else 's'}"
