"""Names of E2ENet's weights in the authors' code (github.com/boqian333/E2ENet-Medical), and the masks it leaves out."""

import re

from torch import Tensor

from voxelseg.errors import CheckpointError
from voxelseg.nets.kernel_masks import MASK

_LAST_LEVEL = 4  # the lowest with fusion nodes: theirs always has six levels
_LAYERS = {"conv": "conv", "instnorm": "norm"}


def rename(key: str) -> str | None:
    """Our name for a parameter; every one takes part.

    Theirs number the fusion nodes by diagonals, and each diagonal from the lowest level up.
    """
    for pattern, name in _PATTERNS:
        match = re.fullmatch(pattern, key)
        if match:
            return name(*match.groups())
    raise CheckpointError(f"{key!r} is not a parameter of the official E2ENet. Check which network the file is of.")


def complete(converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The renamed weights with the masks that they imply: a kernel is active if any of its values is not zero.

    A kernel that was made active in the very last step before saving is still zero and counts as inactive. The authors'
    training ends 400 steps after its last change of the masks.
    """
    masks = {
        key.removesuffix("weight") + MASK: (weight != 0).flatten(2).any(2)
        for key, weight in converted.items()
        if re.fullmatch(r"fusion\..*\.conv\.weight|up\..*", key)
    }
    return converted | masks


def _place(diagonal: str, number: str) -> str:
    return f"{number}.{_LAST_LEVEL - int(diagonal) - int(number)}"


_PATTERNS = (
    (
        r"conv_blocks_context\.([0-4])\.blocks\.([01])\.(conv|instnorm)\.(\w+)",
        lambda level, block, part, rest: f"encoder.{level}.{block}.{_LAYERS[part]}.{rest}",
    ),
    (
        r"conv_blocks_context\.5\.([01])\.blocks\.0\.(conv|instnorm)\.(\w+)",
        lambda block, part, rest: f"encoder.5.{block}.{_LAYERS[part]}.{rest}",
    ),
    (
        r"loc([0-4])\.([0-4])\.([01])\.blocks\.0\.(conv|instnorm)\.(\w+)",
        lambda diagonal, number, block, part, rest: f"fusion.{_place(diagonal, number)}.{block}.{_LAYERS[part]}.{rest}",
    ),
    (r"up([0-4])\.([0-4])\.weight", lambda diagonal, number: f"up.{_place(diagonal, number)}.weight"),
    (r"seg_outputs\.([0-4])\.weight", lambda level: f"heads.{level}.weight"),
)
