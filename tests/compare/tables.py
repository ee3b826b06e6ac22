"""Tables of scores, made by hand or drawn."""

import numpy as np

from voxelseg.compare.scores import ScoreTable
from voxelseg.metrics import column


def score_table(values, *, key="dice", class_name="", patients=None):
    """Of contestant -> seed -> case -> score; without `patients` each case is one."""
    cases = tuple(sorted({case for runs in values.values() for run in runs.values() for case in run}))
    whose = patients or {case: case for case in cases}
    return ScoreTable(
        column=column(key, tolerance_mm=1.0), class_name=class_name, cases=cases, patients=whose, values=values
    )


def of_arrays(key="dice", patients=None, **contestants):
    """Of contestant -> (cases,) or (runs, cases); cases are c000, c001 and so on."""
    values = {
        name: {
            str(seed): {f"c{place:03}": float(score) for place, score in enumerate(run)}
            for seed, run in enumerate(np.atleast_2d(scores))
        }
        for name, scores in contestants.items()
    }
    whose = None if patients is None else {f"c{place:03}": f"p{one}" for place, one in enumerate(patients)}
    return score_table(values, key=key, patients=whose)


def drawn(means, num, *, seed=0, std=0.02, runs=1, key="dice"):
    """Contestants a, b, c and so on whose scores differ by `means` from a shared one of each case, and by chance."""
    rng = np.random.default_rng(seed)
    shared = rng.beta(9, 1, num)
    chance = std * rng.standard_normal((len(means), runs, num))
    scores = {name: shared + mean + one for name, mean, one in zip("abcdefghij", means, chance, strict=False)}
    return of_arrays(key=key, **scores)
