"""What a study found: Dice of every training, and every start against scratch, case by case."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from voxelseg.data.wording import counted, some
from voxelseg.evaluate.evaluation import mean_of_defined
from voxelseg.statistics.intervals import Interval, mean_interval, t_interval
from voxelseg.statistics.multiple import holm, larger_p
from voxelseg.statistics.paired import (
    ALL_SEEDS,
    SIGNIFICANCE,
    PairedDifference,
    difference_in_words,
    over_seeds,
    paired_over_seeds,
)
from voxelseg.statistics.seeds import ENOUGH_SEEDS, of_seeds
from voxelseg.study.design import Design, Training
from voxelseg.study.starts import SCRATCH, Start
from voxelseg.train.finished import FinishedFold

Dice = dict[str, float]
"""Mean foreground Dice by held-out case."""

MEANING = (
    (
        "Intervals are 95 % bootstrap intervals over held-out patients, a case counting with its mean over "
        "the seeds: what other patients might change. What other subsets and trainings might change, the seeds show."
    ),
    (
        "A seed decides which patients have labels (the same ones for every start; smaller shares lie within larger "
        "ones), the fresh weights, and what is drawn in training."
    ),
    "Spacing, intensities and patch were planned from all cases of the data set, as in any training.",
)


@dataclass(frozen=True)
class Point:
    """One start with one share of the labels."""

    start: str
    share: float
    by_seed: Mapping[int, Dice]
    """Of the trainings that are finished."""
    interval: Interval
    """95 % interval of the mean over held-out patients."""

    @property
    def means(self) -> dict[int, float]:
        """Mean Dice of each seed."""
        return {seed: mean_of_defined(dice.values()) for seed, dice in self.by_seed.items()}

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN before the first is finished."""
        return fmean(self.means.values()) if self.by_seed else math.nan


@dataclass(frozen=True)
class Comparison:
    """One start against scratch with one share of the labels."""

    start: str
    share: float
    differences: Mapping[str, PairedDifference]
    """Over all seeds that both have, and for each of them; empty if there is none."""
    adjusted_wilcoxon_p: float
    """Wilcoxon p-value over all seeds, adjusted for the number of comparisons in the study; NaN if there is none."""
    adjusted_p: float
    """The larger of the Wilcoxon p-value and `seeds_p`, adjusted likewise: what verdicts are by."""
    lacking: tuple[int, ...] = ()
    """Seeds of the study of which one of the two is not finished."""

    @property
    def overall(self) -> PairedDifference | None:
        """Over all seeds."""
        return self.differences.get(ALL_SEEDS)

    @property
    def seeds(self) -> Interval:
        """95 % t-interval of the mean of the seeds' differences: what other subsets and trainings might change."""
        return t_interval(_by_seed(self.differences))

    @property
    def seeds_p(self) -> float:
        """Two-sided t-test of the seeds' differences; NaN for fewer than three."""
        return _seeds_p(self.differences)

    @property
    def verdict(self) -> str:
        """better, worse, equal, which stands for not to be told apart, or seeds, if these may explain the difference.

        Empty if nothing is finished.
        """
        found = self.overall
        if found is None:
            return ""
        if not (found.excludes_zero and self.adjusted_wilcoxon_p < SIGNIFICANCE):
            return "equal"
        if math.isnan(self.seeds_p) or not self.adjusted_p < SIGNIFICANCE:
            return "seeds"
        return "better" if found.mean > 0 else "worse"

    def in_words(self) -> str:
        """Such as "PRE better than scratch by 0.012 [0.004, 0.020]"."""
        found = self.overall
        if found is None:
            return f"{self.start} has no finished training to compare with {SCRATCH}"
        without = f", without seed {', '.join(map(str, self.lacking))}" if self.lacking else ""
        if self.verdict == "equal":
            numbers = difference_in_words(found, digits=3)
            return f"{self.start} and {SCRATCH} cannot be told apart ({numbers}{without})"
        ends = sorted((abs(found.low), abs(found.high)))
        numbers = f"by {abs(found.mean):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]{without}"
        if self.verdict == "seeds":
            word = "better" if found.mean > 0 else "worse"
            return f"{self.start} {word} than {SCRATCH} {numbers} in these trainings, which seeds alone may explain"
        return f"{self.start} {self.verdict} than {SCRATCH} {numbers}"


def _by_seed(differences: Mapping[str, PairedDifference]) -> list[float]:
    """Mean difference of each seed."""
    return [one.mean for which, one in differences.items() if which != ALL_SEEDS]


def _seeds_p(differences: Mapping[str, PairedDifference]) -> float:
    return of_seeds(_by_seed(differences)).p


@dataclass(frozen=True, kw_only=True)
class Study:
    """All of it."""

    design: Design
    outcomes: Mapping[Training, FinishedFold]
    """Of the trainings that are finished."""
    faults: Mapping[str, str]
    """What went wrong, by the names of the trainings that failed."""
    points: Sequence[Point]
    """Share by share, the starts in their order."""
    comparisons: Sequence[Comparison]
    undefined: Sequence[str] = ()
    """Held-out cases that are left out: in some training neither reference nor prediction has any class."""
    remarks: Sequence[str] = ()
    """What was noticed before the trainings."""

    def point(self, start: str, share: float) -> Point:
        """Of one start and share."""
        return next(one for one in self.points if (one.start, one.share) == (start, share))

    def comparison(self, start: str, share: float) -> Comparison | None:
        """Of one start and share with scratch; None for scratch itself."""
        return next((one for one in self.comparisons if (one.start, one.share) == (start, share)), None)

    @property
    def conclusions(self) -> list[str]:
        """A sentence for each share."""
        sentences = []
        for share in self.design.shares:
            found = [one.in_words() for one in self.comparisons if one.share == share]
            sentences.append(f"{share:g} % of the labels ({self.cases_in_words(share)}): {'; '.join(found)}.")
        return sentences

    def cases_in_words(self, share: float) -> str:
        """Labelled training cases of a share, such as "8 cases", or "8 to 10 cases" if seeds differ."""
        counts = sorted({len(self.design.subsets[share, seed].cases) for seed in self.design.seeds})
        return counted(counts[0], "case") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} cases"

    @property
    def notes(self) -> list[str]:
        """How the numbers are to be read, and what may be wrong with them."""
        missing = [
            one.name for one in self.design.trainings if one not in self.outcomes and one.name not in self.faults
        ]
        notes = [*self._meaning(), *self._undefined_cases(), *self._absent_classes(), *self._steps(), *self.remarks]
        notes += [f"Not finished: {some(missing)}."] if missing else []
        return [*notes, *(f"Failed: {name}: {' '.join(fault.split())}" for name, fault in self.faults.items())]

    def _meaning(self) -> list[str]:
        held_out = self.design.held_out
        patients, tests = len(set(held_out.values())), sum(one.overall is not None for one in self.comparisons)
        cases, of = counted(len(held_out), "case"), counted(patients, "patient")
        compared = counted(tests, "comparison")
        which = f"the {cases} of {of} that fold {self.design.fold} holds out"
        criterion = (
            "Better and worse are said where the interval of the paired difference excludes 0 and p is below "
            f"{SIGNIFICANCE:g}: the larger one of the patients' Wilcoxon signed-rank test and of the t-test of the "
            f"seeds' differences, {ENOUGH_SEEDS} at least, adjusted by Holm for {compared}. Where the patients alone "
            "would pass, seeds may explain the difference: it would hold for other patients, not for other trainings. "
            "Intervals are not adjusted."
        )
        notes = [
            f"Dice: mean over a case's classes, then over {which}, the same for all trainings.",
            *MEANING,
            criterion,
        ]
        if tests * 2.0 ** (1 - patients) >= SIGNIFICANCE:
            notes.append(
                f"With {of} held out and {compared} no difference can pass the test, however large. More held-out "
                "patients, or fewer starts and shares, would change that."
            )
        if len(self.design.seeds) < ENOUGH_SEEDS:
            notes.append(f"Better and worse take {ENOUGH_SEEDS} seeds or more: fewer hardly say how trainings differ.")
        return notes

    def _undefined_cases(self) -> list[str]:
        why = "in some training neither the reference nor the prediction has any class"
        return [f"Left out, since {why}: {some(self.undefined)}."] * bool(self.undefined)

    def _steps(self) -> list[str]:
        """Where trainings made different numbers of steps, in the same time or by stopping early: means of starts."""
        by_start: dict[str, list[int]] = {}
        for training, outcome in self.outcomes.items():
            by_start.setdefault(training.start.name, []).append(outcome.steps)
        if len({steps for of_start in by_start.values() for steps in of_start}) < 2:
            return []
        means = ", ".join(f"{start} {fmean(steps):.0f}" for start, steps in by_start.items())
        which = "Trainings of the same time" if self.design.pace else "Trainings"
        return [f"{which} made different numbers of steps, on average: {means}."]

    def _absent_classes(self) -> list[str]:
        lacking = [
            f"{one.share:g} % of seed {one.seed} lack {', '.join(one.absent)}"
            for one in self.design.subsets.values()
            if one.absent
        ]
        return [f"Too few patients for each class to be among the labelled ones: {'; '.join(lacking)}."] * bool(lacking)


def collect(design: Design, faults: Mapping[str, str], remarks: Sequence[str] = ()) -> Study:
    """The study as far as its trainings are finished."""
    found = {training: design.outcome(training) for training in design.trainings}
    outcomes = {training: outcome for training, outcome in found.items() if outcome is not None}
    dice = {training: outcome.scores.case_means("dice") for training, outcome in outcomes.items()}
    undefined = {case for one in dice.values() for case, value in one.items() if math.isnan(value)}
    points = [_point(design, dice, undefined, start, share) for share in design.shares for start in design.starts]
    return Study(
        design=design,
        outcomes=outcomes,
        faults={name: fault for name, fault in faults.items() if name not in {one.name for one in outcomes}},
        points=points,
        comparisons=_compare(design, points),
        undefined=sorted(undefined),
        remarks=remarks,
    )


def _point(
    design: Design, dice: Mapping[Training, Dice], undefined: Collection[str], start: Start, share: float
) -> Point:
    """Without the cases that are undefined in any training, so that all means are over the same cases."""
    trainings = {seed: Training(start, share, seed) for seed in design.seeds}
    by_seed = {
        seed: {case: value for case, value in dice[training].items() if case not in undefined}
        for seed, training in trainings.items()
        if training in dice and len(undefined) < len(dice[training])
    }
    means = over_seeds(list(by_seed.values())) if by_seed else {}
    return Point(start.name, share, by_seed, mean_interval(means, design.held_out))


def _compare(design: Design, points: Sequence[Point]) -> list[Comparison]:
    """Every point against that of scratch with the same share; p-values are adjusted over all of them."""
    reference = {point.share: point for point in points if point.start == SCRATCH}
    others = [point for point in points if point.start != SCRATCH]
    found = [paired_over_seeds(one.by_seed, reference[one.share].by_seed, groups=design.held_out) for one in others]
    of_patients = [one[ALL_SEEDS].wilcoxon_p if one else math.nan for one in found]
    of_both = [larger_p(p, _seeds_p(one)) for p, one in zip(of_patients, found, strict=True)]
    return [
        Comparison(
            one.start,
            one.share,
            differences,
            patients_p,
            p,
            lacking=tuple(seed for seed in design.seeds if f"seed {seed}" not in differences),
        )
        for one, differences, patients_p, p in zip(others, found, holm(of_patients), holm(of_both), strict=True)
    ]
