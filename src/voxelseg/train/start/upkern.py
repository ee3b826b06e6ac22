"""UpKern: start a large-kernel MedNeXt from a trained small-kernel one (Roy et al., MICCAI 2023, Sec. 2.3, Alg. 1)."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from voxelseg.errors import CheckpointError


def grow_kernels(small_state: Mapping[str, Tensor], target_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict with the names and shapes of `target_state` and the values of `small_state`.

    Tensors of equal shape are copied, kernels that differ only in size are interpolated. Deep-supervision heads (names
    with `heads.`) may be missing on either side: the target's own are kept, surplus ones left out. CheckpointError if
    anything else is missing, left over or of another shape.
    """
    grown: dict[str, Tensor] = {}
    problems = [
        f"{key} is not in the large network"
        for key in small_state
        if key not in target_state and not key.startswith("heads.")
    ]
    for key, target in target_state.items():
        small = small_state.get(key)
        if small is None:
            if not key.startswith("heads."):
                problems.append(f"{key} is not in the small network")
            grown[key] = target
        elif small.shape == target.shape:
            grown[key] = small
        elif small.shape[:2] == target.shape[:2] and small.ndim == target.ndim and small.ndim in (4, 5):
            grown[key] = interpolate_kernel(small, target.shape[2:])
        else:
            problems.append(f"{key} is {tuple(small.shape)} in the small, {tuple(target.shape)} in the large network")
    if problems:
        raise CheckpointError(
            f"the networks differ in more than their kernels: {'; '.join(problems[:5])}"
            f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}. "
            "Train the small network with the same model, options, channels and classes as the large one."
        )
    return grown


def interpolate_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """Kernels (A, B, `size`) from those of `weight`, linearly along each axis; an axis of equal length stays as it is.

    Trilinear or bilinear, corners not aligned, not rescaled (the norm that follows removes the scale), as the authors'
    code does.
    """
    mode = "trilinear" if weight.ndim == 5 else "bilinear"
    return F.interpolate(weight, size=list(size), mode=mode, align_corners=False)
