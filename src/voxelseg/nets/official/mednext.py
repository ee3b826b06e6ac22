"""Names of MedNeXt's weights in the authors' code (github.com/MIC-DKFZ/MedNeXt)."""

import re

from voxelseg.errors import CheckpointError

_STAGES = {
    r"stem": "stem",
    r"enc_block_(\d)": r"encoder.\1",
    r"bottleneck": "encoder.4",
    r"down_(\d)": r"down.\1",
    r"up_(\d)": r"up.\1",
    r"dec_block_(\d)": r"decoder.\1",
    r"out_(\d)\.conv_out": r"heads.\1",
}
_LAYERS = {
    "conv1": "depthwise",
    "conv2": "expand",
    "conv3": "compress",
    "res_conv": "residual",
    "grn_gamma": "grn_weight",
    "grn_beta": "grn_bias",
}


def rename(key: str) -> str | None:
    """Our name for a parameter; None for `dummy_tensor`, which takes no part in the mathematics."""
    if key == "dummy_tensor":
        return None
    for pattern, replacement in _STAGES.items():
        match = re.match(rf"{pattern}\.", key)
        if match:
            stage, rest = match.expand(replacement), key[match.end() :].split(".")
            return ".".join([stage, *(_LAYERS.get(part, part) for part in rest)])
    raise CheckpointError(f"{key!r} is not a parameter of the official MedNeXt. Check which network the file is of.")
