"""Intensity normalisation, one rule per channel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from voxelseg.plan.plan import Normalization

_MIN_STD = 1e-8

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def normalize(
    image: npt.NDArray[Any], rules: Sequence[Normalization], masks: Sequence[Mask | None] | None = None
) -> Float:
    """Copy of `image` (C, D, H, W) with each channel mapped by its rule; float32. Constant channels become 0.

    `masks` are those of `normalization_masks`, taken from `image` itself unless they are given. A window, or the
    percentiles of a constant channel, may map a constant to something else than 0.
    """
    result = np.array(image, dtype=np.float32, order="C")
    for channel, rule, mask in zip(result, rules, masks or normalization_masks(image, rules), strict=True):
        _normalize_in_place(channel, rule, mask)
    return result


def normalization_masks(image: npt.NDArray[Any], rules: Sequence[Normalization]) -> list[Mask | None]:
    """Voxels (D, H, W) that each channel's rule looks at and alone changes; None for a rule that takes all."""
    shared: Mask | None = None
    masks: list[Mask | None] = []
    for channel, rule in zip(image, rules, strict=True):
        if rule.kind == "zscore_nonzero":
            masks.append(channel != 0)
        elif rule.kind == "zscore_mask":
            if shared is None:
                shared = ndimage.binary_fill_holes((image != 0).any(axis=0))
            masks.append(shared)
        else:
            masks.append(None)
    return masks


def _normalize_in_place(values: Float, rule: Normalization, mask: Mask | None) -> None:
    if rule.kind == "none":
        return
    if rule.kind == "ct":
        assert rule.window is not None
        assert rule.mean is not None
        assert rule.std is not None
        np.clip(values, *rule.window, out=values)
        values -= rule.mean
        values /= rule.std
    elif rule.kind == "window":
        assert rule.window is not None
        _to_0_1(values, *rule.window)
    elif rule.kind == "percentiles":
        assert rule.percentiles is not None
        if rule.window is not None:
            np.clip(values, *rule.window, out=values)
        low, high = np.percentile(values, rule.percentiles)
        _to_0_1(values, float(low), float(high))
    elif rule.kind == "range_0_1":
        values -= values.min()
        values /= max(float(values.max()), _MIN_STD)
    elif rule.kind == "zscore":
        values -= values.mean(dtype=np.float64)
        values /= max(float(values.std(dtype=np.float64)), _MIN_STD)
    elif rule.kind in ("zscore_nonzero", "zscore_mask"):
        assert mask is not None
        _standardize(values, mask)
    else:
        raise AssertionError(rule.kind)


def _to_0_1(values: Float, low: float, high: float) -> None:
    """`low` becomes 0 and `high` 1; what lies beyond is clipped."""
    values -= low
    values /= max(high - low, _MIN_STD)
    np.clip(values, 0, 1, out=values)


def _standardize(values: Float, mask: Mask) -> None:
    """Mean 0 and standard deviation 1 inside `mask`, 0 outside."""
    if mask.any():
        seen = values[mask]
        seen -= seen.mean(dtype=np.float64)
        seen /= max(float(seen.std(dtype=np.float64)), _MIN_STD)
        values[mask] = seen
    values[~mask] = 0
