"""Weights of the authors' code for the networks here: the mathematics is the same, only the names differ."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets.network import Network

_MEDNEXT_STAGES = {
    r"stem": "stem",
    r"enc_block_(\d)": r"encoder.\1",
    r"bottleneck": "encoder.4",
    r"down_(\d)": r"down.\1",
    r"up_(\d)": r"up.\1",
    r"dec_block_(\d)": r"decoder.\1",
    r"out_(\d)\.conv_out": r"heads.\1",
}
_MEDNEXT_LAYERS = {
    "conv1": "depthwise",
    "conv2": "expand",
    "conv3": "compress",
    "res_conv": "residual",
    "grn_gamma": "grn_weight",
    "grn_beta": "grn_bias",
}


def _mednext_key(key: str) -> str | None:
    """Our name for a MedNeXt parameter; None for `dummy_tensor`, which takes no part in the mathematics."""
    if key == "dummy_tensor":
        return None
    for pattern, replacement in _MEDNEXT_STAGES.items():
        match = re.match(rf"{pattern}\.", key)
        if match:
            stage, rest = match.expand(replacement), key[match.end() :].split(".")
            return ".".join([stage, *(_MEDNEXT_LAYERS.get(part, part) for part in rest)])
    raise CheckpointError(f"{key!r} is not a parameter of the official MedNeXt. Check which network the file is of.")


_KEYS: dict[str, Callable[[str], str | None]] = {"mednext": _mednext_key}


def convert(network: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the authors' code for `network` ("mednext"), under the names used here.

    A `module.` prefix from data-parallel training is removed, and MedNeXt's unused `dummy_tensor` left out.
    """
    if network not in _KEYS:
        raise ConfigError(f"no official weights are known for {network!r}. Known: {', '.join(_KEYS)}.")
    rename = _KEYS[network]
    renamed = ((rename(key.removeprefix("module.")), value) for key, value in state_dict.items())
    return {key: value for key, value in renamed if key is not None}


def load_official(model: Network, network: str, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights of the authors' code into `model`, all of them or none.

    Deep-supervision heads that the model was built without are left out; CheckpointError for any other difference.
    """
    converted = convert(network, state_dict)
    own = model.state_dict()
    extra_heads = [key for key in converted if key.startswith("heads.") and key not in own]
    weights = {key: value for key, value in converted.items() if key not in extra_heads}
    problems = [f"missing {key}" for key in own if key not in weights]
    problems += [f"unknown {key}" for key in weights if key not in own]
    problems += [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if problems:
        raise CheckpointError(
            f"the official weights do not fit this {type(model).__name__}: {'; '.join(problems[:5])}"
            f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}. "
            "Build the model with the size, kernel, channels, classes and deep supervision of the checkpoint."
        )
    model.load_state_dict(weights)
