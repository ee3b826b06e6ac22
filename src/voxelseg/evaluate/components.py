"""Choosing a postprocessing: of which classes keeping only the largest connected component raises the mean Dice.

The rule is that of nnU-Net v2 (Isensee et al. 2021, and its code). First all classes together: chosen if the mean Dice
over the classes rises and that of no class falls. Then, on top of it, each class on its own: chosen if its mean Dice
over the cases rises. Regions overlap, and what a removed part of an inner one becomes is not defined, so with regions
only the first question is asked; with a single class the second one is the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy.typing as npt

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.case import LabelPair, class_pairs, read_pair
from voxelseg.evaluate.evaluation import mean_of_defined
from voxelseg.metrics.overlap import dice
from voxelseg.parallel import attempt, map_unordered, raise_together
from voxelseg.predict.postprocess import Postprocessing

ROUNDING = 1e-9
"""A mean Dice that differs by less has not changed."""
_Dice = Mapping[str, float]
LabelMap = npt.NDArray[Any]


@dataclass(frozen=True)
class CaseDice:
    """Dice of one case by class, NaN where it is undefined, after each way of keeping largest components."""

    as_it_is: _Dice
    foreground: _Dice
    """Of all classes together."""
    classes: _Dice
    """Of each class on its own."""
    both: _Dice
    """First of all together, then of each class."""
    changed: bool
    """Whether any of these ways removes a voxel."""


@dataclass(frozen=True)
class Candidate:
    """One part of a postprocessing and what it would do, or does, to the mean Dice."""

    keep_largest_of: str
    """A class, or "all classes"."""
    chosen: bool
    before: float
    """Mean Dice over the cases, NaN left out; of all classes, the mean of their means."""
    after: float
    improved: int
    """Cases whose Dice, or mean Dice over the classes, is higher; both masks empty counts as 1."""
    worsened: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """The postprocessing that the rule gives, and how it came about."""

    postprocessing: Postprocessing
    candidates: tuple[Candidate, ...]
    """In the order in which they were looked at."""
    changed: tuple[str, ...]
    """Cases in which some candidate removes a voxel."""


def choose_postprocessing(
    pairs: Sequence[LabelPair],
    labels: LabelScheme,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """The postprocessing that the rule above gives for predicted label maps and their references.

    `workers` processes each hold one case: both label maps, a third one, and 7 bytes for each voxel of the foreground's
    bounding box. `progress` is called with the numbers of cases done and in all. DataError lists all files that cannot
    be read or compared.
    """
    found: dict[str, CaseDice | DataError] = {}
    measure = partial(attempt, partial(component_dice, labels=labels))
    for index, result in map_unordered(measure, pairs, workers=workers, name=lambda pair: f"case {pair.case}"):
        found[pairs[index].case] = result
        if progress is not None:
            progress(len(found), len(pairs))
    raise_together([one for one in found.values() if isinstance(one, DataError)], total=len(pairs), verb="compared")
    cases = {case: one for case, one in found.items() if isinstance(one, CaseDice)}
    postprocessing, candidates = choose([cases[pair.case] for pair in pairs], labels)
    changed = tuple(pair.case for pair in pairs if cases[pair.case].changed)
    return Choice(postprocessing, tuple(candidates), changed)


def component_dice(pair: LabelPair, *, labels: LabelScheme) -> CaseDice:
    """What keeping largest components does to one case; DataError if its files cannot be read or compared."""
    reference, prediction = (volume.array[0] for volume in read_pair(pair, labels))
    each = () if labels.has_regions else labels.names
    ways = (
        Postprocessing(foreground=True),
        Postprocessing(classes=each),
        Postprocessing(foreground=True, classes=each),
    )
    before = _dice(reference, prediction, labels)

    def after(way: Postprocessing) -> _Dice:
        kept = way.apply(prediction, labels)
        return before if kept is prediction else _dice(reference, kept, labels)

    foreground, classes, both = (after(way) for way in ways)
    changed = any(way is not before for way in (foreground, classes, both))
    return CaseDice(before, foreground, classes, both, changed)


def _dice(reference: LabelMap, prediction: LabelMap, labels: LabelScheme) -> _Dice:
    masks = class_pairs(reference, prediction, labels, spacing_mm=(1.0, 1.0, 1.0))  # Dice needs no spacing
    return {name: dice(mask) for name, mask in masks}


def choose(cases: Sequence[CaseDice], labels: LabelScheme) -> tuple[Postprocessing, list[Candidate]]:
    """The postprocessing that the rule gives for the Dice of `cases`, and all that was looked at."""
    names = labels.names
    together = _foreground_candidate(cases, names)
    candidates = [together]
    if not labels.has_regions and len(names) > 1:
        before, after = ("foreground", "both") if together.chosen else ("as_it_is", "classes")
        candidates += [_class_candidate(cases, name, before, after) for name in names]
    kept = tuple(one.keep_largest_of for one in candidates[1:] if one.chosen)
    return Postprocessing(foreground=together.chosen, classes=kept), candidates


def _foreground_candidate(cases: Sequence[CaseDice], names: Sequence[str]) -> Candidate:
    means = {way: [_mean(cases, way, name) for name in names] for way in ("as_it_is", "foreground")}
    before, after = (mean_of_defined(of_class) for of_class in means.values())
    falls = any(new < old - ROUNDING for old, new in zip(*means.values(), strict=True))
    totals = [tuple(sum(map(_or_one, way.values())) for way in (case.as_it_is, case.foreground)) for case in cases]
    return _candidate("all classes", before, after, totals, allowed=not falls)


def _class_candidate(cases: Sequence[CaseDice], name: str, before: str, after: str) -> Candidate:
    values = [tuple(_or_one(getattr(case, way)[name]) for way in (before, after)) for case in cases]
    return _candidate(name, _mean(cases, before, name), _mean(cases, after, name), values, allowed=True)


def _candidate(
    name: str, before: float, after: float, values: Sequence[tuple[float, ...]], *, allowed: bool
) -> Candidate:
    return Candidate(
        keep_largest_of=name,
        chosen=allowed and after > before + ROUNDING,
        before=before,
        after=after,
        improved=sum(new > old + ROUNDING for old, new in values),
        worsened=sum(new < old - ROUNDING for old, new in values),
    )


def _mean(cases: Sequence[CaseDice], way: str, name: str) -> float:
    return mean_of_defined(getattr(case, way)[name] for case in cases)


def _or_one(value: float) -> float:
    return 1.0 if math.isnan(value) else value
