"""Weights of the authors' code for the networks here: the mathematics is the same, only the names differ."""

from collections.abc import Callable, Mapping

from torch import Tensor

from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets.network import Network
from voxelseg.nets.official import mednext

_RENAME: dict[str, Callable[[str], str | None]] = {"mednext": mednext.rename}


def convert(network: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the authors' code for `network` ("mednext"), under the names used here.

    A `module.` prefix from data-parallel training is removed, and MedNeXt's unused `dummy_tensor` left out.
    """
    if network not in _RENAME:
        raise ConfigError(f"no official weights are known for {network!r}. Known: {', '.join(_RENAME)}.")
    rename = _RENAME[network]
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
