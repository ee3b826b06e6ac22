"""Names of 3D UX-Net's weights in the authors' code (github.com/MASILab/3DUX-Net).

The nnU-Net v1 trainer of MedNeXt's authors wraps the same module, so its checkpoints have the same names.
"""

import re

from voxelseg.errors import CheckpointError

_BLOCK_PARTS = {"gamma": "layer_scale", "dwconv": "conv", "norm": "norm", "pwconv1": "expand", "pwconv2": "compress"}
_RESIDUAL_PARTS = {"conv1": "conv1", "conv2": "conv2", "conv3": "shortcut"}
_LOWEST = 5  # encoder5 is the bottleneck; decoderN leads from the resolution of encoderN to the one above


def rename(key: str) -> str | None:
    """Our name for a parameter; every one takes part."""
    for pattern, name in _PATTERNS:
        match = re.fullmatch(pattern, key)
        if match:
            return name(*match.groups())
    raise CheckpointError(f"{key!r} is not a parameter of the official 3D UX-Net. Check which network the file is of.")


def _skip(level: str, part: str, rest: str) -> str:
    block = "bottleneck" if int(level) == _LOWEST else f"skips.{int(level) - 1}"
    return f"{block}.{_RESIDUAL_PARTS[part]}.{rest}"


_PATTERNS = (
    (r"uxnet_3d\.downsample_layers\.0\.0\.(\w+)", lambda rest: f"stem.conv.{rest}"),
    (r"uxnet_3d\.downsample_layers\.0\.1\.(\w+)", lambda rest: f"stem.norm.{rest}"),
    (r"uxnet_3d\.downsample_layers\.([1-9])\.0\.(\w+)", lambda i, rest: f"transitions.{int(i) - 1}.norm.{rest}"),
    (r"uxnet_3d\.downsample_layers\.([1-9])\.1\.(\w+)", lambda i, rest: f"transitions.{int(i) - 1}.conv.{rest}"),
    (r"uxnet_3d\.stages\.(\d)\.(\d+)\.gamma", lambda stage, block: f"stages.{stage}.{block}.layer_scale"),
    (
        r"uxnet_3d\.stages\.(\d)\.(\d+)\.(dwconv|norm|pwconv1|pwconv2)\.(\w+)",
        lambda stage, block, part, rest: f"stages.{stage}.{block}.{_BLOCK_PARTS[part]}.{rest}",
    ),
    (r"uxnet_3d\.norm(\d)\.(\w+)", lambda stage, rest: f"output_norms.{stage}.{rest}"),
    (r"encoder([1-5])\.layer\.(conv[123])\.conv\.(\w+)", _skip),
    (r"decoder1\.layer\.(conv[12])\.conv\.(\w+)", lambda part, rest: f"refine.{_RESIDUAL_PARTS[part]}.{rest}"),
    (r"decoder([2-5])\.transp_conv\.conv\.(\w+)", lambda level, rest: f"up.{int(level) - 2}.{rest}"),
    (
        r"decoder([2-5])\.conv_block\.(conv[123])\.conv\.(\w+)",
        lambda level, part, rest: f"decoder.{int(level) - 2}.{_RESIDUAL_PARTS[part]}.{rest}",
    ),
    (r"out\.conv\.conv\.(\w+)", lambda rest: f"heads.0.{rest}"),
)
