"""A trained model in one file: weights, network, plan, labels and provenance; nothing in it can run code.

The file is safetensors; its header carries one JSON text under "voxelseg" with all that prediction needs, and a hash of
the weights, so that a damaged file is told from a good one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxelseg.data.labels import LabelScheme
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.files import atomic_path
from voxelseg.nets import Network, create_model
from voxelseg.plan.plan import Plan, parse_plan

FORMAT_VERSION = 1
_HEADER = "voxelseg"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a model file holds."""

    weights: Mapping[str, torch.Tensor]
    model: str
    """Name that `create_model` knows."""
    model_options: Mapping[str, Any]
    """Complete options of the network, without channels and classes."""
    plan: Plan
    labels: LabelScheme
    file_ending: str
    """Suffix of the data set's files."""
    provenance: Mapping[str, Any]
    """Versions, seed, configuration, data checksums, training time: for people."""

    def fingerprint(self) -> str:
        """SHA-256 of the weights: tells two models apart."""
        return _hash(self.weights)

    def build(self) -> Network:
        """The network with its weights, in evaluation mode, returning the full-resolution output only."""
        model = create_model(
            self.model,
            in_channels=len(self.plan.channels),
            num_classes=self.labels.num_outputs,
            **self.model_options,
        )
        try:
            model.load_state_dict(dict(self.weights), strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not belong to this {self.model}: {error}") from error
        model.deep_supervision = False
        return model.eval()


def _hash(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically."""
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.weights.items()}
    header = {
        "format": FORMAT_VERSION,
        "model": checkpoint.model,
        "model_options": dict(checkpoint.model_options),
        "plan": checkpoint.plan.model_dump(),
        "labels": checkpoint.labels.to_dict(),
        "file_ending": checkpoint.file_ending,
        "provenance": dict(checkpoint.provenance),
        "weights_sha256": _hash(weights),
    }
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata={_HEADER: json.dumps(header)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Checkpoint from its file; CheckpointError if it is missing, truncated, damaged or not voxelseg's."""
    path = Path(path)
    remedy = "Restore it from a copy, or train again."
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
        if header["weights_sha256"] != _hash(weights):
            raise CheckpointError(f"{path}: the weights do not match their checksum, the file is damaged. {remedy}")
        return Checkpoint(
            weights=weights,
            model=header["model"],
            model_options=header["model_options"],
            plan=parse_plan(header["plan"], source=str(path)),
            labels=LabelScheme.from_dict(header["labels"]),
            file_ending=header["file_ending"],
            provenance=header["provenance"],
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError, ConfigError) as error:
        raise CheckpointError(f"{path}: the header is damaged ({error}). {remedy}") from error
