"""Intensity normalisation, one rule per channel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.plan.plan import Normalization

_MIN_STD = 1e-8


def normalize(image: npt.NDArray[Any], rules: Sequence[Normalization]) -> npt.NDArray[np.float32]:
    """Copy of `image` (C, D, H, W) with each channel mapped by its rule; float32. Constant channels become 0."""
    result = np.array(image, dtype=np.float32, order="C")
    for channel, rule in zip(result, rules, strict=True):
        _normalize_in_place(channel, rule)
    return result


def _normalize_in_place(values: npt.NDArray[np.float32], rule: Normalization) -> None:
    if rule.kind == "none":
        return
    if rule.kind == "ct":
        assert rule.window is not None
        assert rule.mean is not None
        assert rule.std is not None
        np.clip(values, *rule.window, out=values)
        values -= rule.mean
        values /= rule.std
    elif rule.kind == "range_0_1":
        values -= values.min()
        values /= max(float(values.max()), _MIN_STD)
    elif rule.kind == "zscore":
        values -= values.mean(dtype=np.float64)
        values /= max(float(values.std(dtype=np.float64)), _MIN_STD)
    elif rule.kind == "zscore_nonzero":
        inside = values != 0
        if inside.any():
            seen = values[inside]
            seen -= seen.mean(dtype=np.float64)
            seen /= max(float(seen.std(dtype=np.float64)), _MIN_STD)
            values[inside] = seen
    else:
        raise AssertionError(rule.kind)
