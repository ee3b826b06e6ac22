"""Names of MedNeXt's weights in the authors' code (github.com/MIC-DKFZ/MedNeXt), and the two that it forgets."""

import re

from torch import Tensor

from voxelseg.errors import CheckpointError

_STAGES = {
    r"enc_block_([0-3])\.(\d+)": r"encoder.\1.\2",
    r"bottleneck\.(\d+)": r"encoder.4.\1",
    r"down_([0-3])": r"down.\1",
    r"up_([0-3])": r"up.\1",
    r"dec_block_([0-3])\.(\d+)": r"decoder.\1.\2",
}
_LAYERS = {"conv1": "depthwise", "norm": "norm", "conv2": "expand", "conv3": "compress", "res_conv": "residual"}
_OF_A_BLOCK = {
    **{f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in _LAYERS.items() for part in ("weight", "bias")},
    "grn_gamma": "grn_weight",
    "grn_beta": "grn_bias",
}


def rename(key: str) -> str | None:
    """Our name for a parameter; None for `dummy_tensor`, which takes no part in the mathematics."""
    if key == "dummy_tensor":
        return None
    if key in ("stem.weight", "stem.bias"):
        return key
    if match := re.fullmatch(r"out_([0-4])\.conv_out\.(weight|bias)", key):
        return match.expand(r"heads.\1.\2")
    for pattern, stage in _STAGES.items():
        match = re.match(rf"{pattern}\.", key)
        if match and key[match.end() :] in _OF_A_BLOCK:
            return f"{match.expand(stage)}.{_OF_A_BLOCK[key[match.end() :]]}"
    raise CheckpointError(f"{key!r} is not a parameter of the official MedNeXt. Check which network the file is of.")


def complete(converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The renamed weights, with those that make the first down block's global response norm do nothing.

    The authors' code leaves it out there alone.
    """
    hidden = converted.get("down.0.expand.weight")
    if hidden is None or "encoder.0.0.grn_weight" not in converted:
        return converted
    zeros = hidden.new_zeros(1, hidden.shape[0], *hidden.shape[2:])
    return {"down.0.grn_weight": zeros, "down.0.grn_bias": zeros.clone(), **converted}
