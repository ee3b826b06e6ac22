"""The store: preprocessed cases on disk, chunked for fast reads of random patches.

A store's <case>/ holds image.b2nd (C, D, H, W float32), label.b2nd (D, H, W int16), foreground.npz (voxels that patches
are drawn around) and case.json; without labels, image.b2nd and case.json only. A case is written to a temporary folder
that is renamed when complete, so a killed run leaves no half-written case. case.json holds a key made of the plan, the
label scheme and the contents of the input files; a case whose key differs is made again, so stale data are never used.
One process at a time fills a store.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelScheme
from voxelseg.errors import DataError
from voxelseg.files import (
    TEMPORARY_PREFIX,
    locked,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_error,
    write_json,
)
from voxelseg.geometry import Shape
from voxelseg.io import files_of, read_channels, read_label
from voxelseg.parallel import attempt, map_unordered, raise_together
from voxelseg.plan.fingerprint import check_label_map
from voxelseg.plan.plan import Plan
from voxelseg.preprocess.case import preprocess_image, preprocess_label

FORMAT_VERSION = 4
"""Part of every key: raise it when the meaning of stored data changes."""
VOXELS_PER_CLASS = 10_000
"""Voxels of each class, of all classes together and of the background that are kept for sampling."""
CHUNK = 48
BLOCK = 16
"""A read decompresses the blocks that it touches: 1.5 ms for 64 x 64 x 64 voxels of 128 x 128 x 128 on one core."""

Image = npt.NDArray[np.float32]
Target = npt.NDArray[np.int16]

_IMAGE, _LABEL, _FOREGROUND, _DESCRIPTION = "image.b2nd", "label.b2nd", "foreground.npz", "case.json"
_LABELLED, _ANY_CLASS, _BACKGROUND, _BRIGHTNESS = "labelled", "any_class", "background", "background_brightness"
_REMEDY = "Delete its folder and run the same command again."


@dataclass(frozen=True)
class StoredArray:
    """An array on disk; slicing it reads the voxels that are asked for, and nothing stays open in between."""

    path: Path

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(self._open().shape)

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        array = self._open()
        try:
            values: npt.NDArray[Any] = array[part]
        except RuntimeError as error:
            raise DataError(f"{self.path}: damaged ({error}). {_REMEDY}") from error
        return values

    def _open(self) -> Any:
        try:
            return blosc2.open(str(self.path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{self.path}: damaged or missing ({error}). {_REMEDY}") from error


@dataclass(frozen=True)
class StoredCase:
    """One preprocessed case, read patch by patch."""

    id: str
    folder: Path

    @cached_property
    def image(self) -> StoredArray:
        """Array (C, D, H, W), float32."""
        return StoredArray(self.folder / _IMAGE)

    @cached_property
    def label(self) -> StoredArray:
        """Training target (D, H, W), int16; see `LabelScheme.encode`. Not there without labels."""
        return StoredArray(self.folder / _LABEL)

    @cached_property
    def shape(self) -> Shape:
        """Size along D, H, W."""
        d, h, w = self._described["shape"]
        return (d, h, w)

    @cached_property
    def key(self) -> str:
        """Tells apart what was made of other contents, by another plan or for other labels."""
        return str(self._described["key"])

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Positions in the label scheme of the classes that occur."""
        return tuple(self._described["classes"])

    @cached_property
    def partly_labelled(self) -> bool:
        """Whether some voxels have the ignore label."""
        return bool(self._described["partly_labelled"])

    def voxels_of_class(self, position: int) -> npt.NDArray[np.int32]:
        """Voxels (N, 3) of the class at `position` in the label scheme, drawn evenly, at most 10,000."""
        return self._voxels(str(position))

    def foreground_voxels(self) -> npt.NDArray[np.int32]:
        """Voxels (N, 3) of all classes together, drawn evenly, at most 10,000; none if no class occurs."""
        return self._voxels(_ANY_CLASS)

    def background_voxels(self, *, above: float | None = None) -> npt.NDArray[np.int32]:
        """Voxels (N, 3) of the background, drawn evenly from at most 10,000; with `above`, the brighter ones of these.

        Brightness is that of the preprocessed image's brightest channel.
        """
        voxels = self._voxels(_BACKGROUND)
        return voxels if above is None else voxels[self._voxels(_BRIGHTNESS) > above]

    def labelled_voxels(self) -> npt.NDArray[np.int32]:
        """Voxels (N, 3) of a partly labelled case that do not have the ignore label, drawn evenly, at most 10,000."""
        return self._voxels(_LABELLED)

    def _voxels(self, name: str) -> npt.NDArray[Any]:
        path = self.folder / _FOREGROUND
        try:
            with np.load(path) as file:
                voxels: npt.NDArray[Any] = file[name]
        except Exception as error:  # NumPy and zipfile meet damage with many kinds of exception
            raise DataError(f"{path}: damaged or missing ({error}). {_REMEDY}") from error
        return voxels

    @cached_property
    def _described(self) -> dict[str, Any]:
        described = _description(self.folder)
        if described is None:
            raise DataError(f"{self.folder}: damaged or missing. {_REMEDY}")
        return described


def store_dataset(
    dataset: Dataset,
    plan: Plan,
    store: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict[str, StoredCase]:
    """Preprocess the cases of `dataset`, with their labels if it has any, that `store` lacks; returns all by id.

    The number of workers changes nothing. `progress` is called with the number of cases that are ready. Cases that
    cannot be read or do not fit the plan do not stop the others; a DataError lists them all at the end. VoxelsegError
    if the store cannot be written.
    """
    with locked(store, wait=True):
        return _store_missing(dataset, plan, store, workers=workers, progress=progress)


def _store_missing(
    dataset: Dataset, plan: Plan, store: Path, *, workers: int, progress: Callable[[int], None] | None
) -> dict[str, StoredCase]:
    open_cases = [case for case in dataset.cases if not _is_untouched(case, store / case.id, plan, dataset.labels)]
    ready = len(dataset.cases) - len(open_cases)
    errors: list[DataError] = []
    if progress is not None:
        progress(ready)
    ensure = partial(attempt, partial(_ensure_stored, store=store, plan=plan, labels=dataset.labels))
    for _, error in map_unordered(ensure, open_cases, workers=workers, name=lambda case: f"case {case.id}"):
        if error is not None:
            errors.append(error)
            continue
        ready += 1
        if progress is not None:
            progress(ready)
    raise_together(errors, total=len(dataset.cases), verb="preprocessed")
    return {case.id: StoredCase(case.id, store / case.id) for case in dataset.cases}


def _ensure_stored(case: Case, *, store: Path, plan: Plan, labels: LabelScheme) -> None:
    """Make the stored case, unless it was made from the same contents by the same plan."""
    folder = store / case.id
    states = input_states(case)
    hashes = [sha256_of_file(path) for path in _inputs(case)]
    description = {
        "id": case.id,
        "key": _key(case, plan, labels, hashes),
        "inputs": [{**state, "sha256": digest} for state, digest in zip(states, hashes, strict=True)],
    }
    stored = _description(folder)
    if stored is not None and stored["key"] == description["key"]:
        write_json(folder / _DESCRIPTION, {**stored, **description})  # next time the new states spare the hashing
        return
    image, target = _preprocessed(case, plan, labels)
    try:
        _write_case(folder, image, target, description, labels)
    except (OSError, RuntimeError) as error:  # blosc2 raises RuntimeError when the disk is full
        raise write_error(folder, error) from error


def _is_untouched(case: Case, folder: Path, plan: Plan, labels: LabelScheme) -> bool:
    """Whether the stored case is current, told from sizes and modification times without reading the inputs."""
    stored = _description(folder)
    if stored is None:
        return False
    known = [{key: one[key] for key in ("path", "size", "mtime_ns")} for one in stored["inputs"]]
    hashes = [one["sha256"] for one in stored["inputs"]]
    return known == input_states(case) and stored["key"] == _key(case, plan, labels, hashes)


def _description(folder: Path) -> dict[str, Any] | None:
    """What case.json says, or None if the stored case is not there, not complete or damaged."""
    try:
        stored: dict[str, Any] = read_json(folder / _DESCRIPTION)
        complete = all((folder / name).stat().st_size == size for name, size in stored["files"].items())
        usable = {"key", "inputs", "shape", "classes", "partly_labelled"} <= stored.keys() and all(
            {"path", "size", "mtime_ns", "sha256"} == one.keys() for one in stored["inputs"]
        )
    except (DataError, OSError, AttributeError, KeyError, TypeError):
        return None
    return stored if complete and usable else None


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
    """All files that the case is read from: images, then label map, each followed by its detached data if any."""
    return [file for path in (*case.images, case.label) if path is not None for file in files_of(path)]


def input_states(case: Case) -> list[dict[str, Any]]:
    """Path, size in bytes and time in ns of each file that the case is read from; DataError if one is gone."""
    states = []
    for path in _inputs(case):
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Restore the file.") from error
        states.append({"path": str(path.absolute()), "size": found.st_size, "mtime_ns": found.st_mtime_ns})
    return states


def _preprocessed(case: Case, plan: Plan, labels: LabelScheme) -> tuple[Image, Target | None]:
    """Image, and target if there are labels."""
    try:
        image, placement = preprocess_image(read_channels(case.images), plan)
    except DataError as error:
        raise DataError(f"case {case.id}: {error}") from error
    if not labels.classes:
        return image, None
    if case.label is None:
        raise DataError(f"case {case.id}: has no label map, expected one for each training case. Add it.")
    reference = read_label(case.label)
    check_label_map(reference, placement.grid, labels, case.label)
    return image, preprocess_label(reference, placement, labels, order=plan.label_order)


def _write_case(
    folder: Path, image: Image, target: Target | None, description: dict[str, Any], labels: LabelScheme
) -> None:
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder.parent) as scratch:
        made = Path(scratch) / "case"
        made.mkdir()
        _write_array(made / _IMAGE, image)
        drawn: dict[str, npt.NDArray[Any]] = {}
        if target is not None:
            _write_array(made / _LABEL, target)
            drawn = _sampling_voxels(image, target, labels)
            np.savez(made / _FOREGROUND, **drawn)  # type: ignore[arg-type]
        sizes = {}
        for path in sorted(made.iterdir()):
            with path.open("rb") as written:
                os.fsync(written.fileno())
            sizes[path.name] = path.stat().st_size
        contents = {
            "shape": image.shape[1:],
            "classes": [int(name) for name in drawn if name.isdecimal()],
            "partly_labelled": _LABELLED in drawn,
            "files": sizes,
        }
        write_json(made / _DESCRIPTION, {**description, **contents})
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")  # deleted with the scratch folder: never half a case in place
        made.rename(folder)


def _write_array(path: Path, array: npt.NDArray[Any]) -> None:
    lead = (1,) * (array.ndim - 3)
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(path),
        mode="w",
        chunks=(*lead, *(min(CHUNK, size) for size in array.shape[-3:])),
        blocks=(*lead, *(min(BLOCK, size) for size in array.shape[-3:])),
        cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1},
        dparams={"nthreads": 1},
    )


def _sampling_voxels(image: Image, target: Target, labels: LabelScheme) -> dict[str, npt.NDArray[Any]]:
    """Entries of foreground.npz.

    Voxels by the class's position, of any class, of the background with its brightness, and the labelled ones if some
    are to be ignored.
    """
    generator = np.random.default_rng(target.size)
    found: dict[str, npt.NDArray[Any]] = {}
    for position in range(len(labels.classes)):
        voxels = _drawn(_mask(target, labels, position), generator)
        if voxels.size:
            found[str(position)] = voxels
    known = target >= 0
    if known.any() and not known.all():
        found[_LABELLED] = _drawn(known, generator)
    found[_ANY_CLASS] = _drawn(target > 0, generator)
    found[_BACKGROUND] = _drawn(target == 0, generator)
    found[_BRIGHTNESS] = image[(slice(None), *found[_BACKGROUND].T)].max(axis=0)
    return found


def _mask(target: Target, labels: LabelScheme, position: int) -> npt.NDArray[np.bool_]:
    if labels.has_regions:
        return np.isin(target, np.flatnonzero(labels.region_table[:, position]))
    mask: npt.NDArray[np.bool_] = target == position + 1
    return mask


def _drawn(mask: npt.NDArray[np.bool_], generator: np.random.Generator) -> npt.NDArray[np.int32]:
    """Voxels (N, 3) of `mask` in order: all, or as many as are kept."""
    ends = np.cumsum(np.count_nonzero(mask.reshape(len(mask), -1), axis=1))
    wanted = np.arange(ends[-1])
    if wanted.size > VOXELS_PER_CLASS:
        wanted = np.sort(generator.choice(wanted.size, VOXELS_PER_CLASS, replace=False))
    found = []
    # Slice by slice: the positions of a whole scan's background take eight times its voxels.
    for index, (plane, start, end) in enumerate(zip(mask, [0, *ends[:-1]], ends, strict=True)):
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)] - start
        if here.size:
            rows, columns = np.unravel_index(np.flatnonzero(plane)[here], plane.shape)
            found.append(np.stack([np.full(here.size, index), rows, columns], axis=1))
    return np.concatenate(found or [np.empty((0, 3))]).astype(np.int32)
