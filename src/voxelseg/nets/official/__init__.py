"""Weights of the authors' code for the networks here: the mathematics is the same, only the names differ."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from voxelseg.errors import CheckpointError, ConfigError, did_you_mean, memory_ran_out
from voxelseg.nets.network import Network
from voxelseg.nets.official import e2enet, logonet, mednext, uxnet

_RENAME: dict[str, Callable[[str], str | None]] = {
    "mednext": mednext.rename,
    "uxnet": uxnet.rename,
    "e2enet": e2enet.rename,
    "ulkanet": logonet.rename_ulkanet,
    "logonet": logonet.rename_logonet,
}
"""Our name for one of theirs; None if it takes no part in the mathematics; CheckpointError if the network has no such
name. No two of their names become one of ours."""

_COMPLETE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "mednext": mednext.complete,
    "e2enet": e2enet.complete,
}
"""The renamed state dict with what ours holds and theirs does not, as masks; most networks need nothing."""

_HEADS: dict[str, tuple[str, ...]] = {
    "ulkanet": logonet.ULKANET_HEADS,
    "logonet": logonet.LOGONET_HEADS,
}
"""How our names of the layers begin that depend on the number of classes, where it is not `heads.` alone."""

_RELEASED: dict[str, dict[str, Any]] = {
    "e2enet": {"shift": (-2, -1, 0, 1, 2)},
    "ulkanet": {"residual": "released"},
    "logonet": {"residual": "released"},
}
"""Options without weights that the authors' code has and our defaults, which follow the papers, have not."""

_INNER_DICTS = ("state_dict", "network_weights", "model_state_dict")
"""Where whole checkpoints keep the weights: nnU-Net v1 and LoGoNet's authors, nnU-Net v2, others."""

_PREFIXES = ("module.", "_orig_mod.")
"""Data-parallel training and torch.compile put these before every name."""

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every tensor when official weights were loaded; all names but `left_out` are ours."""

    matched: tuple[str, ...]
    """Loaded."""
    left_out: tuple[str, ...]
    """In the file only: heads that the model was built without, and tensors without a part in the mathematics, these
    under their official names."""
    missing: tuple[str, ...]
    """Heads that the file lacks; the model's own values stay."""
    mismatched: tuple[str, ...]
    """Heads for another number of classes; the model's own values stay."""
    differing: tuple[str, ...] = ()
    """Options without weights in which the model is not the network that the authors trained."""

    def __str__(self) -> str:
        """A line per kind of outcome that occurred."""
        lines = [f"{len(self.matched)} tensors loaded."]
        for names, outcome in (
            (self.left_out, "left out, since this model has no use for them"),
            (self.missing, "not in the file: they keep their fresh weights"),
            (self.mismatched, "for another number of classes: they keep their fresh weights"),
        ):
            if names:
                lines.append(f"{len(names)} {outcome}: {_some(names)}.")
        if self.differing:
            lines.append(f"The authors' code computes something else: it has {' and '.join(self.differing)}.")
        if self.missing or self.mismatched:
            lines.append("Train the model before it predicts.")
        return "\n".join(lines)


def convert(kind: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of the authors' code for the network `kind`, under the names used here.

    `state_dict` may also be a whole checkpoint that holds one. Prefixes from data-parallel training and compilation are
    removed, and tensors without a part in the mathematics left out. ConfigError for an unknown kind; CheckpointError,
    with the names, if some are not of this network.
    """
    return _renamed(kind, state_dict)[0]


def official_kind(model: str) -> str | None:
    """The kind of official weights that fits the network that `create_model` knows as `model`; None: there is none."""
    return next((kind for kind in _RENAME if model == kind or model.startswith(f"{kind}_")), None)


def differing_options(model: Network, kind: str) -> list[str]:
    """Options without weights, as "shift = (0,)", that the authors' code has and `model` has not."""
    config: Any = model.config
    return [f"{name} = {value!r}" for name, value in _RELEASED.get(kind, {}).items() if getattr(config, name) != value]


def load_official(model: Network, kind: str, state_dict: Mapping[str, Any]) -> LoadReport:
    """Load weights of the authors' code into `model`; returns what became of each tensor.

    Takes what `convert` takes. Heads may be missing, surplus or for another number of classes: the model then keeps its
    own. Everything else must match, or CheckpointError says what does not and nothing is loaded.
    """
    weights, unused = _renamed(kind, state_dict)
    own = model.state_dict()
    heads = _HEADS.get(kind, ("heads.",))
    unfit = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    absent = [key for key in own if key not in weights]
    surplus = [key for key in weights if key not in own]
    problems = [f"missing {key}" for key in absent if not key.startswith(heads)]
    problems += [f"unknown {key}" for key in surplus if not key.startswith(heads)]
    problems += [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(own[key].shape)}"
        for key in unfit
        if not key.startswith(heads)
    ]
    if problems:
        raise CheckpointError(
            f"the official weights do not fit this {type(model).__name__}: {_some(problems, '; ')}. "
            "Build the model with the size, kernel, options and input channels of the checkpoint."
        )
    matched = {key: weights[key] for key in own if key in weights and key not in unfit}
    model.load_state_dict({**own, **matched})
    return LoadReport(
        matched=tuple(matched),
        left_out=(*surplus, *unused),
        missing=tuple(absent),
        mismatched=tuple(unfit),
        differing=tuple(differing_options(model, kind)),
    )


def read_official(path: Path) -> dict[str, Tensor]:
    """State dict in a file of the authors' code: a pickle of PyTorch (.pth, .pt, .model, ...) or safetensors.

    Whole checkpoints are taken too. Nothing in the file is run: it may hold tensors, numbers, strings, lists and dicts,
    with NumPy's numbers and arrays, and CheckpointError is raised for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Name the file that holds the official weights.")
    try:
        content: object = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds Python objects other than tensors and numbers, or is damaged ({_reason(error)}). If you "
            'trust it, write the weights alone, where its own code is installed: torch.save(torch.load("file", '
            'weights_only=False)["state_dict"], "weights.pth").'
        ) from error
    except Exception as error:  # torch.load meets damage with many kinds of exception
        if memory_ran_out(error):
            raise
        raise CheckpointError(
            f"{path}: damaged or not a file of weights ({_reason(error)}). Fetch it again."
        ) from error
    return _state_dict_in(content, where=str(path))


def _renamed(kind: str, state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under our names, and the official names of those that take no part."""
    if kind not in _RENAME:
        raise ConfigError(
            f"no official weights are known for {kind!r}{did_you_mean(kind, _RENAME)}. Known: {', '.join(_RENAME)}."
        )
    weights: dict[str, Tensor] = {}
    unused: list[str] = []
    unknown: list[str] = []
    for prefixed, value in _state_dict_in(state_dict, where="the official weights").items():
        key = _without_prefix(prefixed)
        try:
            name = _RENAME[kind](key)
        except CheckpointError:
            unknown.append(key)
            continue
        if name is None:
            unused.append(key)
        elif name in weights:
            raise CheckpointError(f"two tensors of the official weights are {name} here. The file is not of {kind!r}.")
        else:
            weights[name] = value
    if unknown:
        raise CheckpointError(
            f"not a parameter of the official {kind}: {_some(unknown)}. Check which network the file is of."
        )
    return (_COMPLETE[kind](weights) if kind in _COMPLETE else weights), unused


def _state_dict_in(content: object, *, where: str) -> dict[str, Tensor]:
    """Name -> tensor, from a state dict or from a checkpoint that holds one."""
    if isinstance(content, Mapping):
        for key in _INNER_DICTS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or any(not isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{where}: no state dict, which has a tensor for every name, alone or under {' or '.join(_INNER_DICTS)}. "
            "Save the network's state_dict()."
        )
    return {str(key): value for key, value in content.items()}


def _load_pickle(path: Path) -> object:
    with torch.serialization.safe_globals(_harmless_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def _without_prefix(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _harmless_globals() -> list[Any]:
    """What pickles of NumPy's numbers and arrays call, which NumPy 2 renamed: nnU-Net v1 keeps its curves in them."""
    makers: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]
    named = [(maker, f"numpy.{core}.multiarray.{maker.__name__}") for maker in makers for core in ("core", "_core")]
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd")]


def _some(names: Iterable[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return separator.join(listed[:_SHOWN]) + more


def _reason(error: BaseException) -> str:
    """The telling line of an error: PyTorch wraps that of its unpickler into advice, and a bare key says nothing."""
    lines = [] if isinstance(error, LookupError) else str(error).strip().splitlines()
    return next((line.strip() for line in lines if "Unsupported" in line), (*lines, type(error).__name__)[0])
