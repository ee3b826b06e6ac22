"""What is called better, worse, equivalent and undecided: the rules as code, and in words."""

import math
from dataclasses import replace

from voxelseg.compare.pairs import Pair, Reason, Verdict
from voxelseg.compare.settings import CompareSettings
from voxelseg.statistics.intervals import FEW, Interval
from voxelseg.statistics.sample_size import fewest_for_signed_rank, patients_for_equivalence, patients_to_find
from voxelseg.statistics.seeds import ENOUGH_SEEDS


def rules(settings: CompareSettings) -> tuple[str, ...]:
    """How the numbers come about and what they are taken for, sentence by sentence."""
    level, confidence = f"{settings.alpha:g}", f"{100 * (1 - settings.alpha):g} %"
    missing = {
        "refuse": "A missing prediction stops the comparison.",
        "worst": "A missing prediction counts as the worst value of the column.",
        "leave-out": "A case of which some prediction is missing is left out for all contestants.",
    }[settings.missing]
    pooled = (
        "All numbers of a table are of the cases in which every contestant has a score in each of its runs; a case "
        "counts with its mean over the runs (seeds). Undefined scores (both masks empty) are left out and counted; but "
        "where someone found what the reference does not have, rightly finding nothing counts as the best value."
    )
    intervals = (
        f"Intervals are {confidence} bootstrap intervals ({settings.resamples:,} draws of patients; Student's t with "
        f"fewer than {FEW}): what other patients might change."
    )
    adjusted = (
        "p-values of pairs (Wilcoxon signed-rank test, two one-sided t-tests of equivalence) are adjusted by Holm for "
        "all pairs of a table, not for the number of tables: the first table is what the answer is of, the others are "
        "told beside it. Intervals are not adjusted."
    )
    seeds = (
        f"With {ENOUGH_SEEDS} seeds or more on both sides the p-value of a pair, before the adjustment, is the larger "
        "one of that over patients and that of a t-test over patients and seeds together (two one-sided ones for "
        "equivalence): a verdict holds for other trainings, too. With fewer it holds for these trainings."
    )
    equivalent = (
        f"Equivalent: the tests find the difference smaller than the margin, adjusted p below {level}, "
        f"its {100 * (1 - 2 * settings.alpha):g} % interval lies within the margin, and there are "
        f"{fewest_for_signed_rank(settings.alpha)} patients or more. It may be more than chance all the same."
    )
    better = (
        f"Better or worse: the adjusted p is below {level}, the interval of the difference over patients excludes 0, "
        "and the signed-rank test points the same way."
    )
    undecided = (
        "Undecided: everything else; seeds may explain it where patients alone would decide. How many would be needed "
        "is a normal approximation for a power of "
        f"{100 * settings.power:g} %, if the difference stays as it is: to find it, or to show that it is within the "
        "margin, whichever takes fewer."
    )
    patients = "Patients are the unit: cases of one are drawn together, and tests take their mean."
    return (pooled, missing, patients, intervals, adjusted, seeds, equivalent, better, undecided)


def judged(
    pair: Pair,
    settings: CompareSettings,
    *,
    higher_is_better: bool,
    num_patients: int,
    num_pairs: int,
    narrow: Interval,
) -> Pair:
    """The pair with its verdict, the reason, and how many patients would be needed.

    `narrow` is the interval of the difference over patients of level 1 - 2 alpha, which lies within the margin where
    two one-sided tests find equivalence. There are two patients at least, and some pair differs.
    """
    alike = _is_within(narrow, pair.margin) and num_patients >= fewest_for_signed_rank(settings.alpha)
    verdict, reason = _verdict(pair, settings.alpha, may_be_equivalent=alike)
    if verdict == "better" and (pair.difference > 0) != higher_is_better:
        verdict = "worse"
    needed = _needed(pair, settings.alpha / num_pairs, settings.power) if reason == "patients" else None
    if needed is not None and needed <= num_patients:
        return replace(pair, verdict=verdict, reason="tests", patients_needed=None)
    return replace(pair, verdict=verdict, reason=reason, patients_needed=needed)


def _is_within(interval: Interval, margin: float | None) -> bool:
    return margin is not None and -margin < interval.low <= interval.high < margin


def _verdict(pair: Pair, alpha: float, *, may_be_equivalent: bool) -> tuple[Verdict, Reason]:
    """As if larger values were better and ours had them; the caller knows.

    The t-tests alone cannot say `may_be_equivalent`: they weigh patients alike, whatever the number of their cases, and
    two patients whose differences happen to agree satisfy them.
    """
    if pair.num_better == pair.num_worse == 0:
        return "undecided", "same"
    one_way = pair.difference * pair.rank_biserial > 0
    may_differ = pair.interval.excludes_zero and one_way
    if may_be_equivalent and pair.adjusted_equivalence_p < alpha:
        return "equivalent", ""
    if may_differ and pair.adjusted_p < alpha:
        return "better", ""
    alike = may_be_equivalent and pair.adjusted_patients_equivalence_p < alpha
    unlike = pair.adjusted_wilcoxon_p < alpha
    if pair.knows_seeds and (alike or (may_differ and unlike)):
        return "undecided", "seeds"
    return "undecided", "patients" if one_way or not unlike else "tests"


def _needed(pair: Pair, alpha: float, power: float) -> int | None:
    """Patients that would decide; None if nobody can say."""
    if not pair.std > 0:
        return None
    found = patients_to_find(pair.difference, pair.std, alpha=alpha, power=power)
    if pair.margin is not None:
        same = patients_for_equivalence(pair.margin, pair.std, alpha=alpha, difference=pair.difference, power=power)
        found = min(found, same)
    return None if math.isinf(found) else max(math.ceil(found), fewest_for_signed_rank(alpha))
