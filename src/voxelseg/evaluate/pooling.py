"""Scores of the held-out cases of several folds as those of one set of cases."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from voxelseg.evaluate.evaluation import Evaluation, common_columns

_NAMED_WITH_FOLD = re.compile(r"(.+) \(fold [^()]+\)")


def pool(folds: Mapping[str, Evaluation]) -> tuple[Evaluation, dict[str, tuple[str, str]]]:
    """Scores of all folds, by the folds' names, together; and by the name of each case there its id and its fold.

    The name is the case's id. A case that several folds held out, as folds of one's own may have it, counts for each of
    them and is named with the fold, since each predicted it with a network of its own; a note says so. Metrics that not
    all folds have, as some were scored by an earlier version, are left out, and noted. Needs at least one fold.
    """
    common = common_columns(folds.values())
    lost = dict.fromkeys(one.title for fold in folds.values() for one in fold.columns if one not in common)
    times = Counter(case for evaluation in folds.values() for case in evaluation.cases)
    names = {
        (case, fold): case if times[case] == 1 else f"{case} (fold {fold})"
        for fold, evaluation in folds.items()
        for case in evaluation.cases
    }
    scores = (
        replace(score, case=names[score.case, fold])
        for fold, evaluation in folds.items()
        for score in evaluation.only(common).scores
    )
    notes = dict.fromkeys(note for evaluation in folds.values() for note in evaluation.notes)
    repeated = sum(count > 1 for count in times.values())
    if repeated:
        words = "1 case was" if repeated == 1 else f"{repeated} cases were"
        notes[f"{words} held out in several folds, and each such prediction counts as a case."] = None
    if lost:
        notes[f"Left out because not every fold was scored by it: {', '.join(lost)}."] = None
    patients = {
        name: folds[fold].patients[case] for (case, fold), name in names.items() if case in folds[fold].patients
    }
    tolerance_mm = next(iter(folds.values())).tolerance_mm
    pooled = Evaluation(tuple(scores), tolerance_mm, tuple(notes), patients)
    return pooled, {name: of for of, name in names.items()}


def case_of(name: str) -> str:
    """Id of the case that `pool` gave this name."""
    found = _NAMED_WITH_FOLD.fullmatch(name)
    return found[1] if found else name
