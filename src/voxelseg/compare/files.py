"""A comparison's numbers as files: comparison.json, scores.csv and pairs.csv."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxelseg.compare.comparison import Comparison
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.results import TableResult
from voxelseg.files import write_json, write_text
from voxelseg.version import __version__

COMPARISON_FILE, SCORES_FILE, PAIRS_FILE = "comparison.json", "scores.csv", "pairs.csv"
_PAIR_NUMBERS = (
    *("wilcoxon_p", "seeds_p", "adjusted_p", "t_p", "nemenyi_p", "rank_biserial", "cohens_dz", "margin"),
    *("equivalence_p", "seeds_equivalence_p", "adjusted_equivalence_p"),
)
_PAIR_WORDS = ("num_better", "num_worse", "verdict", "reason")
_VOLUMES = ("volume_reference_mm3", "volume_prediction_mm3")


def write_numbers(
    out: Path, comparison: Comparison, contestants: Sequence[Contestant], patients: Mapping[str, str]
) -> list[Path]:
    """Write all three into folder `out`; returns their paths. Undefined numbers are null or empty cells."""
    paths = [out / name for name in (COMPARISON_FILE, SCORES_FILE, PAIRS_FILE)]
    write_json(paths[0], as_json(comparison, contestants))
    write_text(paths[1], _csv(score_rows(comparison, contestants, patients)))
    write_text(paths[2], _csv(row for table in comparison.tables for row in pair_rows(table)))
    return paths


def as_json(comparison: Comparison, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Content of comparison.json; undefined numbers are NaN here and null in the file."""
    return {
        "voxelseg": __version__,
        **comparison.to_dict(),
        "contestants": [
            {
                "name": one.name,
                "runs": list(one.runs),
                "cases": len(one.cases),
                "fault": one.fault,
                "notes": list(one.notes),
                "cost": None if one.cost is None else one.cost.to_dict(),
            }
            for one in contestants
        ],
    }


def score_rows(
    comparison: Comparison, contestants: Sequence[Contestant], patients: Mapping[str, str]
) -> Iterable[dict[str, Any]]:
    """A row for each contestant, run, case and class with all metrics that are compared."""
    keys = list(dict.fromkeys(one.column.key for one in comparison.tables))
    classes = {one.class_name for one in comparison.tables}
    for one in contestants:
        for seed, run in one.runs.items():
            for score in run.scores:
                if score.name in classes:
                    place = {"contestant": one.name, "run": seed, "case": score.case, "patient": patients[score.case]}
                    metrics = {key: score.metrics[key] for key in keys}
                    volumes = {name: getattr(score, name) for name in _VOLUMES}
                    yield {**place, "class": score.name, **metrics, **volumes}


def pair_rows(table: TableResult) -> Iterable[dict[str, Any]]:
    """A row for each pair of a table; an empty class is the mean over the classes."""
    for one in table.pairs:
        yield {
            "metric": table.column.key,
            "class": table.class_name,
            "cases": table.num_cases,
            "patients": table.num_patients,
            "ours": one.ours,
            "theirs": one.theirs,
            "difference": one.difference,
            "low": one.interval.low,
            "high": one.interval.high,
            "low_with_seeds": one.seeds.low,
            "high_with_seeds": one.seeds.high,
            **{name: getattr(one, name) for name in (*_PAIR_NUMBERS, *_PAIR_WORDS)},
            "patients_needed": one.patients_needed,
        }


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Text of a CSV file; without any row, nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for place, row in enumerate(rows):
        if place == 0:
            writer.writerow(row)
        writer.writerow([_cell(value) for value in row.values()])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return "" if value is None else value
