"""All problems of a data set at once, before anything costs time.

Each case is read once, one per worker at a time, so memory holds one image file and one label map per worker. What
concerns several cases is judged in `across` from what the workers return.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelseg.data.across import as_warnings, problems_across
from voxelseg.data.dataset import Case, Dataset, Problem, Severity
from voxelseg.data.examination import Findings, examine_case
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import WorkerError
from voxelseg.parallel import call_in_process, map_unordered

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found."""

    dataset: str
    """Name of the data set."""
    root: Path
    """Folder that holds the data set."""
    source: Path
    """What was named: that folder, or a file list in it."""
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
            "source": str(self.source),
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
    num_training = len(dataset.cases)
    problems = [
        *dataset.problems,
        *(problem for findings in in_order[:num_training] for problem in findings.problems),
        *as_warnings(problem for findings in in_order[num_training:] for problem in findings.problems),
        *problems_across(dataset, in_order),
    ]
    problems.sort(key=lambda problem: (_SEVERITIES.index(problem.severity), problem.code, problem.case))
    return CheckReport(dataset.name, dataset.root, dataset.source, dataset.layout, len(cases), tuple(problems))


def _examine_all(
    examine: Callable[[Case], Findings], cases: Sequence[Case], workers: int
) -> Iterator[tuple[int, Findings]]:
    """Index and findings of every case. After a worker's death the cases it may have been at are examined alone.

    WorkerError if workers die of something else than a case.
    """
    waiting = list(range(len(cases)))
    while waiting:
        batch = tuple(waiting)
        try:
            for position, findings in map_unordered(examine, [cases[index] for index in batch], workers=workers):
                waiting.remove(batch[position])
                yield batch[position], findings
        except WorkerError:
            call_in_process(_nothing, 0)  # raises where no process can be started, as from an unguarded script
            for index in waiting[: 2 * workers]:  # at most this many were in work, in this order
                waiting.remove(index)
                yield index, _examine_alone(examine, cases[index])


def _nothing(_: int) -> None:
    """What a worker can do in any case."""


def _examine_alone(examine: Callable[[Case], Findings], case: Case) -> Findings:
    try:
        return call_in_process(examine, case)
    except WorkerError:
        message = f"{case.images[0].name}: the process that read the case died, mostly because the memory ran out."
        remedy = "Free memory or use a bigger machine; if other scans of this size work, export this one again."
        return Findings([Problem(case.id, "error", "reader-died", message, remedy)])


# ------------------------------------------------------------------------------------------------------- showing it

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
_NUM_CASES_SHOWN = 4
_NUM_MESSAGES_SHOWN = 2


def print_report(report: CheckReport, console: Console) -> None:
    """Print a table of the problems: one row for all cases with the same kind of problem, the worst first."""
    console.print(Text.assemble((report.dataset, "bold"), f": {report.num_cases} cases read from {report.source}"))
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
