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
from voxelseg.files import read_json, sha256_of_json, write_json
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
        record = read_json(self.folder / "dataset.json", remedy="Run `voxelseg plan DATA --out WORK` first.")
        return read_dataset(Path(record["path"]))

    def plan(self) -> Plan:
        """The plan, as written or as changed by hand since."""
        return read_plan(self.plan_path)

    def fingerprint(
        self, data: Path, dataset: Dataset, *, workers: int, progress: Progress | None = None
    ) -> Fingerprint:
        """Fingerprint of `dataset`, which lies at `data`: the stored one if no input file changed, else measured.

        Raises DataError if the folder belongs to another data set.
        """
        record_path = self.folder / "dataset.json"
        record = {"path": str(data.resolve()), "inputs_sha256": _state_of_inputs(dataset)}
        if record_path.is_file():
            stored = read_json(record_path, remedy="Delete it and plan again.")
            if stored["path"] != record["path"]:
                raise DataError(f"{self.folder}: belongs to the data set {stored['path']}. Choose another folder.")
            if stored == record and self.fingerprint_path.is_file():
                return read_fingerprint(self.fingerprint_path)
        fingerprint = compute_fingerprint(dataset, workers=workers, progress=progress)
        fingerprint.write(self.fingerprint_path)
        self.plan_path.unlink(missing_ok=True)
        write_json(record_path, record)
        return fingerprint

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
                found = path.stat()
                states.append([case.id, str(path), found.st_size, found.st_mtime_ns])
    return sha256_of_json(states)
