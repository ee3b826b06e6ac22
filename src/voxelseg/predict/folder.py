"""A folder of predictions: what was made by which models from which scans, and what is still to be made.

DIR/<case><suffix>                   label map
DIR/probabilities/<case>.nii.gz      on request: 4D, one channel per output of the network
DIR/prediction.json                  settings, and the state of each scan when it was predicted
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Case
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.files import make_folder, read_json, sha256_of_json, unfinished, write_json
from voxelseg.io import read_channels, write_volume
from voxelseg.predict.predictor import Predictor
from voxelseg.volume import Volume

RECORD_FILE = "prediction.json"
PROBABILITIES_FOLDER = "probabilities"


class PredictionFolder:
    """`folder` as one that holds predictions made with `settings`, which must name the models and all options."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, Any], file_ending: str = ".nii.gz", probabilities: bool = False
    ) -> None:
        """`probabilities`: whether these are written too. Nothing is read or written yet but the record."""
        self.folder = Path(folder)
        self.settings = dict(settings)
        self.file_ending = file_ending
        self.probabilities = probabilities
        self._key = sha256_of_json(self.settings)
        self._scans: dict[str, Any] = {}
        record = self.folder / RECORD_FILE
        if record.is_file():
            remedy = f"Delete {record} to predict all cases again."
            earlier = read_json(record, remedy=remedy)
            if not isinstance(earlier, dict) or not isinstance(earlier.get("cases"), dict):
                raise DataError(f"{record}: not a record of predictions. {remedy}")
            if earlier.get("key") == self._key:
                self._scans = earlier["cases"]

    def label_map(self, case: Case) -> Path:
        """Where the label map of `case` lies or will lie."""
        return self.folder / f"{case.id}{self.file_ending}"

    def probability_map(self, case: Case) -> Path:
        """Where the probabilities of `case` lie or will lie."""
        return self.folder / PROBABILITIES_FOLDER / f"{case.id}.nii.gz"

    def holds(self, case: Case) -> bool:
        """Whether `case` was predicted with these settings and its scan has not changed since."""
        scan = _scan_state(case)
        files = [self.label_map(case), *([self.probability_map(case)] if self.probabilities else [])]
        return scan is not None and self._scans.get(case.id) == scan and all(file.is_file() for file in files)

    def open(self) -> None:
        """Make the folder ready to be written; raises VoxelsegError before any work if it cannot be."""
        make_folder(self.folder)
        for folder in (self.folder, self.folder / PROBABILITIES_FOLDER):
            unfinished(folder)
        self._write_record()

    def add(self, case: Case, label_map: Volume, probabilities: Volume) -> None:
        """Write the outputs of one case, and then that they are there."""
        state = _scan_state(case)
        if self.probabilities:
            write_volume(self.probability_map(case), probabilities)
        else:
            self.probability_map(case).unlink(missing_ok=True)  # of another model, or of another scan
        write_volume(self.label_map(case), label_map)
        self._scans[case.id] = state
        self._write_record()

    def _write_record(self) -> None:
        write_json(self.folder / RECORD_FILE, {"key": self._key, "settings": self.settings, "cases": self._scans})


def _scan_state(case: Case) -> list[list[Any]] | None:
    """Path, size and time of the scan's files; None if one is gone."""
    try:
        found = [(file, file.stat()) for file in case.images]
    except OSError:
        return None
    return [[str(file.absolute()), state.st_size, state.st_mtime_ns] for file, state in found]


def predict_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    output: PredictionFolder,
    *,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Path]:
    """Label maps of `cases` by id, written to `output`; what it already holds is kept.

    Scans that cannot be read or do not fit the models are left out, the others go on, and a DataError lists them all at
    the end. `progress` is called with the number of cases done, which may be fractional, and the case in work.
    """
    output.open()
    paths: dict[str, Path] = {}
    failed: list[str] = []
    for number, case in enumerate(cases):
        report = partial(_report, progress, case.id, number)
        report(0.0)
        if not output.holds(case):
            try:
                scan = read_channels(case.images)
                values = predictor.probabilities(scan, progress=report)
            except (DataError, OSError) as error:
                failed.append(f"{case.id}: {error}")
                continue
            except VoxelsegError as error:
                raise VoxelsegError(f"{case.id}: {error}") from error
            output.add(case, Volume(predictor.labels.decode(values)[None], scan.grid), Volume(values, scan.grid))
        paths[case.id] = output.label_map(case)
        report(1.0)
    if failed:
        listed = "\n  ".join(failed)
        others = "the others were" if paths else "there are no others"
        raise DataError(f"{len(failed)} of {len(cases)} cases could not be predicted, {others}:\n  {listed}")
    return paths


def _report(progress: Callable[[float, str], None] | None, case: str, done: int, share: float) -> None:
    if progress is not None:
        progress(done + share, case)
