"""The work folder: what planning and preprocessing write and training reads.

WORK/dataset.json says where the data set is, fingerprint.json what it looks like, plan.json what was decided, store/
holds the preprocessed cases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelseg.data.dataset import Dataset
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import DataError
from voxelseg.files import make_folder, read_json, sha256_of_json, unfinished, write_json
from voxelseg.plan.fingerprint import Fingerprint, compute_fingerprint, read_fingerprint
from voxelseg.plan.plan import Plan, read_plan
from voxelseg.preprocess.store import StoredCase, store_dataset

Progress = Callable[[int], None]


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

    @property
    def store_path(self) -> Path:
        """Folder of the preprocessed cases."""
        return self.folder / "store"

    def dataset(self) -> Dataset:
        """The data set that this folder was planned for."""
        return read_dataset(Path(self._record()["path"]))

    def plan(self) -> Plan:
        """The plan, as written or as changed by hand since."""
        return read_plan(self.plan_path)

    def fingerprint(
        self, data: Path, dataset: Dataset, *, workers: int, progress: Progress | None = None
    ) -> Fingerprint:
        """Fingerprint of `dataset`, which lies at `data`: the stored one if no input file changed, else measured.

        A plan in the folder is removed if what it was made from changed. Raises DataError if the folder belongs to
        another data set, VoxelsegError if it cannot be written.
        """
        make_folder(self.folder)
        unfinished(self.folder)
        record = {"path": str(data.resolve()), "inputs_sha256": _state_of_inputs(dataset)}
        known = self._record() if self._record_path.is_file() else {}
        if known.get("path", record["path"]) != record["path"]:
            raise DataError(f"{self.folder}: belongs to the data set {known['path']}. Choose another folder.")
        before = self._known_fingerprint()
        if before is not None and known == record:
            return before
        fingerprint = compute_fingerprint(dataset, workers=workers, progress=progress)
        if fingerprint != before:
            self.plan_path.unlink(missing_ok=True)  # before the fingerprint: a stop in between must not keep the plan
            fingerprint.write(self.fingerprint_path)
        write_json(self._record_path, record)
        return fingerprint

    @property
    def _record_path(self) -> Path:
        return self.folder / "dataset.json"

    def _record(self) -> dict[str, Any]:
        remedy = "Run `voxelseg plan DATA --out WORK` first."
        record = read_json(self._record_path, remedy=remedy)
        if not isinstance(record, dict) or "path" not in record:
            raise DataError(f"{self._record_path}: does not say where the data set is. Delete it. {remedy}")
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
        return store_dataset(dataset, plan, self.store_path, workers=workers, progress=progress)


def _state_of_inputs(dataset: Dataset) -> str:
    states: list[Any] = [dataset.labels.to_dict(), list(dataset.channels)]
    for case in dataset.cases:
        for path in (*case.images, case.label):
            if path is not None:
                try:
                    found = path.stat()
                except OSError as error:
                    raise DataError(f"{path}: cannot be read ({error.strerror}). Restore the file.") from error
                states.append([case.id, str(path), found.st_size, found.st_mtime_ns])
    return sha256_of_json(states)
