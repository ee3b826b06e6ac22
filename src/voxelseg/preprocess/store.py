"""The store: preprocessed cases on disk, chunked for fast reads of random patches.

WORK/store/<case>/ holds image.b2nd (C, D, H, W float32), label.b2nd (D, H, W int16), foreground.npz (voxels of each
class, for oversampling) and case.json. A case is written to a temporary folder that is renamed when complete, so a
killed run leaves no half-written case. case.json holds a key made of the plan, the label scheme and the contents of
the input files; a case whose key differs is made again, so stale data are never used.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError, VoxelsegError
from voxelseg.files import TEMPORARY_PREFIX, read_json, sha256_of_file, sha256_of_json, write_json
from voxelseg.io import read_channels, read_label
from voxelseg.parallel import map_unordered
from voxelseg.plan.plan import Plan
from voxelseg.preprocess.case import preprocess_image, preprocess_label

FORMAT_VERSION = 1
"""Part of every key: raise it when the meaning of stored data changes."""
FOREGROUND_VOXELS_PER_CLASS = 10_000
CHUNK = 48
BLOCK = 16


@dataclass(frozen=True)
class StoredCase:
    """One preprocessed case; arrays are opened when first used and read patch by patch."""

    id: str
    folder: Path

    @cached_property
    def image(self) -> Any:
        """Memory-mapped array (C, D, H, W), float32; slicing reads."""
        return _open(self.folder / "image.b2nd")

    @cached_property
    def label(self) -> Any:
        """Memory-mapped array (D, H, W), int16; slicing reads."""
        return _open(self.folder / "label.b2nd")

    @cached_property
    def foreground(self) -> Mapping[str, npt.NDArray[np.int32]]:
        """Voxels (N, 3) of each class that occurs, at most 10,000 of each."""
        with np.load(self.folder / "foreground.npz") as file:
            return {name: file[name] for name in file.files}

    @property
    def input_sha256(self) -> list[str]:
        """SHA-256 of the files that the case was made from: its images, then its label map."""
        return [str(digest) for digest in read_json(self.folder / "case.json")["input_sha256"]]

    def __reduce__(self) -> tuple[Any, ...]:
        return (StoredCase, (self.id, self.folder))  # open arrays stay behind when a case goes to a worker


def _open(path: Path) -> Any:
    try:
        return blosc2.open(str(path), mode="r", mmap_mode="r")
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: damaged or missing ({error}). Delete its folder and run `voxelseg preprocess`."
        ) from error


def _write_array(path: Path, array: npt.NDArray[Any]) -> None:
    lead = (1,) * (array.ndim - 3)
    shape = array.shape[-3:]
    chunks = (*lead, *(min(CHUNK, size) for size in shape))
    blocks = (*lead, *(min(BLOCK, size) for size in shape))
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(path),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1},
        dparams={"nthreads": 1},
    )


def _input_state(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


@dataclass(frozen=True)
class _Job:
    case: Case
    folder: Path

    def __str__(self) -> str:
        return self.case.id


def _key(case: Case, plan: Plan, labels: LabelScheme, hashes: list[str]) -> str:
    return sha256_of_json(
        {
            "version": FORMAT_VERSION,
            "case": case.id,
            "plan": plan.preprocessing_key(),
            "labels": labels.to_dict(),
            "inputs": hashes,
        }
    )


def _inputs(case: Case) -> list[Path]:
    return [*case.images, *([case.label] if case.label else [])]


def is_current(case: Case, folder: Path, plan: Plan, labels: LabelScheme) -> bool:
    """Whether the stored case was made from these files with this plan.

    Files whose size and modification time are unchanged are not hashed again.
    """
    description = folder / "case.json"
    if not description.is_file():
        return False
    try:
        stored = read_json(description)
        states = [_input_state(path) for path in _inputs(case)]
        unchanged = stored["input_states"] == states
        hashes = stored["input_sha256"] if unchanged else [sha256_of_file(path) for path in _inputs(case)]
        return bool(stored["key"] == _key(case, plan, labels, hashes))
    except (DataError, KeyError, TypeError, OSError):
        return False


def _store_case(job: _Job, *, plan: Plan, labels: LabelScheme) -> None:
    blosc2.set_nthreads(1)
    case = job.case
    states = [_input_state(path) for path in _inputs(case)]
    hashes = [sha256_of_file(path) for path in _inputs(case)]
    try:
        image, placement = preprocess_image(read_channels(case.images), plan)
    except DataError as error:
        raise DataError(f"case {case.id}: {error}") from error
    assert case.label is not None
    reference = read_label(case.label)
    if reference.shape_dhw != placement.grid.shape_dhw:
        raise DataError(
            f"{case.label}: shape {reference.shape_dhw} against {placement.grid.shape_dhw} of its image (D, H, W). "
            "Resample the label map onto the image's grid, or run `voxelseg check` to see all such cases."
        )
    target = preprocess_label(reference, placement, labels)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=job.folder.parent))
    try:
        _write_array(temporary / "image.b2nd", image)
        _write_array(temporary / "label.b2nd", target)
        np.savez(temporary / "foreground.npz", **_foreground(target, labels))  # type: ignore[arg-type]
        write_json(
            temporary / "case.json",
            {
                "id": case.id,
                "key": _key(case, plan, labels, hashes),
                "inputs": [str(path) for path in _inputs(case)],
                "input_states": states,
                "input_sha256": hashes,
                "shape": list(target.shape),
            },
        )
        if job.folder.exists():
            shutil.rmtree(job.folder)
        temporary.chmod(0o755)
        temporary.rename(job.folder)
    except (OSError, RuntimeError) as error:
        raise VoxelsegError(
            f"{job.folder}: cannot be written ({error}). Check the free disk space and the write permission."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _foreground(target: npt.NDArray[np.int16], labels: LabelScheme) -> dict[str, npt.NDArray[np.int32]]:
    generator = np.random.default_rng(target.size)
    table = labels.region_table if labels.has_regions else None
    found = {}
    for index, name in enumerate(labels.names):
        mask = target == index + 1 if table is None else table[np.maximum(target, 0), index] & (target >= 0)
        voxels = np.flatnonzero(mask)
        if voxels.size > FOREGROUND_VOXELS_PER_CLASS:
            voxels = np.sort(generator.choice(voxels, FOREGROUND_VOXELS_PER_CLASS, replace=False))
        if voxels.size:
            found[name] = np.stack(np.unravel_index(voxels, target.shape), axis=1).astype(np.int32)
    return found


def store_dataset(
    dataset: Dataset,
    plan: Plan,
    store: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, StoredCase]:
    """Preprocess the training cases of `dataset` that `store` does not hold yet; returns all cases by id.

    `progress` is called with the number of cases that are ready. Raises DataError for a case that cannot be read or
    does not fit the plan, after the cases that were in work are finished.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VoxelsegError(f"{store}: cannot be made ({error.strerror}). Choose another folder.") from error
    for leftover in store.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    jobs = [
        _Job(case, store / case.id)
        for case in dataset.cases
        if not is_current(case, store / case.id, plan, dataset.labels)
    ]
    ready = len(dataset.cases) - len(jobs)
    if progress is not None:
        progress(ready)
    for _ in map_unordered(partial(_store_case, plan=plan, labels=dataset.labels), jobs, workers=workers):
        ready += 1
        if progress is not None:
            progress(ready)
    return {case.id: StoredCase(case.id, store / case.id) for case in dataset.cases}
