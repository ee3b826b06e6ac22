"""The work folder: what planning and preprocessing write and training reads.

WORK/work.json says where the data set is, fingerprint.json what it looks like, plan.json what was decided, and
store/<key>/ holds the cases as one way of preprocessing made them, so that trainings with other plans can share WORK.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import LAYOUTS, read_dataset
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.files import locked, read_json, sha256_of_json, write_json
from voxelseg.plan.fingerprint import Fingerprint, compute_fingerprint, read_fingerprint
from voxelseg.plan.plan import Plan, read_plan
from voxelseg.preprocess.store import StoredCase, input_states, store_dataset

Progress = Callable[[int], None]
OUTDATED_PLAN_FILE = "plan.outdated.json"
_MEASURED_BY = 2
"""Part of the state of the inputs: raise it when scans that were measured must be looked at again."""
_WITHOUT_LABELS = "without_labels"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkFolder:
    """Paths and contents of a work folder."""

    folder: Path

    @property
    def plan_path(self) -> Path:
        """plan.json."""
        return self.folder / "plan.json"

    @property
    def fingerprint_path(self) -> Path:
        """fingerprint.json."""
        return self.folder / "fingerprint.json"

    def store_path(self, plan: Plan) -> Path:
        """Folder of the cases as `plan` preprocesses them."""
        return self.folder / "store" / plan.preprocessing_key()[:12]

    def dataset(self) -> Dataset:
        """The data set that this folder was planned for; DataError if its scans were taken without labels."""
        record = self._record()
        if record.get(_WITHOUT_LABELS, False):
            raise DataError(
                f"{self.folder}: was planned for a pre-training, without labels. Continue with `voxelseg pretrain`."
            )
        return read_dataset(Path(record["path"]))

    def plan(self) -> Plan:
        """The plan, as written or as changed by hand since."""
        return read_plan(self.plan_path)

    def write_plan(self, plan: Plan) -> None:
        """Write plan.json; another one that is there, perhaps changed by hand, is put aside."""
        try:
            same = self.plan() == plan
        except VoxelsegError:  # not there, or damaged
            same = False
        if not same:
            self._put_plan_aside("planned again")
            plan.write(self.plan_path)

    def fingerprint(self, dataset: Dataset, *, workers: int, progress: Progress | None = None) -> Fingerprint:
        """Fingerprint of `dataset`: the stored one if no input file changed, else measured.

        A plan in the folder is put aside if what it was made from changed. Raises DataError if the folder belongs to
        another data set, or to the same one with labels where they are not used now, or without; VoxelsegError if it
        cannot be written.
        """
        if any(layout.matches(self.folder) for layout in LAYOUTS.values()):
            raise DataError(f"{self.folder}: is a data set. Choose another folder for what is made from it.")
        with locked(self.folder, wait=True):
            return self._current_fingerprint(dataset, workers=workers, progress=progress)

    def _current_fingerprint(self, dataset: Dataset, *, workers: int, progress: Progress | None) -> Fingerprint:
        record: dict[str, Any] = {"path": str(dataset.source.absolute()), "inputs_sha256": _state_of_inputs(dataset)}
        if not dataset.labelled:
            record[_WITHOUT_LABELS] = True
        known = self._record() if self._record_path.is_file() else {}
        if known.get("path", record["path"]) != record["path"]:
            raise DataError(f"{self.folder}: belongs to the data set {known['path']}. Choose another folder.")
        if known and known.get(_WITHOUT_LABELS, False) == dataset.labelled:
            made, wanted = ("without", "with") if dataset.labelled else ("with", "without")
            raise DataError(
                f"{self.folder}: was made from these scans {made} labels, and here they are used {wanted}. Choose "
                "another folder: pre-training and training have plans of their own."
            )
        before = self._known_fingerprint()
        if before is not None and known == record:
            return before
        fingerprint = compute_fingerprint(dataset, workers=workers, progress=progress)
        if fingerprint != before:
            # Before the fingerprint is written: a stop in between must not keep the plan.
            self._put_plan_aside("the data have changed")
            fingerprint.write(self.fingerprint_path)
        write_json(self._record_path, record)
        return fingerprint

    def _put_plan_aside(self, reason: str) -> None:
        if self.plan_path.is_file():
            aside = self.plan_path.replace(self.folder / OUTDATED_PLAN_FILE)
            _log.warning("%s: %s; the plan before is kept as %s.", self.folder, reason, aside.name)

    @property
    def _record_path(self) -> Path:
        return self.folder / "work.json"

    def _record(self) -> dict[str, Any]:
        if not self._record_path.is_file():
            raise DataError(f"{self.folder}: nothing was planned here. Run `voxelseg plan DATA --out WORK` first.")
        remedy = "Delete it and run `voxelseg plan DATA --out WORK` again."
        record = read_json(self._record_path, remedy=remedy)
        if not isinstance(record, dict) or "path" not in record:
            raise DataError(f"{self._record_path}: does not say where the data set is. {remedy}")
        return record

    def _known_fingerprint(self) -> Fingerprint | None:
        try:
            return read_fingerprint(self.fingerprint_path)
        except DataError:  # missing, damaged or of an earlier version: it is measured again
            return None

    def stored_cases(
        self, dataset: Dataset, plan: Plan, *, workers: int, progress: Progress | None = None
    ) -> dict[str, StoredCase]:
        """All cases, preprocessed by `plan`; those that are missing or out of date are made."""
        return store_dataset(dataset, plan, self.store_path(plan), workers=workers, progress=progress)


def _state_of_inputs(dataset: Dataset) -> str:
    states: list[Any] = [_MEASURED_BY, dataset.labels.to_dict(), list(dataset.channels)]
    for case in dataset.cases:
        states += [[case.id, *state.values()] for state in input_states(case)]
    return sha256_of_json(states)
