"""The page on a comparison: puts its sections together, and fills the template."""

from collections.abc import Sequence

from voxelseg.report.comparison.about import counts_section, provenance_section, rules_section, settings_section
from voxelseg.report.comparison.cases import cases_section
from voxelseg.report.comparison.costs import costs_section
from voxelseg.report.comparison.document import BEST, LIKE_BEST, Document, Section, svg_of
from voxelseg.report.comparison.material import Material
from voxelseg.report.comparison.overview import (
    MOST_ANSWERS,
    lead_of,
    overview_drawing,
    overview_table,
    status_of,
    title_of,
)
from voxelseg.report.comparison.pairs import pairs_section, ranks_section, seeds_section
from voxelseg.report.comparison.score_tables import classes_section, scores_section
from voxelseg.report.comparison.training import training_section
from voxelseg.report.comparison.volumes import volumes_section
from voxelseg.report.template import filled

_TEMPLATE = "comparison.html"


def document_of(material: Material, *, title: str = "", sections: Sequence[Section] = ()) -> Document:
    """What the page says; `sections` are further ones, shown before the costs."""
    built = (
        _conclusions_section(material),
        scores_section(material),
        classes_section(material),
        pairs_section(material),
        ranks_section(material),
        seeds_section(material),
        *sections,
        costs_section(material),
        training_section(material),
        volumes_section(material),
        cases_section(material),
        counts_section(material),
        settings_section(material),
        rules_section(material),
        provenance_section(material),
    )
    return Document(
        title=title or title_of(material),
        lead=lead_of(material),
        answers=material.comparison.conclusions[:MOST_ANSWERS],
        status=status_of(material),
        overview=overview_drawing(material),
        table=overview_table(material),
        sections=tuple(one for one in built if one is not None),
    )


def render(document: Document) -> str:
    """HTML of the page: one file that asks for nothing outside itself and needs no script."""
    return filled(
        _TEMPLATE,
        document=document,
        drawn={one.name: svg_of(one) for one in document.drawings},
        best=BEST,
        like_best=LIKE_BEST,
    )


def _conclusions_section(material: Material) -> Section | None:
    """The conclusions for which the first screen has no room."""
    more = material.comparison.conclusions[MOST_ANSWERS:]
    return Section(title="What else follows", points=more) if more else None
