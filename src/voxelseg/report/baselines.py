"""Scores of a pre-training's running validation against what would be reached without learning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxelseg.report.curves import CYCLE, INK, STYLE, to_svg
from voxelseg.report.run import number

SCORES = "validation_scores"
_JOINTS = (" of ", " by ")
"""A score called "accuracy by chance" is a baseline of the one called "accuracy"."""
_SCORE, _GUESSING = "score", "guessing"
"""What says which weights are best is 0 where nothing is learnt, unless it is the same as another score."""
_LOWER_IS_BETTER = ("error", "loss")
_DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
Curve = tuple[list[int], list[float]]
"""Epochs that have a value, and the values."""


@dataclass(frozen=True)
class Family:
    """One score and its baselines over the epochs."""

    name: str
    curve: Curve
    baselines: Mapping[str, Curve]
    """By what the baseline is called beside the score, such as "chance"."""

    @property
    def title(self) -> str:
        """As a heading."""
        return self.name[0].upper() + self.name[1:]

    @property
    def lower_is_better(self) -> bool:
        """Whether it is an error or a loss."""
        return self.name.split()[-1] in _LOWER_IS_BETTER or self.name.split()[0] in _LOWER_IS_BETTER

    @property
    def last(self) -> float:
        """Value of the last epoch that has one."""
        return self.curve[1][-1]

    @property
    def last_text(self) -> str:
        """For a big number."""
        return f"{self.last:.3g}"

    @property
    def against(self) -> str:
        """Such as "0.25 by chance"."""
        return "; ".join(f"{name} {values[-1]:.3g}" for name, (_, values) in self.baselines.items())

    def in_words(self) -> str:
        """Whether it beats its baselines at the end, in a sentence."""
        if not self.baselines:
            return f"{self.title} on held-out crops: {self.last_text}; there is no baseline for it."
        ends = {name: values[-1] for name, (_, values) in self.baselines.items()}
        beaten = [name for name, end in ends.items() if (end > self.last if self.lower_is_better else end < self.last)]
        others = [name for name in ends if name not in beaten]
        if not others:
            verdict = "better than what is reached without learning"
        elif not beaten:
            verdict = "no better than what is reached without learning"
        else:
            verdict = f"better than {' and '.join(beaten)}, but not than {' and '.join(others)}"
        return f"{self.title} on held-out crops: {self.last_text}, {verdict} ({self.against})."


def families(epochs: Sequence[Mapping[str, Any]]) -> list[Family]:
    """Every score of the logged epochs that is no baseline, in order; without those that never have a value.

    Scores without a baseline that stay as they are, such as the entropy of labels that are fixed, are left out, and so
    is the one named `score` if it says the same as another.
    """
    curves: dict[str, Curve] = {}
    for epoch in epochs:
        scores = epoch.get(SCORES)
        for name, value in scores.items() if isinstance(scores, Mapping) else ():
            if math.isfinite(number(value)):
                places, values = curves.setdefault(str(name), ([], []))
                places.append(int(epoch["epoch"]))
                values.append(number(value))
    of = {name: owner for name in curves if (owner := _owner(name, curves))}
    found = []
    for name, curve in curves.items():
        if name in of:
            continue
        named = {_beside(other, name): curves[other] for other, owner in of.items() if owner == name}
        if name == _SCORE:
            named = {_GUESSING: (curve[0], [0.0] * len(curve[0]))}
        if (named and not _repeated(name, curves)) or not (named or _constant(curve)):
            found.append(Family(name, curve, named))
    return found


def _owner(name: str, known: Mapping[str, Curve]) -> str:
    """The score that `name` is a baseline of; empty if it is none."""
    owners = [other for other in known for joint in _JOINTS if name.startswith(other + joint)]
    return max(owners, key=len, default="")


def _beside(baseline: str, owner: str) -> str:
    rest = baseline.removeprefix(owner)
    return next(rest.removeprefix(joint) for joint in _JOINTS if rest.startswith(joint))


def _constant(curve: Curve) -> bool:
    return len(set(curve[1])) == 1


def _repeated(name: str, curves: Mapping[str, Curve]) -> bool:
    return name == _SCORE and any(curve == curves[name] for other, curve in curves.items() if other != name)


def draw_scores(family: Family, place: int) -> tuple[str, Markup]:
    """Title and SVG drawing of a score over the epochs, its baselines as broken lines."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, curve) in enumerate(family.baselines.items()):
            style = {"color": CYCLE[1 + index % (len(CYCLE) - 1)], "linestyle": _DASHES[index % len(_DASHES)]}
            _plot(axes, curve, label=name, **style)
        _plot(axes, family.curve, label="this training", color=CYCLE[0], linewidth=2.2)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if family.baselines:
            axes.legend(fontsize=9, labelcolor=INK)
        return family.title, to_svg(figure, prefix=f"score-{place}", title=family.title)


def _plot(axes: Axes, curve: Curve, **style: Any) -> None:
    """A line; a single epoch is a point."""
    axes.plot(*curve, marker="o" if len(curve[0]) == 1 else None, markersize=4, **style)
