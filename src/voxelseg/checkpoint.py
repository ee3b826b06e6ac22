"""A trained model in one file: weights, network, plan, labels and provenance; nothing in it can run code.

What a pre-training leaves is such a file, too, but with a part of the weights and without labels.

The file is safetensors. Its metadata carry, under "voxelseg", one JSON text with all that prediction needs, and under
"sha256" the hash of that text and the weights, so that a damaged file is told from a good one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.files import atomic_path, write_error
from voxelseg.nets import Network, create_model
from voxelseg.nets.kernel_masks import restore_masks
from voxelseg.nets.parts import PARTS, Part
from voxelseg.plan.plan import Plan, parse_plan

MODEL_FILE = "model.safetensors"
"""Name of a model's file in the folder of its fold: the weights at the end of the training."""
BEST_FILE = "best.safetensors"
"""Name of the file beside it with the weights of the best running validation."""
FORMAT_VERSION = 2
"""Of files with `pretraining`; all others are as they were in version 1, and say so."""
_HEADER = "voxelseg"
_CHECKSUM = "sha256"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a model file holds."""

    weights: Mapping[str, torch.Tensor]
    """On the CPU."""
    model: str
    """Name that `create_model` knows."""
    model_options: Mapping[str, Any]
    """Complete options of the network, without channels and classes."""
    plan: Plan
    labels: LabelScheme
    """Without classes, as `NO_LABELS`, in what a pre-training leaves."""
    file_ending: str
    """Suffix of the data set's files."""
    provenance: Mapping[str, Any]
    """Versions, seed, configuration, data checksums, training time: for people, and defaults of prediction."""
    postprocessing: Mapping[str, Any] | None = None
    """What is kept of its label maps, chosen after a cross-validation; None: nothing was chosen."""
    pretraining: Mapping[str, Any] | None = None
    """How the weights were pre-trained without labels: "method", "settings", "num_classes" that the network was built
    with, "trained", a `Part` of it, to which `weights` are confined; and more for people. None: a trained model."""
    path: Path | None = None
    """File that it was read from."""

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the network's output: tells two models apart, whatever is removed from it."""
        decisive = self._header()
        for key in ("provenance", "postprocessing", "pretraining"):
            decisive.pop(key, None)
        return _hash(json.dumps(decisive, sort_keys=True), self.weights)

    @property
    def pretrained_part(self) -> Part | None:
        """What of the network was pre-trained; None for a trained model."""
        part: Part | None = None if self.pretraining is None else self.pretraining["trained"]
        return part

    def _header(self) -> dict[str, Any]:
        header = {
            "format": 1 if self.pretraining is None else FORMAT_VERSION,
            "model": self.model,
            "model_options": dict(self.model_options),
            "plan": self.plan.model_dump(mode="json"),
            "labels": self.labels.to_dict(),
            "file_ending": self.file_ending,
            "provenance": dict(self.provenance),
            "postprocessing": None if self.postprocessing is None else dict(self.postprocessing),
        }
        return header if self.pretraining is None else {**header, "pretraining": dict(self.pretraining)}

    def check_trained(self) -> None:
        """CheckpointError for what a pre-training left: it tells no classes apart."""
        if self.pretraining is not None:
            where = self.path or "model"
            raise CheckpointError(
                f"{where}: is pre-trained only, by {self.pretraining['method']}, and tells no classes apart. Train it "
                f"on labelled scans first: voxelseg train DATA --out RUN --model {self.model} --init {where}."
            )

    def build(self) -> Network:
        """The network with its weights, in evaluation mode, returning the full-resolution output only.

        Raises CheckpointError if this version has no such network, the weights are of another one, or it is pre-trained
        only.
        """
        self.check_trained()
        where = self.path or "model"
        try:
            model = create_model(
                self.model,
                in_channels=len(self.plan.channels),
                num_classes=self.labels.num_outputs,
                **self.model_options,
            )
            restore_masks(model, self.weights)
            model.load_state_dict(dict(self.weights), strict=True)
        except ConfigError as error:
            raise CheckpointError(f"{where}: this voxelseg cannot build its network: {error}") from error
        except RuntimeError as error:
            first = str(error).strip().splitlines()[1:2]
            raise CheckpointError(
                f"{where}: the weights are not those of a {self.model} with these options ({''.join(first).strip()}). "
                "Name the file that training wrote."
            ) from error
        model.deep_supervision = False
        return model.eval()


def _hash(header: str, weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically; VoxelsegError if that fails."""
    # Tensors may share memory, which safetensors does not store twice.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.weights.items()}
    header = json.dumps(checkpoint._header())
    with atomic_path(path) as temporary:
        try:
            save_file(weights, temporary, metadata={_HEADER: header, _CHECKSUM: _hash(header, weights)})
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise write_error(path, error) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Checkpoint from its file; CheckpointError if it is missing, truncated, damaged or not voxelseg's."""
    path = Path(path)
    remedy = "Restore it from a copy, or delete it and train again."
    if not path.is_file():
        raise CheckpointError(f"{path}: no such model file. Train a model first, or name another run or fold.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a model file ({error}). {remedy}") from error
    if _HEADER not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a voxelseg model. Name a model.safetensors of a run."
        )
    try:
        header = json.loads(metadata[_HEADER])
        if header["format"] > FORMAT_VERSION:
            raise CheckpointError(f"{path}: written by a newer voxelseg (format {header['format']}). Update voxelseg.")
        if metadata.get(_CHECKSUM) != _hash(metadata[_HEADER], weights):
            raise CheckpointError(f"{path}: does not match its checksum, the file is damaged. {remedy}")
        pretraining, labels = _pretraining(header.get("pretraining")), LabelScheme.from_dict(header["labels"])
        if pretraining is None and not labels.classes:
            raise DataError("there are no classes")
        return Checkpoint(
            weights=weights,
            model=header["model"],
            model_options=header["model_options"],
            plan=parse_plan(header["plan"], source=str(path)),
            labels=labels,
            file_ending=header["file_ending"],
            provenance=header["provenance"],
            postprocessing=header.get("postprocessing"),
            pretraining=pretraining,
            path=path,
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError, ConfigError, DataError) as error:
        raise CheckpointError(f"{path}: the header is damaged ({error}). {remedy}") from error


def _pretraining(value: Any) -> dict[str, Any] | None:
    """What a header says of a pre-training; ConfigError unless all that is needed is there."""
    if value is None:
        return None
    needed = ("method", "num_classes", "trained")
    if not isinstance(value, dict) or any(key not in value for key in needed) or value["trained"] not in PARTS:
        raise ConfigError(f"of the pre-training it needs {', '.join(needed)}, the last one of {', '.join(PARTS)}")
    return value


def store_postprocessing(path: Path, postprocessing: Mapping[str, Any] | None) -> None:
    """Let the model file at `path` say what is kept of its label maps; a file that says so already stays as it is.

    CheckpointError if it cannot be read, VoxelsegError if it cannot be written; it is then as it was.
    """
    found = load_checkpoint(path)
    if found.postprocessing != postprocessing:
        save_checkpoint(path, replace(found, postprocessing=postprocessing))
