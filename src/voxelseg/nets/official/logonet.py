"""Names of LoGoNet's and ULKANet's weights in the first author's code (github.com/7Amin/SSL_VAN).

Theirs for pre-training have the same names, with another head: LoGoNet's lacks what follows the sum, ULKANet's the last
pair of convolutions.
"""

import re

from voxelseg.errors import CheckpointError

_PAIRS = {  # of convolutions; lists count from the lowest resolution up
    r"first_conv": "stem",
    r"upsample0": "first_up",
    r"upsample([1-9])": "ups",  # the first of the list follows the first merge
    r"conv_res(\d)": "skips",
    r"conv(\d)": "merges",
    r"final_conv0": "refine",
    r"final_upsample": "last_up",
    r"final_conv1": "fusion",
}
_OF_A_PAIR = {"0": "first.conv", "1": "first.norm", "3": "second.conv", "4": "second.norm"}
_OF_A_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj_1": "attention.project_in",
    "attn.spatial_gating_unit.norm": "attention.norm",
    "attn.spatial_gating_unit.conv0": "attention.local",
    "attn.spatial_gating_unit.conv_spatial": "attention.long",
    "attn.spatial_gating_unit.conv1": "attention.gate",
    "attn.proj_2": "attention.project_out",
    "mlp.fc1": "mlp.expand",
    "mlp.dwconv3d.dwconv3d": "mlp.depthwise",
    "mlp.fc2": "mlp.compress",
}
_AFTER_THE_SUM = {"conv.0": "conv", "conv.1": "norm", "conv.3": "classifier"}
_CUBES = 2  # parts per axis

ULKANET_HEADS = ("body.refine.", "body.last_up.", "body.fusion.", "classifier.")
LOGONET_HEADS = (
    *("conv.", "norm.", "classifier.", "global_net.fusion."),
    *(f"local_nets.{number}.fusion." for number in range(_CUBES**3)),
)
"""How our names of the layers begin that depend on the number of classes."""


def rename_ulkanet(key: str) -> str | None:
    """Our name for a parameter or statistic; None for the head of pre-training."""
    if key.startswith("pre_train_proj."):
        return None
    if key.startswith("final_conv1.6."):
        return key.replace("final_conv1.6", "classifier")
    return _known(_in_unet("body", key), key, "ULKANet")


def rename_logonet(key: str) -> str | None:
    """Our name for a parameter or statistic; None for the head of pre-training."""
    if key.startswith("pre_train_proj."):
        return None
    network, _, rest = key.partition(".")
    place = re.fullmatch(r"van(?:([01])_([01])_([01]))?", network)
    if place:
        digits = place.groups(default="")
        which = f"local_nets.{int(''.join(digits), _CUBES)}" if all(digits) else "global_net"
        return _known(_in_unet(which, rest), key, "LoGoNet")
    layer, _, tensor = key.rpartition(".")
    return _known(f"{_AFTER_THE_SUM[layer]}.{tensor}" if layer in _AFTER_THE_SUM else None, key, "LoGoNet")


def _known(name: str | None, key: str, network: str) -> str:
    if name is None:
        raise CheckpointError(
            f"{key!r} is not a parameter of the official {network}. Check which network the file is of."
        )
    return name


def _in_unet(unet: str, key: str) -> str | None:
    """Our name for a tensor of the U-shape that is `unet` here."""
    layer, _, tensor = key.rpartition(".")
    if match := re.fullmatch(r"van3d\.patch_embed(\d)\.(proj|norm)", layer):
        part = "embed" if match[2] == "proj" else "embed_norm"
        return f"{unet}.stages.{int(match[1]) - 1}.{part}.{tensor}"
    if match := re.fullmatch(r"van3d\.norm(\d)", layer):
        return f"{unet}.stages.{int(match[1]) - 1}.norm.{tensor}"
    if match := re.fullmatch(r"van3d\.block(\d)\.(\d+)\.(.+)", key):
        return _in_block(f"{unet}.stages.{int(match[1]) - 1}.blocks.{match[2]}", match[3])
    for pattern, pair in _PAIRS.items():
        if (match := re.fullmatch(rf"{pattern}\.(\d)", layer)) and match.groups()[-1] in _OF_A_PAIR:
            *index, step = match.groups()
            number = f".{int(index[0]) - (pair == 'ups')}" if index else ""
            return f"{unet}.{pair}{number}.{_OF_A_PAIR[step]}.{tensor}"
    return None


def _in_block(block: str, key: str) -> str | None:
    if key in ("layer_scale_1", "layer_scale_2"):
        return f"{block}.scale{key[-1]}"
    layer, _, tensor = key.rpartition(".")
    return f"{block}.{_OF_A_BLOCK[layer]}.{tensor}" if layer in _OF_A_BLOCK else None
