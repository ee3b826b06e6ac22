"""The command `compare`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from voxelseg.commands.display import PathLike, counting_bar, say
from voxelseg.compare.comparison import Comparison
from voxelseg.compare.contestants import Contestant, read_contestants
from voxelseg.compare.patients import OWN_PATIENTS, are_own, case_ids, patients_of, read_patients
from voxelseg.compare.settings import CompareSettings, Missing
from voxelseg.compare.sources import References, references_in, references_of
from voxelseg.compare.words import cases_in_words
from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.data.wording import some
from voxelseg.errors import ConfigError
from voxelseg.files import locked
from voxelseg.metrics.column import column, tolerances
from voxelseg.report.comparison import write_comparison
from voxelseg.report.comparison.numbers import DASH, score_text
from voxelseg.report.comparison.overview import against
from voxelseg.report.comparison.writing import MARKDOWN_FILE, PAGE_FILE


def compare(
    contestants: Sequence[str],
    out: PathLike,
    *,
    reference: PathLike | None = None,
    data: PathLike | None = None,
    patients: PathLike | None = None,
    metric: str = "dice",
    margin: Sequence[str] = (),
    missing: str = "refuse",
    tolerance_mm: float | Sequence[float] = 1.0,
    title: str = "",
    pictures: bool = True,
    workers: int = 2,
    console: Console | None = None,
) -> Comparison:
    """Compare `contestants` on the same cases and write the page, its Markdown, all numbers and figures into `out`.

    Each is "PATH" or "NAME=PATH,PATH..." (several paths: other seeds): a folder of `voxelseg evaluate`, one of
    `voxelseg train`, or label maps of any tool, which are scored against those in folder `reference` or of the data
    set `data`. Patients are those of the CSV table `patients`, of the data set, of the scores, or what the cases' names
    say. `metric` ranks. `margin` has what difference does not matter: "0.005" for ratios, "hd95_mm=0.5" for one metric.
    `missing` is "refuse", "worst" or "leave-out". With `pictures` the page shows slices of scans.

    Raises ConfigError for unknown or impossible options, DataError for what cannot be read, scored or compared.
    """
    if not contestants:
        raise ConfigError("nothing to compare: name folders of scores, runs or label maps, such as A=DIR B=DIR.")
    general, of_metrics = _margins(margin)
    settings = CompareSettings(
        margin=CompareSettings.margin if general is None else general,
        margins=of_metrics,
        missing=cast(Missing, missing),
    )
    tolerance = tolerances(tolerance_mm)
    for key in (metric, *of_metrics):
        column(key, tolerance_mm=tolerance[0])  # unknown ones are said now, not after the scoring
    dataset = None if data is None else read_dataset(data)
    references: References | None = None
    if reference is not None:
        references = references_in(Path(reference), tolerances_mm=tolerance, dataset=dataset)
    elif dataset is not None:
        references = references_of(dataset, tolerances_mm=tolerance)
    table = None if patients is None else read_patients(Path(patients))
    folder = Path(out)
    with locked(folder):
        with counting_bar(console, "scoring") as update:
            found = read_contestants(
                contestants,
                references=references,
                workers=workers,
                progress=lambda name, done, of: update(done, of, name),
            )
        whose = patients_of(found, table, dataset=None if dataset is None else _patients_in(dataset))
        comparison = write_comparison(
            found,
            folder,
            patients=whose,
            settings=settings,
            metric=metric,
            title=title,
            command=shlex.join(["voxelseg", *sys.argv[1:]]),
            notes=[] if dataset is None or table is not None else _not_in_data(found, dataset),
            pictures=pictures,
        )
    if table is None and are_own(whose):
        say(console, f"{OWN_PATIENTS} If some are of one patient, say so: --patients, a table.")
    say(console, f"Wrote {folder / PAGE_FILE}, {folder / MARKDOWN_FILE}, comparison.json, scores.csv, pairs.csv.")
    return comparison


def _not_in_data(contestants: Sequence[Contestant], dataset: Dataset) -> list[str]:
    """A note on cases that a data set does not have, if there are any."""
    lacking = sorted(set(case_ids(contestants).values()) - set(_patients_in(dataset)))
    if not lacking:
        return []
    note = (
        f"{dataset.source} (--data) does not have {some(lacking)}: their patients are those that scores or names say."
    )
    return [note]


def _patients_in(dataset: Dataset) -> dict[str, str]:
    return {case.id: case.patient for case in (*dataset.cases, *dataset.test_cases)}


def _margins(texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The margin of all ratios, if one is given, and those of single metrics; ConfigError for anything else."""
    found: dict[str, float] = {}
    for text in texts:
        key, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise ConfigError(f"margin {text!r}: expected a number such as 0.005, or METRIC=NUMBER.") from error
        if key in found or (equals and not key):
            raise ConfigError(f"margin {text!r}: expected one number for all ratios, and one for each METRIC=NUMBER.")
        found[key] = value
    return found.pop("", None), found


def comparison_table(found: Comparison) -> Group:
    """Ranking with intervals and p against the best; then the conclusions, and what the reader should know."""
    result = found.primary
    title = f"{result.column.heading} of {cases_in_words(result)}"
    table = Table()
    table.add_column("Contestant", overflow="fold")
    for heading in (f"{result.column.heading} [95 %]", "against the best, p (Holm)"):
        table.add_column(heading, justify="right")
    best = result.ranking[0].name
    for one in result.ranking:
        verdict = DASH if one.name == best else against(result.pair(one.name, best), found.settings.alpha)
        table.add_row(Text(one.name), score_text(one.mean, one.interval, result.column.unit), verdict)
    remarks = Text("\n".join(found.notes), style="table.caption")
    return Group(Text(title, style="table.title"), table, Text("\n".join(found.conclusions)), remarks)
