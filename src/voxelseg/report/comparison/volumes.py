"""Whether small structures are the hard ones, and whom that suits."""

import math
from collections.abc import Mapping

from voxelseg.compare.organ_volume import class_volumes_ml
from voxelseg.report.comparison.document import Drawing, Section
from voxelseg.report.comparison.material import Material
from voxelseg.report.figures.look import Estimate
from voxelseg.report.figures.organ_volume import (
    describe_volume_differences,
    describe_volume_scores,
    draw_volume_differences,
    draw_volume_scores,
)

_LEAST_CLASSES = 3
"""With two, any two contestants would lie on a line."""


def volumes_section(material: Material) -> Section | None:
    """Volume of each class against its score, and against the difference of the two best; None for few classes."""
    if len(material.classes) < _LEAST_CLASSES:
        return None
    column = material.primary.column
    volumes = _volumes(material)
    tables = {name: table for name in material.classes if (table := material.comparison.table(column.key, name))}
    scores = {
        one.name: {name: table.standing(one.name).mean for name, table in tables.items()}
        for one in material.primary.ranking
    }
    if not tables:
        return None
    drawings = [
        Drawing(
            name="volume_scores",
            title=f"{column.title} and volume of each class",
            hint="as E2ENet's Fig. 14",
            text=describe_volume_scores(volumes, scores, label=column.title),
            figure=draw_volume_scores(volumes, scores, label=column.title, unit=column.unit, look=material.looks),
        )
    ]
    if len(scores) > 1:
        drawings.append(_difference(material, volumes))
    return Section(title="Size of the structures", drawings=tuple(drawings))


def _volumes(material: Material) -> dict[str, float]:
    """Class -> mean volume of the reference in ml, of the first run that has it."""
    runs = [run for one in material.compared.values() for run in one.runs.values()]
    found = class_volumes_ml(runs[0])
    return {name: found.get(name, math.nan) for name in material.classes}


def _difference(material: Material, volumes: Mapping[str, float]) -> Drawing:
    """Of the two best ones."""
    ours, theirs = (one.name for one in material.primary.ranking[:2])
    column = material.primary.column
    differences = {}
    for name in material.classes:
        table = material.comparison.table(column.key, name)
        if table is not None:
            pair = table.pair(ours, theirs)
            differences[name] = Estimate(pair.difference, pair.interval.low, pair.interval.high)
    return Drawing(
        name="volume_differences",
        title=f"{ours} minus {theirs} by volume of the class",
        hint="as E2ENet's Figs. 15 and 16; filled: the interval leaves out 0",
        text=describe_volume_differences(volumes, differences, ours=ours, theirs=theirs, label=column.title),
        figure=draw_volume_differences(
            volumes, differences, ours=ours, theirs=theirs, label=column.title, unit=column.unit
        ),
    )
