"""Intensity normalisation, one rule per channel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelseg.plan.plan import Normalization


def normalize(image: npt.NDArray[Any], rules: Sequence[Normalization]) -> npt.NDArray[np.float32]:
    """Image (C, D, H, W) with each channel mapped by its rule; float32. Constant channels become 0."""
    return np.stack([_normalized(channel, rule) for channel, rule in zip(image, rules, strict=True)])


def _normalized(channel: npt.NDArray[Any], rule: Normalization) -> npt.NDArray[np.float32]:
    values = channel.astype(np.float32)
    if rule.kind == "none":
        return values
    if rule.kind == "ct":
        assert rule.window is not None
        assert rule.mean is not None
        assert rule.std is not None
        np.clip(values, *rule.window, out=values)
        values -= np.float32(rule.mean)
        values /= np.float32(rule.std)
        return values
    if rule.kind == "range_0_1":
        low, high = float(values.min()), float(values.max())
        values -= np.float32(low)
        values /= np.float32(max(high - low, 1e-8))
        return values
    inside = values != 0 if rule.kind == "zscore_nonzero" else np.ones(values.shape, dtype=bool)
    if not inside.any():
        return values
    seen = values[inside].astype(np.float64)
    values[inside] = (values[inside] - np.float32(seen.mean())) / np.float32(max(seen.std(), 1e-8))
    return values
