"""Which training cases keep their labels: nested subsets of a fold, drawn by patient.

For each seed there is one order of the patients, and a share takes the first of them: all starts of a seed get the same
cases, and a larger share adds cases to those of a smaller one. The order is drawn, except that patients who have a
class that none before them has come first, so that even few patients have each class where that is possible.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxelseg.data.dataset import Case
from voxelseg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Labelled cases of one share and seed."""

    share: float
    """Of the patients, in percent."""
    seed: int
    cases: tuple[str, ...]
    """Ids, sorted."""
    num_patients: int
    absent: tuple[str, ...]
    """Classes that occur in none of them, though they do in the fold."""


def check_shares(shares: Sequence[float], num_patients: int) -> None:
    """ConfigError unless each share of so many patients is at least one of them, and no two give the same number."""
    given: dict[int, float] = {}
    for share in shares:
        if not 0 < share <= 100:
            raise ConfigError(f"share {share:g}: expected percent of the training cases, above 0 and up to 100.")
        count = patients_of_share(share, num_patients)
        if count == 0:
            least = math.ceil(50 / num_patients)
            raise ConfigError(
                f"{share:g} % of {num_patients} training patients is less than half a patient: no case would have "
                f"labels. The smallest share here is {least} %."
            )
        if count in given:
            raise ConfigError(
                f"{given[count]:g} % and {share:g} % of {num_patients} training patients are both {count}: the same "
                "trainings twice. Leave one out."
            )
        given[count] = share


def patients_of_share(share: float, num_patients: int) -> int:
    """The whole number nearest to `share` percent of so many patients, halves rounded up."""
    return math.floor(share * num_patients / 100 + 0.5)


def nested_subsets(
    cases: Sequence[Case], classes_of: Mapping[str, Collection[str]], shares: Sequence[float], seed: int
) -> dict[float, Subset]:
    """Subset of `cases` for each share in percent; `classes_of` has the classes that occur in each case, by its id."""
    of_patient: dict[str, list[str]] = {}
    for case in cases:
        of_patient.setdefault(case.patient, []).append(case.id)
    classes = {
        patient: frozenset(name for case in ids for name in classes_of[case]) for patient, ids in of_patient.items()
    }
    order = patient_order(classes, seed)
    everywhere = frozenset().union(*classes.values())
    found = {}
    for share in shares:
        taken = order[: patients_of_share(share, len(order))]
        present = frozenset().union(*(classes[patient] for patient in taken))
        found[share] = Subset(
            share=share,
            seed=seed,
            cases=tuple(sorted(case for patient in taken for case in of_patient[patient])),
            num_patients=len(taken),
            absent=tuple(sorted(everywhere - present)),
        )
    return found


def patient_order(classes: Mapping[str, frozenset[str]], seed: int) -> list[str]:
    """Patients in the order in which they get labels; it depends on the set of patients, their classes and the seed.

    While classes are missing, the next is the one who adds most of them, the first drawn one among several.
    """
    patients = sorted(classes)
    drawn = [patients[place] for place in np.random.default_rng(seed).permutation(len(patients))]
    missing = set().union(*classes.values())
    first: list[str] = []
    while missing:
        best = max(drawn, key=lambda patient: len(classes[patient] & missing))  # the first one of equals
        first.append(best)
        drawn.remove(best)
        missing -= classes[best]
    return first + drawn
