"""Everything that a comparison leaves in its folder.

DIR/report.html        the page
DIR/comparison.md      the same as Markdown
DIR/figures/           its drawings as SVG and PNG, and drawings.json, their list
DIR/comparison.json    all statistics
DIR/scores.csv         every contestant, run, case, class and metric
DIR/pairs.csv          every pair in every table
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voxelseg.compare.comparison import Comparison, compare
from voxelseg.compare.contestants import Contestant
from voxelseg.compare.files import write_numbers
from voxelseg.compare.scores import ScoreTable, differences, score_tables
from voxelseg.compare.settings import CompareSettings
from voxelseg.errors import ConfigError, DataError
from voxelseg.files import atomic_path, make_folder, read_json, remove_file, write_json, write_text
from voxelseg.metrics import MAIN_COLUMNS
from voxelseg.report.comparison.document import Drawing, Section
from voxelseg.report.comparison.markdown import to_markdown
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.page import document_of, render
from voxelseg.report.curves import styled
from voxelseg.version import __version__

PAGE_FILE = "report.html"
MARKDOWN_FILE = "comparison.md"
FIGURES_FOLDER = "figures"
DRAWINGS_FILE = "drawings.json"
_SUFFIXES: dict[str, dict[str, Any]] = {".svg": {"metadata": {"Date": None}}, ".png": {"dpi": 160}}
"""Of a drawing's files, with how they are saved."""


def write_comparison(
    contestants: Sequence[Contestant],
    out: Path,
    *,
    patients: Mapping[str, str],
    settings: CompareSettings | None = None,
    metric: str = "dice",
    title: str = "",
    command: str = "",
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    sections: Sequence[Section] = (),
    pictures: bool = True,
) -> Comparison:
    """Compare `contestants` in all that they share, and write everything into folder `out`, which must be locked.

    `patients` has the patient of each case; `metric` is the column whose mean over the classes ranks; `pictures` lets
    the page show slices of scans. `title`, `notes`, `warnings`, which stand at the top, and further `sections` come
    from who calls. Contestants without any run are shown as failed. Raises ConfigError for a metric that not all have,
    DataError if there is nothing to compare or predictions are missing and may not be, VoxelsegError if something
    cannot be written.
    """
    settings = settings or CompareSettings()
    make_folder(out)
    runs = {one.name: one.runs for one in contestants if one.runs}
    if not runs:
        faults = "\n".join(f"- {one.name}: {one.fault}" for one in contestants)
        raise DataError(f"no contestant has scores: there is nothing to compare.\n{faults}")
    tables = _first(score_tables(runs, patients=patients, by_class={*MAIN_COLUMNS, metric}), metric, settings)
    found = compare(tables, settings, notes=(*differences(runs), *warnings, *notes))
    material = Material(
        comparison=found, contestants=contestants, scores=tables, command=command, with_pictures=pictures
    )
    document = document_of(material, title=title, sections=sections)
    document = replace(document, status=" ".join(filter(None, (*warnings, document.status))))
    write_numbers(out, found, contestants, patients)
    _write_figures(out / FIGURES_FOLDER, document.drawings)
    written = f"Written by voxelseg {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    write_text(out / MARKDOWN_FILE, to_markdown(document, figures=FIGURES_FOLDER, written=written))
    write_text(out / PAGE_FILE, render(document))
    return found


def _first(tables: Sequence[ScoreTable], metric: str, settings: CompareSettings) -> list[ScoreTable]:
    """The tables, that of the metric that ranks before the others; ConfigError for metrics that are not there."""
    known = list(dict.fromkeys(one.column.key for one in tables))
    unknown = [key for key in (metric, *settings.margins) if key not in known]
    if unknown:
        raise ConfigError(
            f"not all contestants were scored by {', '.join(unknown)}. What all have: {', '.join(known)}. Choose among "
            "these, or score all anew."
        )
    return sorted(tables, key=lambda one: one.column.key != metric)  # a stable sort


def _write_figures(folder: Path, drawings: Sequence[Drawing]) -> None:
    """SVG and PNG of each; those that an earlier comparison wrote there, and this one has not, are removed."""
    make_folder(folder)
    names = [one.name for one in drawings]
    for name in (name for name in _drawn_before(folder) if name not in names):
        for suffix in _SUFFIXES:
            remove_file(folder / f"{name}{suffix}")
    write_json(folder / DRAWINGS_FILE, names)
    for one in drawings:
        for suffix, more in _SUFFIXES.items():
            with atomic_path(folder / f"{one.name}{suffix}") as temporary, styled():
                one.figure.savefig(temporary, facecolor="white", **more)


def _drawn_before(folder: Path) -> list[str]:
    """Names of an earlier comparison's drawings; none where their list is not there, or damaged."""
    try:
        listed = read_json(folder / DRAWINGS_FILE)
    except DataError:
        return []
    names = listed if isinstance(listed, list) else []
    return [name for name in names if isinstance(name, str) and Path(name).name == name]
