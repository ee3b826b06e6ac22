"""The command `models`."""

from typing import Any

from voxelseg.nets import describe_models


def models() -> list[dict[str, Any]]:
    """Every network that `create_model` and --model know, with its parameters for 1 channel and 14 classes."""
    return describe_models()
