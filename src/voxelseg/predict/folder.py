"""A folder of predictions: what was made by which models from which scans, and what is still to be made.

DIR/<case><suffix>                   label map
DIR/probabilities/<case>.nii.gz      on request: 4D, one channel per output of the network
DIR/prediction.json                  settings, the state of each scan when it was predicted, null before, and how many
                                     seconds that took
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Case
from voxelseg.data.wording import some
from voxelseg.errors import ConfigError, DataError, VoxelsegError
from voxelseg.files import locked, read_json, remove_leftovers, sha256_of_json, write_json
from voxelseg.io import files_of, read_channels, write_volume
from voxelseg.predict.predictor import Predictor
from voxelseg.volume import Volume

RECORD_FILE = "prediction.json"
PROBABILITIES_FOLDER = "probabilities"
ScanState = list[list[Any]]


class PredictionFolder:
    """`folder` as one that holds predictions made with `settings`, which must name the models and all options."""

    def __init__(
        self, folder: Path, *, settings: Mapping[str, Any], file_ending: str = ".nii.gz", probabilities: bool = False
    ) -> None:
        """`probabilities`: whether these are written too. Nothing is read but the record, and nothing written.

        Raises DataError if the record is damaged.
        """
        self.folder = Path(folder)
        self.settings = dict(settings)
        self.file_ending = file_ending
        self.probabilities = probabilities
        self._key = sha256_of_json(self.settings)
        self._scans, self._seconds = self._recorded()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Case -> how long its prediction took, from reading the scan to writing the label map, as far as known."""
        return {case: taken for case, taken in self._seconds.items() if self._scans.get(case) is not None}

    def _recorded(self) -> tuple[dict[str, Any], dict[str, float]]:
        """State of each scan by case, as the record has it, and seconds; None for label maps of other settings."""
        record = self.folder / RECORD_FILE
        if not record.is_file():
            return {}, {}
        remedy = "Delete it and the label maps beside it to predict all cases again."
        earlier = read_json(record, remedy=remedy)
        if not isinstance(earlier, dict) or not isinstance(earlier.get("cases"), dict):
            raise DataError(f"{record}: not a record of predictions. {remedy}")
        scans: dict[str, Any] = earlier["cases"]
        return (scans, earlier.get("seconds", {})) if earlier.get("key") == self._key else (dict.fromkeys(scans), {})

    def label_map(self, case: Case) -> Path:
        """Where the label map of `case` lies or will lie."""
        return self.folder / f"{case.id}{self.file_ending}"

    def probability_map(self, case: Case) -> Path:
        """Where the probabilities of `case` lie or will lie."""
        return self.folder / PROBABILITIES_FOLDER / f"{case.id}.nii.gz"

    def holds(self, case: Case) -> bool:
        """Whether `case` was predicted with these settings and its scan has not changed since."""
        scan = scan_state(case)
        files = [self.label_map(case), *([self.probability_map(case)] if self.probabilities else [])]
        return scan is not None and self._scans.get(case.id) == scan and all(file.is_file() for file in files)

    @contextmanager
    def opened(self, cases: Sequence[Case]) -> Iterator[None]:
        """Hold the folder to write the outputs of `cases`.

        What it holds of them and is no longer current is deleted first, so that label maps of two models never lie side
        by side. Raises VoxelsegError before any work if it cannot be written, another process writes into it, it holds
        other cases' label maps by other models, or an output would replace a file that no prediction has written, such
        as a reference label map.
        """
        self._refuse_to_replace_others(cases)
        self._refuse_to_mix_models(cases)
        with locked(self.folder):
            remove_leftovers(self.folder / PROBABILITIES_FOLDER)
            recorded, self._seconds = self._recorded()
            self._scans = dict.fromkeys(case.id for case in cases) | recorded
            for case in cases:
                if not self.holds(case):
                    self._scans[case.id] = None
                    for file in (self.label_map(case), self.probability_map(case)):
                        file.unlink(missing_ok=True)
            self._write_record()
            yield

    def _refuse_to_mix_models(self, cases: Sequence[Case]) -> None:
        asked = {case.id for case in cases}
        names = (f"{case}{self.file_ending}" for case, scan in self._scans.items() if case not in asked and not scan)
        earlier = [name for name in names if (self.folder / name).exists()]
        if earlier:
            raise ConfigError(
                f"{self.folder}: holds label maps that other models or options made ({some(earlier)}). Delete them or "
                "choose another --output."
            )

    def _refuse_to_replace_others(self, cases: Sequence[Case]) -> None:
        unknown = [case for case in cases if case.id not in self._scans]
        files = [file for case in unknown for file in (self.label_map(case), self.probability_map(case))]
        foreign = [file for file in files if file.exists()]
        if foreign:
            raise ConfigError(
                f"{foreign[0]}: is there already, and no prediction has written it. Choose another --output."
            )

    def add(
        self,
        case: Case,
        label_map: Volume,
        probabilities: Volume,
        *,
        scan: ScanState | None,
        began: float | None = None,
    ) -> None:
        """Write the outputs of one case, and then that they are there.

        `scan` is the `scan_state` from before the scan was read: what changed meanwhile is predicted again. `began` is
        when that was, by `time.monotonic`, so that the time it took is noted.
        """
        if self.probabilities:
            write_volume(self.probability_map(case), probabilities)
        write_volume(self.label_map(case), label_map)
        self._scans[case.id] = scan
        self._seconds.pop(case.id, None)
        if began is not None:
            self._seconds[case.id] = time.monotonic() - began
        self._write_record()

    def _write_record(self) -> None:
        record = {"key": self._key, "settings": self.settings, "cases": self._scans, "seconds": dict(self.seconds)}
        write_json(self.folder / RECORD_FILE, record)


def scan_state(case: Case) -> ScanState | None:
    """Path, size and time of the scan's files; None if one is gone."""
    try:
        found = [(file, file.stat()) for image in case.images for file in files_of(image)]
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
    with output.opened(cases):
        paths, failed = _predict_all(predictor, cases, output, progress)
    if failed:
        listed = "\n  ".join(failed)
        others = "the others were" if paths else "there are no others"
        raise DataError(f"{len(failed)} of {len(cases)} cases could not be predicted, {others}:\n  {listed}")
    return paths


def _predict_all(
    predictor: Predictor,
    cases: Sequence[Case],
    output: PredictionFolder,
    progress: Callable[[float, str], None] | None,
) -> tuple[dict[str, Path], list[str]]:
    """Label maps by case, and what was wrong with the cases that could not be predicted."""
    paths: dict[str, Path] = {}
    failed: list[str] = []
    for number, case in enumerate(cases):
        report = partial(_report, progress, case.id, number)
        report(0.0)
        if not output.holds(case):
            try:
                _predict(predictor, case, output, report)
            except (DataError, OSError) as error:
                failed.append(f"{case.id}: {error}")
                continue
            except MemoryError as error:
                failed.append(f"{case.id}: the memory ran out ({error}). Check its spacing, or use a larger machine.")
                continue
            except VoxelsegError as error:
                raise VoxelsegError(f"{case.id}: {error}") from error
        paths[case.id] = output.label_map(case)
        report(1.0)
    return paths, failed


def _predict(predictor: Predictor, case: Case, output: PredictionFolder, report: Callable[[float], None]) -> None:
    """Predict one case; its arrays are gone when the next one is read."""
    state, began = scan_state(case), time.monotonic()
    scan = read_channels(case.images)
    values = predictor.probabilities(scan, progress=report)
    label_map = Volume(predictor.decode(values)[None], scan.grid)
    output.add(case, label_map, Volume(values, scan.grid), scan=state, began=began)


def _report(progress: Callable[[float, str], None] | None, case: str, done: int, share: float) -> None:
    if progress is not None:
        progress(done + share, case)
