"""One file for each clusterer: safetensors, with what it is as JSON and a checksum among its metadata."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from voxelseg.files import atomic_path, write_error
from voxelseg.pretrain.clusters.slices import SliceSource

_HEADER, _CHECKSUM = "voxelseg_clusterer", "sha256"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Clusterer:
    """One clusterer of slices."""

    index: int
    seed: int
    """Of scikit-learn."""
    slice_axis: int
    """Axis of the crops across which its slices follow one another."""
    centres: npt.NDArray[np.float32]
    """Of its clusters, (k, T)."""
    counts: npt.NDArray[np.int64]
    """Slices (k,) of its fit in each cluster."""


def clusterer_path(folder: Path, index: int) -> Path:
    """File of clusterer `index`, which counts from 0."""
    return folder / f"clusterer_{index:04d}.safetensors"


def write_clusterer(folder: Path, clusterer: Clusterer) -> None:
    """Write the clusterer to its file atomically; VoxelsegError if that fails."""
    path = clusterer_path(folder, clusterer.index)
    tensors: dict[str, npt.NDArray[Any]] = {
        "centres": np.ascontiguousarray(clusterer.centres),
        "counts": clusterer.counts,
    }
    header = json.dumps(
        {"index": clusterer.index, "seed": clusterer.seed, "slice_axis": clusterer.slice_axis, **_library()}
    )
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_HEADER: header, _CHECKSUM: _hash(header, tensors)})
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise write_error(path, error) from error


def read_clusterer(folder: Path, index: int, source: SliceSource) -> Clusterer | None:
    """The clusterer from its file; None, with a warning unless there is no file, if it is damaged or does not fit.

    It fits if it was made of slices along the axis, and of the size, that `source` has.
    """
    path = clusterer_path(folder, index)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("centres", "counts")}
        header: dict[str, Any] = json.loads(metadata[_HEADER])
        intact = metadata[_CHECKSUM] == _hash(metadata[_HEADER], tensors)
        fits = (header["index"], header["slice_axis"]) == (index, source.slice_axis)
        fits = fits and tensors["centres"].shape == (len(tensors["counts"]), source.values_per_slice)
        found = Clusterer(index=index, seed=header["seed"], slice_axis=header["slice_axis"], **tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s: damaged (%s); the clusterer is fitted again.", path, error)
        return None
    if not (intact and fits):
        reason = "belongs to other slices" if intact else "does not match its checksum"
        _log.warning("%s: %s; the clusterer is fitted again.", path, reason)
        return None
    return found


def _library() -> dict[str, str]:
    from sklearn import __version__  # only who writes has fitted, and needs it

    return {"scikit_learn": __version__}


def _hash(header: str, tensors: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
