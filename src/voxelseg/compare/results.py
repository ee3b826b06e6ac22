"""What the statistics of one table say: of each contestant, of each pair, and of all together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from voxelseg.compare.pairs import Pair
from voxelseg.metrics import Column
from voxelseg.statistics.intervals import Interval
from voxelseg.statistics.ranks import Friedman


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One contestant in one table; numbers are NaN where there are none."""

    name: str
    mean: float
    """Over the cases of the table, each with its mean over the seeds."""
    interval: Interval
    """Bootstrap interval of the mean, patients drawn."""
    median: float
    std: float
    """Over the cases (n - 1)."""
    seed_means: Mapping[str, float]
    """Mean of each seed over the same cases."""
    seed_std: float
    """Of the seeds' means (n - 1); NaN for one seed."""
    mean_rank: float
    """Mean over the patients of its place among the contestants, 1 the best."""
    rank_shares: tuple[float, ...]
    """Share of the bootstrap draws in which its mean is the best, the second best, and so on."""
    missing: tuple[str, ...]
    """Cases without a prediction in some run."""
    undefined: tuple[str, ...]
    """Cases in which neither the reference nor anyone's prediction has the class, as some run of it says."""
    false_finds: tuple[str, ...] = ()
    """Cases in which some run found what the reference does not have."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "interval": [self.interval.low, self.interval.high]}


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """One column, of one class or of the mean over the classes."""

    column: Column
    class_name: str
    """Empty for the mean over the classes."""
    num_cases: int
    """In which every contestant has a score: all numbers are of these."""
    num_patients: int
    case_means: Mapping[str, Mapping[str, float]] = field(repr=False)
    """Contestant -> case -> what it counts with: the mean over the runs, of which a missing prediction may have the
    worst value."""
    left_out: tuple[str, ...]
    """Cases in which some contestant, in some run, has none."""
    standings: tuple[Standing, ...]
    """In the order of the contestants."""
    pairs: tuple[Pair, ...]
    """Each pair once, in the order of the contestants."""
    friedman: Friedman
    """Whether the contestants differ at all; NaN for two, see their pair."""
    critical_difference: float
    """Of mean ranks, by Nemenyi; NaN for fewer than three contestants or two patients."""
    groups: tuple[tuple[str, ...], ...]
    """Contestants, best mean rank first, whose mean ranks do not differ by that much."""
    fault: str = ""
    """Why nothing can be decided; empty if all is well."""

    @property
    def title(self) -> str:
        """Such as "Dice of liver", or "Dice" for the mean over the classes."""
        return f"{self.column.title} of {self.class_name}" if self.class_name else self.column.title

    @property
    def ranking(self) -> tuple[Standing, ...]:
        """Best mean first; those without a mean last."""
        sign = -1 if self.column.higher_is_better else 1
        return tuple(sorted(self.standings, key=lambda one: (one.mean != one.mean, sign * one.mean)))

    def standing(self, name: str) -> Standing:
        """Of one contestant."""
        return next(one for one in self.standings if one.name == name)

    def pair(self, ours: str, theirs: str) -> Pair:
        """One contestant against another, in either order."""
        for one in self.pairs:
            if (one.ours, one.theirs) == (ours, theirs):
                return one
            if (one.ours, one.theirs) == (theirs, ours):
                return one.swapped()
        raise KeyError((ours, theirs))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "column": self.column.key,
            "class": self.class_name or None,
            "title": self.title,
            "unit": self.column.unit,
            "higher_is_better": self.column.higher_is_better,
            "num_cases": self.num_cases,
            "num_patients": self.num_patients,
            "left_out": list(self.left_out),
            "fault": self.fault,
            "contestants": [one.to_dict() for one in self.standings],
            "pairs": [one.to_dict() for one in self.pairs],
            "friedman": asdict(self.friedman),
            "critical_difference": self.critical_difference,
            "groups": [list(one) for one in self.groups],
        }
