"""A study as a table for the terminal, and as files: study.json, table.csv, cases.csv and study.md."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from voxelseg.evaluate.evaluation import common_columns, mean_of_defined
from voxelseg.files import write_json, write_text
from voxelseg.statistics.paired import difference_in_words
from voxelseg.study.results import Comparison, Point, Study
from voxelseg.study.starts import SCRATCH
from voxelseg.version import __version__

FIGURE_NAME = "figure"
_WIDEST_FIRST = 24
"""Characters of a name that are kept in one line of a narrow terminal."""
_VERDICTS = {
    "better": "better",
    "worse": "worse",
    "seeds": "seeds may explain it",
    "equal": "cannot be told apart",
    "": "–",
}


def study_table(study: Study) -> Group:
    """Dice of each start and share, of each seed, and the difference from scratch; then the conclusions and notes."""
    table = Table()
    firsts = [*(start.name for start in study.design.starts), *(_labels(study, share) for share in study.design.shares)]
    table.add_column("Start", overflow="fold", min_width=min(max(map(len, firsts)), _WIDEST_FIRST))
    for title in ("Dice [95 %]", f"minus {SCRATCH} [95 %]", "p (Holm)", "Dice of the seeds"):
        table.add_column(title, overflow="fold")
    for share in study.design.shares:
        table.add_row(_labels(study, share), style="bold")
        for point in (one for one in study.points if one.share == share):
            against = _against(study.comparison(point.start, share), digits=3)
            means = (_number(point.means.get(seed, math.nan), digits=3) for seed in study.design.seeds)
            dice = _mean_in_words(point, digits=3)
            table.add_row(*map(Text, (point.start, dice, against[0], against[1], "  ".join(means))))
        table.add_section()
    remarks = Text("\n".join(study.notes), style="table.caption")
    return Group(Text(_title(study), style="table.title"), table, Text("\n".join(study.conclusions)), remarks)


def write_study(study: Study) -> list[Path]:
    """Write study.json, table.csv, cases.csv and study.md into the study's folder; returns their paths."""
    folder = study.design.folder
    paths = [folder / name for name in ("study.json", "table.csv", "cases.csv", "study.md")]
    write_json(paths[0], _as_json(study))
    write_text(paths[1], _csv(_table_rows(study)))
    write_text(paths[2], _csv(_case_rows(study)))
    write_text(paths[3], _markdown(study))
    return paths


def _title(study: Study) -> str:
    return f"{study.design.model}, fold {study.design.fold}: mean Dice by share of labels and start"


def _labels(study: Study, share: float) -> str:
    """Such as "25 % (8 cases)"."""
    return f"{share:g} % ({study.cases_in_words(share)})"


def _cells(study: Study) -> tuple[list[str], list[list[str]]]:
    """Titles and rows for people."""
    seeds = study.design.seeds
    minus = f"minus {SCRATCH} [95 %]"
    titles = ["Labels", "Start", "Dice [95 %]", *(f"seed {seed}" for seed in seeds), minus, "p (Holm)", "Verdict"]
    rows = []
    for point in study.points:
        means = (_number(point.means.get(seed, math.nan)) for seed in seeds)
        against = _against(study.comparison(point.start, point.share))
        rows.append([_labels(study, point.share), point.start, _mean_in_words(point), *means, *against])
    return titles, rows


def _mean_in_words(point: Point, *, digits: int = 4) -> str:
    low, high = (_number(end, digits=digits) for end in (point.interval.low, point.interval.high))
    return f"{_number(point.mean, digits=digits)} [{low}, {high}]"


def _against(found: Comparison | None, *, digits: int = 4) -> tuple[str, str, str]:
    """Difference, adjusted p and verdict; dashes for scratch itself and for what is not finished."""
    if found is None or found.overall is None:
        return "–", "–", "–"
    numbers = difference_in_words(found.overall, digits=digits)
    return numbers, f"{found.adjusted_p:.2g}", _VERDICTS[found.verdict]


def _number(value: float, *, digits: int = 4) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _as_json(study: Study) -> dict[str, Any]:
    design = study.design
    return {
        "voxelseg": __version__,
        "data": str(design.data),
        "model": design.model,
        "fold": design.fold,
        "length": dict(design.length),
        "settings": list(design.settings),
        "device": design.device,
        "starts": {
            one.name: None if one.init is None else {"path": str(one.init), "checksum": design.checksums[one.name]}
            for one in design.starts
        },
        "held_out": dict(design.held_out),
        "subsets": [asdict(one) for one in design.subsets.values()],
        "trainings": [_training_as_json(study, one) for one in design.trainings],
        "points": [
            {
                "start": one.start,
                "share": one.share,
                "dice": one.mean,
                "interval": [one.interval.low, one.interval.high],
                "seeds": {str(seed): mean for seed, mean in one.means.items()},
            }
            for one in study.points
        ],
        "comparisons": [
            {
                "start": one.start,
                "share": one.share,
                "verdict": _VERDICTS[one.verdict],
                "adjusted_p": one.adjusted_p,
                "adjusted_wilcoxon_p": one.adjusted_wilcoxon_p,
                "seeds_p": one.seeds_p,
                "seeds_interval": [one.seeds.low, one.seeds.high],
                "differences": {which: asdict(difference) for which, difference in one.differences.items()},
            }
            for one in study.comparisons
        ],
        "conclusions": study.conclusions,
        "notes": study.notes,
    }


def _training_as_json(study: Study, training: Any) -> dict[str, Any]:
    outcome, fault = study.outcomes.get(training), study.faults.get(training.name)
    about = {"start": training.start.name, "share": training.share, "seed": training.seed}
    folder = str(study.design.run_folder(training).relative_to(study.design.folder))
    if outcome is None:
        return {**about, "state": "failed" if fault else "not finished", "fault": fault, "folder": folder}
    scores = {
        column.key: mean_of_defined(outcome.scores.case_means(column.key).values()) for column in outcome.scores.columns
    }
    length = {"steps": outcome.steps, "training_s": outcome.training_s}
    return {**about, "state": "finished", **scores, **length, "folder": folder}


def _table_rows(study: Study) -> Iterable[Sequence[Any]]:
    seeds = study.design.seeds
    yield (
        *("share_percent", "labelled_cases", "start", "dice", "dice_low", "dice_high"),
        *(f"dice_seed_{seed}" for seed in seeds),
        *("difference", "difference_low", "difference_high", "seeds_low", "seeds_high"),
        *("wilcoxon_p", "seeds_p", "holm_p"),
        *("better", "worse", "cases", "verdict"),
    )
    for point in study.points:
        found = study.comparison(point.start, point.share)
        one = None if found is None else found.overall
        tested: tuple[Any, ...] = ("",) * 12
        if found is not None and one is not None:
            tested = (
                *(one.mean, one.low, one.high, found.seeds.low, found.seeds.high),
                *(one.wilcoxon_p, found.seeds_p, found.adjusted_p),
                *(one.num_better, one.num_worse, one.num_cases, _VERDICTS[found.verdict]),
            )
        cases = study.cases_in_words(point.share).rpartition(" ")[0]
        means = (point.means.get(seed, math.nan) for seed in seeds)
        yield point.share, cases, point.start, point.mean, point.interval.low, point.interval.high, *means, *tested


def _case_rows(study: Study) -> Iterable[Sequence[Any]]:
    columns = common_columns(outcome.scores for outcome in study.outcomes.values()) if study.outcomes else ()
    yield "start", "share_percent", "seed", "case", "patient", *(column.key for column in columns)
    for training, outcome in study.outcomes.items():
        means = [outcome.scores.case_means(column.key) for column in columns]
        for case in outcome.scores.cases:
            values = (of_case[case] for of_case in means)
            patient = study.design.held_out[case]
            yield training.start.name, training.share, training.seed, case, patient, *values


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    """Text of a CSV file; undefined numbers are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return value


def _markdown(study: Study) -> str:
    titles, rows = _cells(study)
    lines = [f"# {_title(study)}", "", *(f"- {one}" for one in study.conclusions), ""]
    lines += [f"![Dice against the share of labels]({FIGURE_NAME}.png)", "", *_markdown_table(titles, rows), ""]
    seeds = [
        [f"{one.share:g} %", one.start, *(_seed(one, seed) for seed in study.design.seeds)] for one in study.comparisons
    ]
    lines += [f"Difference from {SCRATCH} of each seed alone:", ""]
    lines += [*_markdown_table(["Labels", "Start", *(f"seed {seed}" for seed in study.design.seeds)], seeds), ""]
    return "\n".join([*lines, *(f"- {note}" for note in study.notes), ""])


def _seed(found: Comparison, seed: int) -> str:
    one = found.differences.get(f"seed {seed}")
    return "–" if one is None else difference_in_words(one)


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]
