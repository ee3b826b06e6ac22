"""Two contestants in one table: the difference, its tests, and what follows from them."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from voxelseg.statistics.intervals import Interval

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Reason = Literal["", "patients", "same", "seeds", "tests", "undefined", "missing"]
_OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One contestant against another; numbers are NaN where they cannot be had."""

    ours: str
    theirs: str
    difference: float
    """Ours minus theirs: of the means over the cases, in the column's unit."""
    interval: Interval
    """Bootstrap interval of the difference: what other patients might change."""
    num_better: int
    """Patients with whom ours is better."""
    num_worse: int
    std: float
    """Sample standard deviation (n - 1) of the patients' differences."""
    wilcoxon_p: float
    """Two-sided signed-rank test of the patients' differences, each the mean over the patient's cases."""
    adjusted_wilcoxon_p: float = math.nan
    """The same, adjusted by Holm for all pairs of the table: what holds for these trainings."""
    seeds_p: float
    """Two-sided t-test of the difference for other patients and other seeds alike; NaN for fewer than three seeds on a
    side."""
    adjusted_p: float = math.nan
    """The larger of `wilcoxon_p` and `seeds_p`, adjusted by Holm for all pairs of the table: what verdicts are by."""
    t_p: float
    """Two-sided paired t-test of the patients' means."""
    nemenyi_p: float = math.nan
    """Of the mean ranks, all pairs together; NaN for two contestants."""
    rank_biserial: float
    """Effect size in [-1, 1]: positive where ours has the larger values."""
    cohens_dz: float
    """Effect size: mean of the patients' differences in their standard deviations."""
    margin: float | None
    """Differences that are smaller are not worth speaking of; None: nobody said which are."""
    equivalence_p: float
    """Two one-sided t-tests of the patients' means lying at least `margin` apart."""
    adjusted_patients_equivalence_p: float = math.nan
    """The same, adjusted by Holm for all pairs of the table: what holds for these trainings."""
    seeds_equivalence_p: float
    """Two one-sided t-tests of that for other patients and other seeds alike; NaN for fewer than three seeds on a side.
    """
    adjusted_equivalence_p: float = math.nan
    """The larger of `equivalence_p` and `seeds_equivalence_p`, adjusted by Holm for all pairs of the table."""
    seeds: Interval
    """Of the difference for other patients and other seeds alike, not adjusted; NaN for fewer than three seeds on a
    side."""
    verdict: Verdict = "undecided"
    """Of ours; see `rules` in verdicts.py."""
    reason: Reason = ""
    """Why it is undecided: too few patients, the same values in all cases, seeds may explain what patients alone would
    say, the tests do not agree, no case in which all are defined, or missing predictions that nothing can stand for."""
    patients_needed: int | None = None
    """About how many would decide; None if it is decided or nobody can say."""

    def swapped(self) -> "Pair":
        """The same, seen from the other side."""
        return replace(
            self,
            ours=self.theirs,
            theirs=self.ours,
            difference=-self.difference,
            interval=_negative(self.interval),
            num_better=self.num_worse,
            num_worse=self.num_better,
            rank_biserial=-self.rank_biserial,
            cohens_dz=-self.cohens_dz,
            seeds=_negative(self.seeds),
            verdict=_OPPOSITE.get(self.verdict, self.verdict),
        )

    @property
    def beyond_seeds(self) -> bool | None:
        """Whether the difference, on its own, is larger than seeds vary; None with too few seeds to know."""
        return self.seeds.excludes_zero if self.knows_seeds else None

    @property
    def knows_seeds(self) -> bool:
        """Whether there are enough seeds on both sides to say what others would change."""
        return not math.isnan(self.seeds.low)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; intervals are lists of two numbers."""
        ends = {name: [getattr(self, name).low, getattr(self, name).high] for name in ("interval", "seeds")}
        return {**asdict(self), **ends}


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.high, -interval.low)
