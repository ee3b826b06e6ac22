"""What is behind the numbers: missing and undefined cases, settings, definitions, and the command that makes them."""

from collections.abc import Mapping
from typing import Any

from voxelseg.compare.contestants import Contestant
from voxelseg.data.wording import some
from voxelseg.evaluate.evaluation import definitions
from voxelseg.report.comparison.document import Section, Table, cells
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.numbers import DASH
from voxelseg.report.facts import config_entries, text_of, title_of

_OF_RUN = ("command", "created", "voxelseg", "versions", "device")
"""Keys of a run's record that say how it was made, not what."""
_HIDDEN = ("fingerprint", "plan.notes")
_LONGEST = 160
"""Characters of a value."""
_MOST_OPEN = 12
"""Settings that are shown without a click."""
_SAME = "The same command on the same files, trained networks among them, gives the same numbers:"
_FILES = (
    "Beside this page: comparison.json (all statistics), scores.csv (every case, class, run and metric), pairs.csv "
    "(every pair in every table), comparison.md (this page as Markdown), figures/ (the drawings as SVG and PNG)."
)


def counts_section(material: Material) -> Section:
    """Which cases count, and which do not and why."""
    table = material.primary
    rows = [
        cells(
            (
                one.name,
                str(len(material.compared[one.name].runs)),
                str(len(material.compared[one.name].cases)),
                _named(one.missing),
                _named(one.undefined),
                material.compared[one.name].fault or "no",
            )
        )
        for one in table.standings
    ]
    rows += [cells((one.name, "0", "0", DASH, DASH, one.fault)) for one in material.failed]
    notes = [f"{one.name}: {note}" for one in material.contestants for note in one.notes]
    return Section(
        title="Missing, undefined and failed",
        tables=(
            Table(
                headings=("Contestant", "Runs", "Cases with scores", "Missing", "Undefined", "Failed"),
                words=("Missing", "Undefined", "Failed"),
                rows=tuple(rows),
                hint=(
                    f"All numbers of {table.title} are of {table.num_cases} cases. Left out: {_named(table.left_out)}. "
                    "Missing: no prediction. Undefined: neither the reference nor any prediction has any class."
                ),
            ),
            *_absent_classes(material),
        ),
        points=tuple(dict.fromkeys((*material.comparison.notes, *notes))),
    )


def _named(cases: tuple[str, ...]) -> str:
    return f"{len(cases)} ({some(cases)})" if cases else "0"


def _absent_classes(material: Material) -> list[Table]:
    """Cases that count in each class, and false finds; nothing if all cases count in all classes, without any."""
    key = material.primary.column.key
    tables = [found for name in material.classes if (found := material.comparison.table(key, name))]
    false_finds = [[len(one.false_finds) for one in table.standings] for table in tables]
    alike = len(tables) < 2 or all(one.num_cases == material.primary.num_cases for one in tables)
    if alike and not any(map(any, false_finds)):
        return []
    names = [one.name for one in material.primary.standings]
    rows = (
        cells(
            (
                table.class_name,
                str(table.num_cases),
                str(len({case for one in table.standings for case in one.undefined})),
                *map(str, found),
            )
        )
        for table, found in zip(tables, false_finds, strict=True)
    )
    return [
        Table(
            title="Absent classes, and who found them",
            headings=("Class", "Cases that count", "Undefined", *names),
            rows=tuple(rows),
            hint=(
                "Undefined: cases in which neither the reference nor any prediction has the class. Under the names: "
                "cases in which a contestant found the class though the reference has none."
            ),
            folded=not any(map(any, false_finds)),
        )
    ]


def rules_section(material: Material) -> Section:
    """How the numbers come about."""
    titles = {one.key: one.heading for one in material.columns}
    texts = {
        key: text.partition("; ")[2] if key in titles else text  # without the title, which is beside it
        for key, text in definitions(material.columns).items()
    }
    return Section(
        title="How the numbers are defined",
        points=material.comparison.rules,
        facts=[(titles.get(key, title_of(key)), text) for key, text in texts.items()],
    )


def settings_section(material: Material) -> Section | None:
    """What the contestants have in common, and where they differ; None if nothing is known of them."""
    known = {one.name: dict(_entries(one)) for one in material.contestants}
    known = {name: found for name, found in known.items() if found}
    keys = list(dict.fromkeys(key for found in known.values() for key in found))
    if not keys:
        return None
    same = [key for key in keys if len({found.get(key) for found in known.values()}) == 1]
    differing = [key for key in keys if key not in same] if len(known) > 1 else []
    rows = (cells((key, *(_shortened(found.get(key, DASH)) for found in known.values()))) for key in differing)
    first = next(iter(known.values()))
    title, folded = "Where they differ", len(differing) > _MOST_OPEN
    tables = [Table(title=title, headings=("Setting", *known), rows=tuple(rows), folded=folded)]
    if same:
        shared = tuple(cells((key, _shortened(first[key]))) for key in same)
        tables.append(Table(title="The same for all", headings=("Setting", "Value"), rows=shared, folded=True))
    return Section(title="Settings", tables=tuple(tables), remarks=("Of the first run of each.",))


def _entries(contestant: Contestant) -> list[tuple[str, str]]:
    """Settings under dotted keys, without what merely names the case or the time."""
    return [
        (key, text)
        for key, text in config_entries(_without(contestant.settings))
        if not any(key == one or key.startswith(f"{one}.") for one in _HIDDEN)
    ]


def _without(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in (*_OF_RUN, "seed", *_HIDDEN)}


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def provenance_section(material: Material) -> Section:
    """How to make the page again, and how the contestants were made."""
    facts = []
    for one in material.contestants:
        made = {key: one.settings[key] for key in _OF_RUN if key in one.settings}
        text = "; ".join(f"{title_of(key)}: {text_of(value)}" for key, value in made.items())
        if text:
            facts.append((one.name, text))
    return Section(
        title="How to reproduce this page",
        sentences=(_SAME,) if material.command else (),
        command=material.command,
        facts=facts,
        remarks=(_FILES,),
    )
