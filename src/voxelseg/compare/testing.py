"""The statistics of one table of scores."""

import math
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from statistics import stdev

import numpy as np

from voxelseg.compare.arrays import Scores
from voxelseg.compare.pairs import Pair, Reason
from voxelseg.compare.results import Standing, TableResult
from voxelseg.compare.scores import ScoreTable
from voxelseg.compare.settings import CompareSettings
from voxelseg.compare.verdicts import judged
from voxelseg.statistics.intervals import NO_INTERVAL, Interval, bootstrap_interval
from voxelseg.statistics.multiple import holm, larger_p
from voxelseg.statistics.paired_t import paired_t
from voxelseg.statistics.ranks import critical_difference, friedman, groups, nemenyi, rank_shares, ranks
from voxelseg.statistics.resampling import Draws, Floats
from voxelseg.statistics.seeds import SeedT, two_level
from voxelseg.statistics.signed_rank import DECIMALS, signed_rank

_draws = lru_cache(maxsize=4)(Draws)
"""Tables mostly have the same patients; the classes of one, each in all columns, may have fewer."""


def tested(table: ScoreTable, settings: CompareSettings) -> TableResult:
    """Everything that is said of a table; DataError for missing predictions that are refused."""
    scores = Scores(table, settings)
    draws = _draws(scores.num_patients, seed=settings.seed, resamples=settings.resamples)
    drawn = scores.drawn(draws)
    many, num = len(scores.names), scores.num_patients
    places = ranks(scores.sums / scores.counts[:, None], higher_is_better=table.column.higher_is_better)
    mean_ranks = places.mean(axis=0).tolist() if num else [math.nan] * many
    difference = critical_difference(many, num, alpha=settings.alpha) if many > 2 and num > 1 else math.nan
    reason, fault = _fault(scores, settings)
    pairs = _pairs(scores, drawn, mean_ranks, settings)
    return TableResult(
        column=table.column,
        class_name=table.class_name,
        num_cases=len(scores.means),
        num_patients=num,
        case_means=scores.case_means,
        left_out=scores.left_out,
        standings=_standings(scores, drawn, mean_ranks, settings),
        pairs=tuple(replace(one, reason=reason) for one in pairs) if fault else _judged(scores, drawn, pairs, settings),
        friedman=friedman(places),
        critical_difference=difference,
        groups=tuple(tuple(scores.names[place] for place in group) for group in groups(mean_ranks, difference)),
        fault=fault,
    )


def _fault(scores: Scores, settings: CompareSettings) -> tuple[Reason, str]:
    """Why nothing can be decided, for the pairs and in words; nothing if something may."""
    table = scores.table
    if not scores.num_patients:
        return "undefined", "there is no case in which every contestant has a score"
    if settings.missing == "worst" and math.isinf(table.column.worst) and any(scores.missing.values()):
        return "missing", f"predictions are missing, and {table.column.title} has no worst value to stand for them"
    if scores.num_patients == 1:
        return "patients", "there is one case only" if len(scores.means) == 1 else "all cases are of one patient"
    if len(scores.names) > 1 and not np.ptp(np.round(scores.means, DECIMALS), axis=1).any():
        return "same", "all contestants have the same values in every case"
    return "", ""


def _standings(
    scores: Scores, drawn: Floats, mean_ranks: list[float], settings: CompareSettings
) -> tuple[Standing, ...]:
    num = len(scores.means)
    column = scores.table.column
    shares = (
        rank_shares(drawn, higher_is_better=column.higher_is_better)
        if num
        else np.full((len(mean_ranks),) * 2, math.nan)
    )
    found = []
    for place, name in enumerate(scores.names):
        values, seeds = scores.means[:, place], scores.run_means[place]
        found.append(
            Standing(
                name=name,
                mean=float(values.mean()) if num else math.nan,
                interval=_interval(scores, drawn[:, place], scores.sums[:, place], 1 - settings.alpha).within(
                    column.best, column.worst
                ),
                median=float(np.median(values)) if num else math.nan,
                std=float(values.std(ddof=1)) if num > 1 else math.nan,
                seed_means=seeds,
                seed_std=stdev(seeds.values()) if len(seeds) > 1 else math.nan,
                mean_rank=mean_ranks[place],
                rank_shares=tuple(shares[place].tolist()),
                missing=scores.missing[name],
                undefined=scores.undefined[name],
                false_finds=scores.table.false_finds.get(name, ()),
            )
        )
    return tuple(found)


def _pairs(scores: Scores, drawn: Floats, mean_ranks: list[float], settings: CompareSettings) -> list[Pair]:
    """All pairs, without verdicts; p-values are adjusted over them."""
    many = len(scores.names)
    ranked = many > 2 and scores.num_patients > 1
    of_ranks = nemenyi(mean_ranks, scores.num_patients) if ranked else np.full((many, many), math.nan)
    found = [
        replace(_pair(scores, drawn, ours, theirs, settings), nemenyi_p=float(of_ranks[ours, theirs]))
        for ours, theirs in combinations(range(many), 2)
    ]
    of_patients = holm([one.wilcoxon_p for one in found])
    of_both = holm([larger_p(one.wilcoxon_p, one.seeds_p) for one in found])
    alike = holm([one.equivalence_p for one in found])
    alike_for_both = holm([larger_p(one.equivalence_p, one.seeds_equivalence_p) for one in found])
    return [
        replace(
            one,
            adjusted_wilcoxon_p=of_patients[place],
            adjusted_p=of_both[place],
            adjusted_patients_equivalence_p=alike[place],
            adjusted_equivalence_p=alike_for_both[place],
        )
        for place, one in enumerate(found)
    ]


def _pair(scores: Scores, drawn: Floats, ours: int, theirs: int, settings: CompareSettings) -> Pair:
    """Two contestants by their places, with nothing that depends on the others."""
    sums = scores.sums[:, ours] - scores.sums[:, theirs]
    by_patient = np.round(sums / scores.counts, DECIMALS)
    signs = np.sign(by_patient) * (1 if scores.table.column.higher_is_better else -1)
    wilcoxon, t_test = signed_rank(by_patient), paired_t(by_patient)
    margin = settings.margin_of(scores.table.column)
    seeds = _over_seeds(scores, ours, theirs)
    return Pair(
        ours=scores.names[ours],
        theirs=scores.names[theirs],
        difference=float(sums.sum() / scores.counts.sum()) if len(sums) else math.nan,
        interval=_of_difference(scores, drawn, ours, theirs, 1 - settings.alpha),
        num_better=int((signs > 0).sum()),
        num_worse=int((signs < 0).sum()),
        std=t_test.std,
        wilcoxon_p=wilcoxon.p if len(sums) else math.nan,
        seeds_p=seeds.p,
        t_p=t_test.p,
        rank_biserial=wilcoxon.rank_biserial,
        cohens_dz=t_test.cohens_dz,
        margin=margin,
        equivalence_p=math.nan if margin is None else t_test.equivalence_p(margin),
        seeds_equivalence_p=math.nan if margin is None else seeds.equivalence_p(margin),
        seeds=seeds.interval(1 - settings.alpha),
    )


def _judged(scores: Scores, drawn: Floats, pairs: list[Pair], settings: CompareSettings) -> tuple[Pair, ...]:
    places, level = combinations(range(len(scores.names)), 2), 1 - 2 * settings.alpha
    return tuple(
        judged(
            one,
            settings,
            higher_is_better=scores.table.column.higher_is_better,
            num_patients=scores.num_patients,
            num_pairs=len(pairs),
            narrow=_of_difference(scores, drawn, *both, level),
        )
        for one, both in zip(pairs, places, strict=True)
    )


def _interval(scores: Scores, drawn: Floats, sums: Floats, level: float) -> Interval:
    """Of a mean over the cases, given by its sums over each patient's; `drawn` are the means of the draws."""
    if not len(sums):
        return NO_INTERVAL
    mean = float(sums.sum() / scores.counts.sum())
    return bootstrap_interval(drawn, mean=mean, error=scores.error(sums), num_groups=len(sums), level=level)


def _of_difference(scores: Scores, drawn: Floats, ours: int, theirs: int, level: float) -> Interval:
    """Of the difference of two contestants' means, for other patients."""
    sums = scores.sums[:, ours] - scores.sums[:, theirs]
    return _interval(scores, drawn[:, ours] - drawn[:, theirs], sums, level)


def _over_seeds(scores: Scores, ours: int, theirs: int) -> SeedT:
    """The difference for other patients and other seeds alike."""
    sums = scores.sums[:, ours] - scores.sums[:, theirs]
    seeds = [list(scores.run_means[place].values()) for place in (ours, theirs)]
    mean = float(sums.sum() / scores.counts.sum()) if len(sums) else math.nan
    return two_level(mean, scores.error(sums), len(sums), *seeds)
