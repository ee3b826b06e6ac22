"""A table of scores as arrays: what each contestant has in the cases in which all have something."""

import math

import numpy as np

from voxelseg.compare.scores import ScoreTable
from voxelseg.compare.settings import CompareSettings
from voxelseg.data.wording import counted, some
from voxelseg.errors import DataError
from voxelseg.statistics.intervals import clustered_error
from voxelseg.statistics.resampling import Draws, Floats


class Scores:
    """A table without the cases in which some contestant has no score in some run."""

    def __init__(self, table: ScoreTable, settings: CompareSettings) -> None:
        """DataError for missing predictions that are refused."""
        self.table = table
        self.names = tuple(table.values)
        self.missing = {name: table.missing(name) for name in self.names}
        """By contestant: cases without a prediction in some run."""
        self.undefined = {name: table.undefined(name) for name in self.names}
        """By contestant: cases in which some run's score is undefined."""
        of_runs = [self._filled(name, settings) for name in self.names]
        means = np.stack([runs.mean(axis=0) for runs in of_runs], axis=1)
        defined = ~np.isnan(means).any(axis=1)
        self.left_out = tuple(case for case, kept in zip(table.cases, defined, strict=True) if not kept)
        self.means: Floats = means[defined]
        """(cases, contestants), over the runs."""
        self.cases = tuple(case for case, kept in zip(table.cases, defined, strict=True) if kept)
        """That count."""
        self.run_means = [
            dict(zip(table.values[name], runs[:, defined].mean(axis=1).tolist() if defined.any() else (), strict=False))
            for name, runs in zip(self.names, of_runs, strict=True)
        ]
        """By contestant: seed -> mean over the cases."""
        patients = [table.patients[case] for case in self.cases]
        number = {patient: place for place, patient in enumerate(dict.fromkeys(patients))}
        places = [number[patient] for patient in patients]
        self.num_patients = len(number)
        self.counts: Floats = np.bincount(places, minlength=len(number)).astype(np.float64)
        """(patients,): cases of each."""
        self.sums: Floats = np.zeros((len(number), len(self.names)))
        """(patients, contestants)."""
        np.add.at(self.sums, places, self.means)

    @property
    def case_means(self) -> dict[str, dict[str, float]]:
        """Contestant -> case -> mean over the runs."""
        columns = zip(self.names, self.means.T.tolist(), strict=True)
        return {name: dict(zip(self.cases, values, strict=True)) for name, values in columns}

    def drawn(self, draws: Draws) -> Floats:
        """(resamples, contestants): mean over the cases of the drawn patients."""
        return draws.means(self.sums, self.counts[:, None])

    def error(self, sums: Floats) -> float:
        """Standard error of the mean over the cases that has these sums (patients,)."""
        return clustered_error(sums, self.counts)

    def _filled(self, name: str, settings: CompareSettings) -> Floats:
        """(runs, cases) of one contestant; missing predictions are what the settings say, or NaN, which is left out.

        Where the score of everyone else is undefined, as neither reference nor prediction has the class, there is
        nothing to miss.
        """
        table, absent = self.table, self.missing[name]
        if absent and settings.missing == "refuse":
            raise DataError(
                f"{name} has no prediction of {counted(len(absent), 'case')} that others have: {some(absent)}. Predict "
                "what is missing, or say what it counts as: `leave-out` compares the cases that all have, `worst` "
                "takes it for a failure."
            )
        fillers = dict.fromkeys(absent, math.nan)
        if settings.missing == "worst" and math.isfinite(table.column.worst):
            empty = set().union(*self.undefined.values())
            fillers.update((case, table.column.worst) for case in absent if case not in empty)
        rows = [
            [run[case] if case in run else fillers[case] for case in table.cases] for run in table.values[name].values()
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(table.cases))
