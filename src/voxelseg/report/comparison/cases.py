"""Single cases: those that the best one fails in, those that contestants disagree on, with pictures."""

from collections.abc import Mapping

from voxelseg.compare.contestants import Contestant
from voxelseg.data.wording import counted
from voxelseg.errors import DataError
from voxelseg.evaluate.table import format_score
from voxelseg.report.comparison.document import Pictures, Section, Table, cells
from voxelseg.report.comparison.material import Material
from voxelseg.report.overlay import View, compared_case_views

_MOST_LISTED = 8
"""Cases of each table."""
_READING = "Of the first run of each. A view shows the slice with most wrong voxels, the same one for all of a case."
_NO_FILES = "There are no pictures, since only scores were compared: folders of label maps, or runs, would give them."
_Scores = dict[str, float]
"""Of one case by contestant."""


def cases_section(material: Material) -> Section | None:
    """Worst cases of the best contestant and largest disagreements; None without any case."""
    of_case = _of_cases(material)
    if not of_case:
        return None
    best, up = material.best.name, material.primary.column.higher_is_better
    worst = sorted(of_case, key=lambda case: of_case[case][best] if up else -of_case[case][best])
    apart = sorted(of_case, key=lambda case: -_range(of_case[case]))
    shown = {f"Worst case of {best}": worst[0]}
    tables = [_table(material, of_case, worst, f"Worst cases of {best}", folded=False)]
    if _range(of_case[apart[0]]) > 0:
        tables.append(_table(material, of_case, apart, "Cases that contestants disagree on most", folded=True))
        shown |= {"Largest disagreement": apart[0]} if apart[0] != worst[0] else {}
    can_show = material.with_pictures and any(one.files for one in material.compared.values())
    pictures = [one for title, case in shown.items() for one in _pictures(material, of_case, case, title)]
    return Section(
        title="Single cases",
        sentences=(_READING,) if can_show else (),
        tables=tuple(tables),
        pictures=tuple(pictures) if can_show else (),
        remarks=() if can_show or not material.with_pictures else (_NO_FILES,),
    )


def _of_cases(material: Material) -> dict[str, _Scores]:
    """Case -> contestant -> what it counts with, of the cases that count."""
    means = material.primary.case_means
    return {case: {name: one[case] for name, one in means.items()} for case in means[material.best.name]}


def _range(scores: _Scores) -> float:
    return max(scores.values()) - min(scores.values())


def _table(material: Material, of_case: dict[str, _Scores], order: list[str], title: str, *, folded: bool) -> Table:
    names, unit = [one.name for one in material.primary.ranking], material.primary.column.unit
    patients = material.scores_of(material.primary).patients
    several = any(case != patients[case] for case in of_case)
    rows = (
        cells(
            (
                case,
                *([patients[case]] if several else []),
                *(f"{format_score(of_case[case][name], unit)}{_lack(material, name, case)}" for name in names),
            )
        )
        for case in order[:_MOST_LISTED]
    )
    left = len(of_case) - _MOST_LISTED
    return Table(
        title=f"{title}: {material.primary.column.heading}",
        headings=("Case", *(["Patient"] if several else []), *names),
        rows=tuple(rows),
        hint=f"{counted(left, 'more case')} in scores.csv." if left > 0 else "",
        folded=folded,
    )


def _lack(material: Material, name: str, case: str) -> str:
    """What stands behind the score of a case of which runs of a contestant have no prediction; else nothing."""
    runs = material.scores_of(material.primary).values[name].values()
    without = sum(case not in one for one in runs)
    if not without:
        return ""
    return ", no prediction" if without == len(runs) else f", no prediction in {without} of {len(runs)} runs"


def _pictures(material: Material, of_case: dict[str, _Scores], case: str, title: str) -> tuple[Pictures, ...]:
    """Of the best contestant, and of those that are best and worst in this case."""
    scores, column = of_case[case], material.primary.column
    ranked = sorted(scores, key=lambda name: -scores[name] if column.higher_is_better else scores[name])
    shown = dict.fromkeys((material.best.name, ranked[0], ranked[-1]))
    absent = [name for name in shown if _has_none(material, name, case)]
    found = {name: material.compared[name] for name in shown if name not in absent}
    try:
        views = _views(found, case) if found else {}
    except DataError as error:
        return (Pictures(title=f"{title}: {case}", hint="", views=(), fault=str(error)),)
    return tuple(
        Pictures(
            title=f"{title}: {case}, {name}",
            hint=f"{column.heading} {format_score(scores[name], column.unit)}{_lack(material, name, case)}",
            views=views.get(name, ()),
            fault=f"{name} has no prediction of {case}." if name in absent else "",
        )
        for name in shown
    )


def _has_none(material: Material, name: str, case: str) -> bool:
    """Whether a contestant's first run, which pictures are of, has no prediction of a case."""
    return case not in next(iter(material.scores_of(material.primary).values[name].values()))


def _views(contestants: Mapping[str, Contestant], case: str) -> dict[str, tuple[View, ...]]:
    """Of the first runs; DataError if files are gone or nobody said where they are."""
    lacking = [name for name, one in contestants.items() if case not in one.files]
    if lacking:
        raise DataError(f"Where the label maps of {' and '.join(lacking)} lie is not known: their scores came alone.")
    labels = next((one.labels for one in contestants.values() if one.labels is not None), None)
    if labels is None:
        raise DataError("Which label value is which class is not known.")
    files = {name: one.files[case] for name, one in contestants.items()}
    channel = next((one.channel for one in contestants.values() if one.channel), "")
    return compared_case_views(files, labels, channel=channel)
